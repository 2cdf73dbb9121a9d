//! The steps; MySQL's are in `my_tour`. Each shows something with real clients, checks it, and gives back its result in one line.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use tokio_postgres::Client;

use super::clients::{Metrics, Wrong, ask, connect, expect, get, in_time, look_at_database, program, psql};
use super::config::CONNECTIONS;
use super::my_tour;
use super::report::Report;
use super::scene::{DATABASE_CONNECTIONS, Scene};

/// Clients of the crowd. The system must grant this many open files and some more to pgbench, and to the proxy.
const CLIENTS: usize = 500;
/// What each of them does. Not so many seconds: pgbench counts its logins in.
const TRANSACTIONS: usize = 100;
/// Between looks at how many connections there are.
const SAMPLE: Duration = Duration::from_millis(100);

const TLS: &str = "a token, over TLS";
const CROWD: &str = "500 clients at once";
const SESSION: &str = "what sessions do";
const PINS: &str = "a SET, and clean hands";
const ADMIN: &str = "metrics and health";

/// All steps, one after another.
pub async fn walk(scene: &Scene, report: &mut Report) {
    step(report, TLS, async |report| over_tls(scene, report).await).await;
    step(report, CROWD, async |report| crowd(scene, report).await).await;
    step(report, SESSION, async |report| session(scene, report).await).await;
    step(report, PINS, async |report| pins(scene, report).await).await;
    if let Some(mysql) = &scene.mysql {
        my_tour::walk(scene, mysql, report).await;
    }
    step(report, ADMIN, async |report| admin(scene, report).await).await;
}

/// One of them.
pub async fn step(
    report: &mut Report,
    name: &'static str,
    take: impl AsyncFnOnce(&mut Report) -> Result<String, Wrong>,
) {
    let since = report.begin(name);
    let outcome = take(report).await;
    report.end(name, since, outcome.map_err(|wrong| wrong.to_string()));
}

// ---------------------------------------------------------------------------------------------- 1: TLS

async fn over_tls(scene: &Scene, report: &mut Report) -> Result<String, Wrong> {
    report.runs(&scene.token_command());
    let token = scene.token();
    report.came(&format!("a token of {} bytes, good for 15 minutes: it goes where the password goes", token.len()));
    report.runs(&format!("psql \"{}\"", scene.conninfo_here()));
    let script = "SELECT substring(version() from '^\\S+ \\S+');\nSELECT current_user;\n\\conninfo\n";
    let printed = psql(scene, &token, script).await?;
    expect(printed.is_good && printed.errors.is_empty(), "a login", printed.all())?;
    let mut lines = printed.out.lines();
    let version = lines.next().unwrap_or_default();
    let user = lines.next().unwrap_or_default();
    // psql 15 says "SSL connection (protocol: TLSv1.3, ...)", psql 18 has a table of it.
    let words: Vec<&str> = printed.out.split(|c: char| !(c.is_alphanumeric() || c == '.')).collect();
    let tls = words.into_iter().find(|word| word.starts_with("TLSv1")).unwrap_or("none");
    report.came(&format!("{version}, as {user}, {tls}; the certificate is for localhost and signed by the fresh CA"));
    expect(version.starts_with("PostgreSQL") && user == "app" && tls != "none", "PostgreSQL over TLS", &printed.out)?;

    report.does("psql with a token for another user, its name changed by hand");
    let changed = token.replace("DBUser=app", "DBUser=ap");
    let refused = psql(scene, &changed, "SELECT 1;\n").await?;
    let told = refused.errors.lines().last().unwrap_or_default();
    let told = told.split_once("FATAL:").map_or(told, |(_, words)| words).trim();
    report.came(told);
    expect(!refused.is_good && told.contains("IAM authentication failed"), "a refusal", refused.all())?;
    Ok(format!("{version} over {tls}; a changed token is refused"))
}

// ---------------------------------------------------------------------------------------------- 2: the crowd

async fn crowd(scene: &Scene, report: &mut Report) -> Result<String, Wrong> {
    report.runs("pgbench -i ...");
    let conninfo = scene.conninfo();
    let made = program(scene, "pgbench", &scene.token(), &["-i", "-q", "-s", "1", &conninfo], "").await?;
    expect(made.is_good, "100000 accounts", made.all())?;
    report.came("100000 accounts, made through the proxy");

    let (clients, each) = (CLIENTS.to_string(), TRANSACTIONS.to_string());
    let arguments = ["-n", "-S", "-c", &clients, "-j", "2", "-t", &each, "-M", "prepared", &conninfo];
    report.runs(&format!("pgbench -n -S -c {clients} -j 2 -t {each} -M prepared \"host=localhost ...\""));
    let token = scene.token();
    let database = look_at_database(scene).await?;
    let mut peaks = Peaks::default();
    let mut running = pin!(program(scene, "pgbench", &token, &arguments, ""));
    let mut samples = tokio::time::interval(SAMPLE);
    samples.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let printed = loop {
        tokio::select! {
            printed = &mut running => break printed?,
            _ = samples.tick() => peaks.sample(scene, &database, report).await?,
        }
    };
    expect(printed.is_good && printed.errors.trim_end().lines().count() <= 1, "no error", printed.all())?;
    let value = |name: &str| {
        let rest = printed.out.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next().map(ToOwned::to_owned)
    };
    let transactions = value("number of transactions actually processed:").unwrap_or_default();
    let transactions = transactions.split('/').next().unwrap_or_default();
    let failed = value("number of failed transactions:").unwrap_or_default();
    let speed = value("tps = ").and_then(|tps| tps.parse::<f64>().ok()).unwrap_or_default();
    let latency = value("latency average = ").unwrap_or_default();
    report
        .came(&format!("{transactions} transactions, {failed} failed; {speed:.0} per second, {latency} ms on average"));
    let Peaks { clients, connections } = peaks;
    report.came(&format!(
        "at most {clients} clients at the proxy, {connections} connections at the database (pg_stat_activity)"
    ));
    let all_done = transactions == (CLIENTS * TRANSACTIONS).to_string();
    expect(all_done && failed == "0", "all transactions done, none failed", printed.all())?;
    expect(clients == CLIENTS, format!("{CLIENTS} clients at once"), clients)?;
    expect((1..=CONNECTIONS).contains(&connections), format!("1 to {CONNECTIONS} connections"), connections)?;
    Ok(format!("{clients} clients on {connections} connections, {failed} errors, {speed:.0} per second"))
}

/// The most that was seen.
#[derive(Default)]
struct Peaks {
    clients: usize,
    connections: usize,
}

impl Peaks {
    async fn sample(&mut self, scene: &Scene, database: &Client, report: &mut Report) -> Result<(), Wrong> {
        let counted = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        let connections: i64 = ask(database, counted).await?;
        self.connections = self.connections.max(usize::try_from(connections).unwrap_or_default());
        let clients = Metrics::read(scene).await?.sum("sluicegate_client_connections", "");
        let was_there = self.clients >= CLIENTS;
        self.clients = self.clients.max(format!("{clients:.0}").parse().unwrap_or_default());
        if self.clients >= CLIENTS && !was_there {
            report.came(&format!(
                "{} clients have logged in with a token, over TLS; the database allows {DATABASE_CONNECTIONS}",
                self.clients
            ));
        }
        Ok(())
    }
}

// ---------------------------------------------------------------------------------------------- 3: sessions

async fn session(scene: &Scene, report: &mut Report) -> Result<String, Wrong> {
    report.does("a driver prepares a statement once and runs it again and again while others keep connections busy");
    let client = connect(scene).await?;
    let statement = client.prepare("SELECT pg_backend_pid(), $1::int * 2").await?;
    let mut seen = BTreeSet::new();
    let mut busy = Vec::new();
    for number in 1..CONNECTIONS {
        let number = i32::try_from(number).unwrap_or_default();
        let row = in_time("a prepared statement", client.query_one(&statement, &[&number])).await??;
        seen.insert(row.try_get::<_, i32>(0)?);
        let doubled: i32 = row.try_get(1)?;
        expect(doubled == number * 2, format!("{}", number * 2), doubled)?;
        // Its transaction keeps a connection, often the very one.
        let other = connect(scene).await?;
        in_time("BEGIN", other.batch_execute("BEGIN; SELECT 1")).await??;
        busy.push(other);
    }
    drop(busy);
    report.came(&format!("{} executions, right on {} different database connections", CONNECTIONS - 1, seen.len()));
    expect(seen.len() > 1, "more than one connection", seen.len())?;

    report.does("psql: a transaction with an error in it, then ROLLBACK");
    let script = "CREATE TABLE visits (id int PRIMARY KEY);\n\
                  BEGIN;\nINSERT INTO visits VALUES (1);\nSELECT 1/0;\nSELECT 1;\nROLLBACK;\n\
                  SELECT count(*) FROM visits;\n";
    let printed = psql(scene, &scene.token(), script).await?;
    let told = printed.errors.lines().filter_map(|line| line.split_once("ERROR:")).map(|(_, words)| words.trim());
    let told: Vec<&str> = told.collect();
    let left = printed.out.trim();
    report.came(&format!("{}; rows left: {left}", told.join("; ")));
    let [division, aborted] = told.as_slice() else {
        return Err(Wrong::Unexpected { wanted: "two errors".to_owned(), found: printed.all() });
    };
    let as_direct = division.contains("division by zero") && aborted.contains("transaction is aborted");
    expect(as_direct && left == "0", "the errors of a direct connection, and no row", printed.all())?;

    report.does("psql: \\copy in, \\copy out");
    let numbers: Vec<String> = (1..=1000).map(|number: u32| number.to_string()).collect();
    let script = format!(
        "\\copy visits from stdin\n{}\n\\.\n\\copy (SELECT count(*), sum(id) FROM visits) to stdout\nDROP TABLE visits;\n",
        numbers.join("\n")
    );
    let printed = psql(scene, &scene.token(), &script).await?;
    let copied = printed.out.trim().replace('\t', ", ");
    report.came(&format!("rows and sum: {copied}"));
    expect(printed.is_good && copied == "1000, 500500", "1000 rows and their sum 500500", printed.all())?;
    Ok(format!("prepared names on {} connections, rollback, 1000 rows copied", seen.len()))
}

// ---------------------------------------------------------------------------------------------- 4: pins

async fn pins(scene: &Scene, report: &mut Report) -> Result<String, Wrong> {
    let pinned = async |reason: &str| {
        let metrics = Metrics::read(scene).await?;
        Ok::<f64, Wrong>(metrics.sum("sluicegate_pins_total", &format!("reason=\"{reason}\"")))
    };
    let before = pinned("setting").await?;
    let client = connect(scene).await?;
    report.does("client A: SET statement_timeout = '1234ms'; ten others hold all connections, and one after another lends A its own");
    in_time("SET", client.batch_execute("SET statement_timeout = '1234ms'")).await??;
    let mut others = Vec::new();
    for _ in 0..CONNECTIONS {
        let other = connect(scene).await?;
        in_time("BEGIN", other.batch_execute("BEGIN")).await??;
        others.push(other);
    }
    let (mut own, mut kept, mut theirs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for other in &others {
        in_time("COMMIT", other.batch_execute("COMMIT")).await??;
        own.insert(ask::<i32>(&client, "SELECT pg_backend_pid()").await?);
        kept.insert(ask::<String>(&client, "SHOW statement_timeout").await?);
        in_time("BEGIN", other.batch_execute("BEGIN")).await??;
        theirs.insert(ask::<String>(other, "SHOW statement_timeout").await?);
    }
    drop(others);
    let after = pinned("setting").await?;
    report.came(&format!("A was on {} connections, its timeout always {kept:?}, theirs {theirs:?}", own.len()));
    report.came(&format!("sluicegate_pins_total{{reason=\"setting\"}} was {before} and is {after}"));
    expect(kept.iter().eq(["1234ms"]), "A's own setting", format!("{kept:?}"))?;
    expect(own.len() > 1, "several connections", own.len())?;
    expect(theirs.iter().eq(["0"]), "no trace of it at the others", format!("{theirs:?}"))?;
    expect(after <= before, "no pin", after)?;

    report.does("A: CREATE TEMP TABLE, asks for its connection, DROP TABLE");
    let before = pinned("temporary_object").await?;
    in_time("CREATE", client.batch_execute("CREATE TEMP TABLE mine AS SELECT 42 AS a")).await??;
    let mut pids = BTreeSet::new();
    for _ in 0..5 {
        pids.insert(ask::<i32>(&client, "SELECT pg_backend_pid() FROM mine").await?);
    }
    in_time("DROP", client.batch_execute("DROP TABLE mine")).await??;
    let after = pinned("temporary_object").await?;
    report.came(&format!("pinned to one connection until the table was gone; pins: {before}, then {after}"));
    expect(pids.len() == 1 && after > before, "a connection for A alone", format!("{pids:?}, {after}"))?;

    report.does("A leaves; ten clients take all ten connections at the same time");
    drop(client);
    let mut clients = Vec::new();
    let mut pids = BTreeSet::new();
    let mut settings = BTreeSet::new();
    for _ in 0..CONNECTIONS {
        let client = connect(scene).await?;
        in_time("BEGIN", client.batch_execute("BEGIN")).await??;
        pids.insert(ask::<i32>(&client, "SELECT pg_backend_pid()").await?);
        settings.insert(ask::<String>(&client, "SHOW statement_timeout").await?);
        clients.push(client);
    }
    let shown = settings.iter().cloned().collect::<Vec<_>>().join(", ");
    report.came(&format!("statement_timeout is {shown} on all {}", pids.len()));
    expect(pids.len() == CONNECTIONS, format!("{CONNECTIONS} connections"), pids.len())?;
    expect(shown == "0", "no trace of A", &shown)?;
    Ok(format!("a setting on {} connections, unseen by others; a pin ended", own.len()))
}

// ---------------------------------------------------------------------------------------------- last: admin

async fn admin(scene: &Scene, report: &mut Report) -> Result<String, Wrong> {
    for path in ["/healthz", "/readyz"] {
        report.runs(&format!("curl http://{}{path}", scene.admin));
        let (status, body) = get(scene, path).await?;
        report.came(body.trim_end());
        expect(status == 200, "status 200", format!("{status} {body}"))?;
    }
    report.runs(&format!("curl http://{}/metrics", scene.admin));
    let metrics = Metrics::read(scene).await?;
    let names = [
        "sluicegate_client_connections_received_total",
        "sluicegate_logins_refused_total",
        "sluicegate_transactions_total",
        "sluicegate_database_connections_opened_total",
        "sluicegate_database_connections",
        "sluicegate_pins_total",
    ];
    for line in metrics.shown(&names) {
        report.came(&line);
    }
    let received = metrics.sum("sluicegate_client_connections_received_total", "");
    let disagreements = metrics.sum("sluicegate_disagreements_total", "");
    expect(received > 500.0, "more than 500 clients counted", received)?;
    expect(disagreements == 0.0, "no disagreement about state", disagreements)?;
    Ok(format!("alive and ready; {received} clients were counted"))
}
