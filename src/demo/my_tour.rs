//! The steps at MySQL's endpoint, as `tour` has them for PostgreSQL: two ways in, a crowd, a pin.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;

use super::clients::{
    Metrics, Wrong, at_once, command_line, expect, in_time, look_at_mysql, my_ask, my_connect, mysql,
};
use super::config::{CONNECTIONS, MYSQL, SHOP};
use super::report::Report;
use super::scene::{DATABASE_CONNECTIONS, MySqlScene, Scene};
use super::servers::{APP, APP_PASSWORD};
use super::tour::step;

/// Clients of the crowd.
const CLIENTS: usize = 200;
/// What each of them does.
const TRANSACTIONS: usize = 50;

const LOGINS: &str = "MySQL: two ways in";
const CROWD: &str = "200 clients at once";
const PINS: &str = "a pin, with its reason";

/// All steps, one after another.
pub async fn walk(scene: &Scene, mysql: &MySqlScene, report: &mut Report) {
    step(report, LOGINS, async |report| logins(scene, mysql, report).await).await;
    step(report, CROWD, async |report| crowd(scene, mysql, report).await).await;
    step(report, PINS, async |report| pins(scene, mysql, report).await).await;
}

// ---------------------------------------------------------------------------------------------- 1: logins

async fn logins(scene: &Scene, my: &MySqlScene, report: &mut Report) -> Result<String, Wrong> {
    let script = "SELECT VERSION();\nSELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1);\n";
    let token = scene.token_for(my.port);
    let installation = my.server.installation();
    let (name, verifies) = command_line(installation.flavour());
    let program = format!("{name} --host=localhost --port={} --ssl-ca={} {verifies}", my.port, my.ca_file());
    for (user, secret, password) in [(SHOP, "its password", APP_PASSWORD), (APP, "a token", token.as_str())] {
        report.runs(&format!("MYSQL_PWD=<{secret}> {program} --user={user} {APP}"));
        let printed = mysql(my, user, password, script).await?;
        expect(printed.is_good && printed.errors.is_empty(), "a login", printed.all())?;
        let mut lines = printed.out.lines();
        let version = lines.next().unwrap_or_default();
        let account = lines.next().unwrap_or_default();
        report.came(&format!("{version}; as {account} at the database"));
        let is_it = version.starts_with(installation.version());
        expect(is_it && account == APP, "the database, as the application", printed.all())?;
    }
    report.does("the same with a token whose name was changed by hand");
    let changed = token.replace("DBUser=app", "DBUser=ap");
    let refused = mysql(my, APP, &changed, "SELECT 1;\n").await?;
    let told = refused.errors.lines().last().unwrap_or_default();
    report.came(told);
    expect(!refused.is_good && told.contains("ERROR 1045"), "a refusal", refused.all())?;
    let (flavour, version) = (installation.flavour(), installation.version());
    Ok(format!("{flavour} {version} by password and token; a changed one refused"))
}

// ---------------------------------------------------------------------------------------------- 2: the crowd

async fn crowd(scene: &Scene, my: &MySqlScene, report: &mut Report) -> Result<String, Wrong> {
    let mut root = look_at_mysql(my).await?;
    in_time("a table", root.query_drop("CREATE TABLE app.visits (id INT PRIMARY KEY, seen INT NOT NULL)")).await??;
    let rows: Vec<String> = (0..CLIENTS).map(|client| format!("({client}, 0)")).collect();
    in_time("rows", root.query_drop(format!("INSERT INTO app.visits VALUES {}", rows.join(", ")))).await??;
    report
        .does(&format!("{CLIENTS} clients log in; each of them counts {TRANSACTIONS} visits, a transaction for each"));
    let clients = at_once((0..CLIENTS).map(|_| my_connect(my.port))).await?;
    let here = Metrics::read(scene).await?.sum("sluicegate_client_connections", &format!("endpoint=\"{MYSQL}\""));
    report.came(&format!("{here:.0} clients have logged in; the database allows {DATABASE_CONNECTIONS}"));
    let work = clients.into_iter().enumerate().map(async |(number, mut client)| {
        let visit = format!("UPDATE visits SET seen = seen + 1 WHERE id = {number}");
        for _ in 0..TRANSACTIONS {
            in_time("BEGIN", client.query_drop("BEGIN")).await??;
            in_time("UPDATE", client.query_drop(&visit)).await??;
            in_time("COMMIT", client.query_drop("COMMIT")).await??;
        }
        in_time("goodbye", client.disconnect()).await??;
        Ok::<_, Wrong>(())
    });
    at_once(work).await?;
    let seen = my_ask(&mut root, "SELECT SUM(seen) FROM app.visits").await?.unwrap_or_default();
    let counted = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app'";
    let connections = my_ask(&mut root, counted).await?.unwrap_or_default();
    report.came(&format!("{seen} visits counted; {connections} connections at the database (processlist)"));
    expect(seen == (CLIENTS * TRANSACTIONS).to_string(), "every visit", &seen)?;
    let is_few = connections.parse().is_ok_and(|connections| (1..=CONNECTIONS).contains(&connections));
    expect(is_few, format!("1 to {CONNECTIONS} connections"), &connections)?;
    Ok(format!("{here:.0} clients on {connections} connections, {seen} transactions, 0 errors"))
}

// ---------------------------------------------------------------------------------------------- 3: a pin

async fn pins(scene: &Scene, my: &MySqlScene, report: &mut Report) -> Result<String, Wrong> {
    const SERIES: &str = "reason=\"temporary_object\"";
    let before = Metrics::read(scene).await?.sum("sluicegate_pins_total", SERIES);
    report.does("client A: CREATE TEMPORARY TABLE, and asks again and again while others come and go");
    let mut client = my_connect(my.port).await?;
    in_time("CREATE", client.query_drop("CREATE TEMPORARY TABLE mine AS SELECT 42 AS a")).await??;
    let mut own = BTreeSet::new();
    for _ in 0..5 {
        let mut other = my_connect(my.port).await?;
        my_ask(&mut other, "SELECT 1").await?;
        let id = my_ask(&mut client, "SELECT CONNECTION_ID() FROM mine").await?;
        own.insert(id);
    }
    let metrics = Metrics::read(scene).await?;
    let after = metrics.sum("sluicegate_pins_total", SERIES);
    report
        .came(&format!("always on the same connection; sluicegate_pins_total{{{SERIES}}} was {before} and is {after}"));
    expect(own.len() == 1 && after > before, "a connection for A alone", format!("{own:?}, {after}"))?;

    report.does("A leaves; ten clients take all ten connections at the same time, and look for A's table");
    in_time("goodbye", client.disconnect()).await??;
    let mut clients = Vec::new();
    let mut ids = BTreeSet::new();
    for _ in 0..CONNECTIONS {
        let mut client = my_connect(my.port).await?;
        in_time("BEGIN", client.query_drop("BEGIN")).await??;
        ids.insert(my_ask(&mut client, "SELECT CONNECTION_ID()").await?);
        let found = my_ask(&mut client, "SELECT a FROM mine").await;
        let is_gone =
            matches!(&found, Err(Wrong::MySqlClient(mysql_async::Error::Server(error))) if error.code == 1146);
        expect(is_gone, "no such table", format!("{found:?}"))?;
        clients.push(client);
    }
    report.came(&format!("it is on none of the {}", ids.len()));
    expect(ids.len() == CONNECTIONS, format!("{CONNECTIONS} connections"), ids.len())?;
    Ok("a temporary table kept a connection; gone with its client".to_owned())
}
