//! Random sessions of several clients over fewer connections, step by step beside a direct connection for each client:
//! whatever a client does, it reads what its own connection would have shown it, and nothing of anybody else.
//!
//! The seed is printed. `SLUICEGATE_MODEL_SEED=7 SLUICEGATE_MODEL_STEPS=200000 cargo test --test it model` runs others,
//! and more. Differences that are known and documented are taken out by name in [`shown`].

pub mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sluicegate::demo::servers::PostgresServer;
use std::fmt::Write as _;

use crate::harness::proxy::{config, start};
use crate::harness::wire::{
    Frame, Login, Wire, batch, bind, close_statement, describe_statement, execute, message, parse, query, sync,
};
use crate::harness::{database, servers};
use random::{Random, number_of};

/// Steps of a run in the suite, for each server.
const STEPS: usize = 2_500;
const CLIENTS: usize = 5;
/// Connections for clients; two more are the proxy's own.
const CONNECTIONS: usize = 3;

const SETUP: &[&str] = &[
    "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE public.t AS SELECT 'public' AS v",
    "CREATE TABLE a.t AS SELECT 'a' AS v; CREATE TABLE b.t AS SELECT 7 AS v, 'b' AS w",
    "GRANT ALL ON SCHEMA a, b, public TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA a, b, public TO PUBLIC",
    "CREATE PROCEDURE public.sets(v text) LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', v, false); END $$",
];

/// What a client's session is asked for after its steps: all that there is to know of it.
const STATE: &str = "SELECT name || '=' || setting FROM pg_settings WHERE name IN ('work_mem', 'statement_timeout', \
     'search_path', 'TimeZone', 'DateStyle', 'IntervalStyle', 'extra_float_digits', 'application_name', 'bytea_output', \
     'standard_conforming_strings', 'client_encoding', 'default_transaction_read_only', 'lock_timeout') \
     UNION ALL SELECT 'role=' || current_user || '/' || session_user \
     UNION ALL SELECT 'app.tenant=' || coalesce(current_setting('app.tenant', true), '') \
     UNION ALL SELECT 'app.case=' || coalesce(current_setting('App.Case', true), '') \
     UNION ALL SELECT 'temp=' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() \
     UNION ALL SELECT 'lock=' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() \
     UNION ALL SELECT 'cursor=' || name FROM pg_cursors WHERE is_holdable \
     UNION ALL SELECT 'listens=' || c FROM pg_listening_channels() c ORDER BY 1";

/// Texts, most of which do something to the session. `{n}`: a small number.
const TEXTS: &[&str] = &[
    "SET work_mem = '{n}MB'",
    "SET SESSION statement_timeout = {n}0000",
    "SET search_path = a, public",
    "SET search_path TO \"$user\", b",
    "SET search_path TO ''",
    "SET app.tenant = 'x{n}'",
    "SET \"App\".\"Case\" = 'it''s {n}'",
    "SET TIME ZONE 'utc'",
    "SET TIME ZONE 'Asia/Tokyo'",
    "SET TIME ZONE -{n}",
    "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
    "SET datestyle = 'German'",
    "SET datestyle = iso, ydm",
    "SET intervalstyle = iso_8601",
    "SET extra_float_digits = {n}",
    "SET application_name = 'n{n}'",
    "SET bytea_output = escape",
    "SET standard_conforming_strings = off",
    "SET standard_conforming_strings = on",
    "SET client_encoding = 'LATIN1'",
    "SET NAMES 'UTF8'",
    "SET ROLE model_role",
    "SET ROLE NONE",
    "RESET ROLE",
    "RESET work_mem",
    "RESET search_path",
    "RESET app.tenant",
    "RESET ALL",
    "SET work_mem TO DEFAULT",
    "SET TIME ZONE LOCAL",
    "SET LOCAL work_mem = '9MB'",
    "SET LOCAL app.tenant = 'local'",
    "SET LOCAL ROLE model_role",
    "SET work_mem = 'nonsense'",
    "SELECT set_config('app.tenant', 's{n}', false)",
    "SELECT set_config('app.tenant', 'l{n}', true)",
    "SELECT set_config('work_mem', '{n}MB', false), set_config('app.tenant', current_user, false)",
    "SELECT set_config('lock_timeout', '{n}000', v = 'a') FROM a.t",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET default_transaction_read_only = {n}",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "DO $$ BEGIN PERFORM set_config('app.tenant', 'do{n}', false); END $$",
    "DO $$ BEGIN SET work_mem = '6MB'; END $$",
    "CALL public.sets('call{n}')",
    "UPDATE pg_settings SET setting = '{n}000' WHERE name = 'lock_timeout'",
    "SHOW work_mem",
    "SHOW search_path",
    "SHOW TimeZone",
    "SELECT v FROM t",
    "SELECT '2020-02-03'::date, 1.5::float8 / 3, interval '1 day', '\\x00'::bytea",
    "SELECT 'a\\\\b', current_user",
    "SELECT coalesce(current_setting('app.tenant', true), '')",
    "SELECT 1/0",
    "nonsense",
    "",
    "CREATE TEMP TABLE mine AS SELECT {n} AS a",
    "CREATE TEMP TABLE t AS SELECT 'temp' AS v",
    "CREATE TEMP TABLE brief ON COMMIT DROP AS SELECT {n} AS a",
    "SELECT a FROM mine",
    "DROP TABLE mine",
    "DROP TABLE pg_temp.t",
    "DROP TABLE IF EXISTS mine",
    "SELECT pg_try_advisory_lock({n})",
    "SELECT pg_try_advisory_lock_shared({n})",
    "SELECT pg_try_advisory_xact_lock({n})",
    "SELECT pg_advisory_unlock({n})",
    "SELECT pg_advisory_unlock_all()",
    "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 5)",
    "DECLARE d CURSOR FOR SELECT 1",
    "FETCH 2 FROM c",
    "CLOSE c",
    "CLOSE ALL",
    "LISTEN news",
    "UNLISTEN news",
    "UNLISTEN *",
    // With its schema: a temporary table of that name is seen by a statement that is made anew, and by no other.
    "PREPARE p1 AS SELECT v FROM a.t",
    "PREPARE p2 (int) AS SELECT $1 + {n}",
    "EXECUTE p1",
    "EXECUTE p2({n})",
    "EXECUTE p2(nowhere)",
    "EXPLAIN (COSTS OFF) EXECUTE p1",
    "CREATE TEMP TABLE mine AS EXECUTE p1",
    "PREPARE p3 AS SELECT set_config('app.tenant', 'p{n}', false)",
    "EXECUTE p3",
    "PREPARE \"P4\"(text) AS SELECT set_config('app.tenant', $1, false)",
    "EXECUTE \"P4\"('q{n}')",
    "PREPARE p1 AS SELECT nonsense FROM t",
    "EXECUTE n1",
    "EXECUTE n2",
    "DEALLOCATE n1",
    "DEALLOCATE PREPARE \"P4\"",
    "DEALLOCATE p1",
    "DEALLOCATE p2",
    "DEALLOCATE p3",
    "DEALLOCATE ALL",
    "DISCARD TEMP",
    "DISCARD PLANS",
    "DISCARD ALL",
];

const TRANSACTION: &[&str] = &[
    "BEGIN",
    "BEGIN",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "COMMIT AND CHAIN",
    "SAVEPOINT s1",
    "SAVEPOINT s2",
    "SAVEPOINT s1",
    "RELEASE s1",
    "ROLLBACK TO s1",
    "ROLLBACK TO s2",
];

fn text(random: &mut Random) -> String {
    let texts = if random.one_in(3) { TRANSACTION } else { TEXTS };
    let number = 1 + random.below(3);
    random.of(texts).replace("{n}", &number.to_string())
}

/// What is sent, how often the server is ready behind it, and how it reads.
struct Step {
    bytes: Vec<u8>,
    readies: usize,
    shown: String,
}

fn step(random: &mut Random) -> Step {
    let (mut bytes, mut readies, mut shown) = (Vec::new(), 0, String::new());
    match random.below(10) {
        // Simple queries, pipelined now and then.
        0..4 => {
            for _ in 0..1 + usize::from(random.one_in(5)) * random.below(3) {
                let text = text(random);
                write!(shown, "Q {text} | ").unwrap();
                bytes.extend(query(&text));
                readies += 1;
            }
        }
        // Several statements in one.
        4 => {
            let texts: Vec<String> = (0..2 + random.below(2)).map(|_| text(random)).collect();
            let text = texts.join("; ");
            write!(shown, "Q {text}").unwrap();
            bytes.extend(query(&text));
            readies += 1;
        }
        // Extended segments.
        5..8 => {
            for _ in 0..1 + random.below(2) {
                for _ in 0..1 + usize::from(random.one_in(3)) * random.below(3) {
                    let text = text(random);
                    write!(shown, "PBE {text} | ").unwrap();
                    bytes.extend(batch([parse("", &text), bind("", "", &[]), execute("", 0)]));
                }
                shown.push_str("S | ");
                bytes.extend(sync());
                readies += 1;
            }
        }
        // Named statements.
        8 => {
            let name = ["n1", "n2"][random.below(2)];
            // What a FETCH returns is decided where it is parsed, and so is how backslashes are read. It is parsed anew elsewhere.
            // One that executes itself exhausts the server's stack.
            let text = text(random);
            let is_decided = text.contains("FETCH") || text.contains("EXECUTE n") || text.contains('\\');
            let text = if is_decided { "SHOW work_mem".to_owned() } else { text };
            let (what, part) = match random.below(4) {
                0 | 1 => (format!("C P {name} {text}"), batch([close_statement(name), parse(name, &text)])),
                2 => (format!("P {name} {text}"), parse(name, &text)),
                _ => (format!("D {name}"), describe_statement(name)),
            };
            write!(shown, "{what} | S").unwrap();
            bytes.extend(batch([part, sync()]));
            readies += 1;
        }
        // Settings whose names and values are parameters.
        9 if random.one_in(3) => {
            let (name, value) =
                (["app.tenant", "work_mem", "TimeZone"][random.below(3)], ["7MB", "UTC", "x'y"][random.below(3)]);
            let local = ["f", "t"][usize::from(random.one_in(3))];
            write!(shown, "PBE set_config {name} {value} {local} | S").unwrap();
            let values = [Some(name), Some(value), Some(local)];
            let bound = bind("", "", &values);
            bytes.extend(batch([parse("", "SELECT set_config($1, $2, $3)"), bound, execute("", 0), sync()]));
            readies += 1;
        }
        _ => {
            let name = ["n1", "n2"][random.below(2)];
            write!(shown, "BE {name} | S").unwrap();
            bytes.extend(batch([bind("", name, &[]), execute("", 0), sync()]));
            readies += 1;
        }
    }
    Step { bytes, readies, shown }
}

/// A client at the proxy, and the connection it would have had.
struct Twins {
    direct: Wire,
    proxied: Wire,
    /// What each has been told of the server's parameters.
    told: [BTreeMap<String, String>; 2],
    status: u8,
    /// The texts of its named statements, all that it ever had.
    named: String,
    /// It may have something that keeps its connection.
    holds: bool,
    /// A temporary table may hide another.
    hides: bool,
}

/// Replies but for what differs between any two connections: objects' numbers, positions and lines in sources. Reports
/// of parameters are kept apart: when they come is not promised.
fn shown(frames: &[Frame], told: &mut BTreeMap<String, String>) -> Vec<String> {
    let mut lines = Vec::new();
    for frame in frames {
        lines.push(match frame.kind {
            b'S' => {
                let mut fields =
                    frame.body.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
                told.insert(fields.next().unwrap(), fields.next().unwrap());
                continue;
            }
            b'E' | b'N' => {
                let field = |name| match frame.field(name).as_deref() {
                    // The temporary schema stays on a connection when its tables are gone.
                    Some("schema \"pg_temp\" does not exist") => "table \"t\" does not exist".to_owned(),
                    Some("3F000") => "42P01".to_owned(),
                    // In a statement that is no longer valid the place is one of the text that made it, here or there.
                    _ if name == b'P' && matches!(frame.field(b'C').as_deref(), Some("42P01" | "42703")) => {
                        String::new()
                    }
                    other => other.unwrap_or_default().to_owned(),
                };
                format!("{} {} {} {} {}", char::from(frame.kind), field(b'C'), field(b'M'), field(b'D'), field(b'P'))
            }
            b'T' => format!("T {}", columns(&frame.body).join(", ")),
            _ => frame.to_string(),
        });
    }
    lines
}

/// The lines that only one of them has.
fn difference(direct: &[String], proxied: &[String]) -> String {
    let without = |lines: &[String], others: &[String]| {
        lines.iter().filter(|line| !others.contains(line)).cloned().collect::<Vec<_>>()
    };
    let all = if direct.len() < 8 || without(direct, proxied).is_empty() && without(proxied, direct).is_empty() {
        format!("all: {direct:#?}\nproxied: {proxied:#?}\n")
    } else {
        String::new()
    };
    format!("{all}direct: {:#?}\nproxied: {:#?}", without(direct, proxied), without(proxied, direct))
}

/// Names, types and formats of a RowDescription.
fn columns(body: &[u8]) -> Vec<String> {
    let (mut rest, mut columns) = (&body[2..], Vec::new());
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).unwrap();
        let (name, behind) = rest.split_at(end);
        columns.push(format!("{} {:?}", String::from_utf8_lossy(name), &behind[7..19]));
        rest = &behind[19..];
    }
    columns
}

impl Twins {
    fn new(addresses: [std::net::SocketAddr; 2], databases: [&str; 2], baseline: &[(&str, &str)]) -> Self {
        let connect = |which: usize| {
            let mut login = Login::app().database(databases[which]);
            for (name, value) in baseline {
                login = login.with(name, value);
            }
            let wire = Wire::connect(addresses[which], &login).unwrap();
            let mut told = BTreeMap::new();
            shown(wire.login(), &mut told);
            (wire, told)
        };
        let ((direct, first), (proxied, second)) = (connect(0), connect(1));
        Self { direct, proxied, told: [first, second], status: b'I', named: String::new(), holds: false, hides: false }
    }

    /// Both do it and read the same.
    fn does(&mut self, step: &Step) -> Result<(), String> {
        self.direct.send(&step.bytes);
        self.proxied.send(&step.bytes);
        let direct = self.direct.until_ready(step.readies);
        let proxied = self.proxied.until_ready(step.readies);
        self.status = direct.iter().rev().find(|frame| frame.kind == b'Z').map_or(b'?', |frame| frame.body[0]);
        let [first, second] = &mut self.told;
        let (mut direct, mut proxied) = (shown(&direct, first), shown(&proxied, second));
        // A statement may be found to be no longer valid when it is made anew.
        if direct.iter().any(|line| line.starts_with("E 42P01")) {
            for lines in [&mut direct, &mut proxied] {
                lines.retain(|line| !["1 ", "2 ", "t "].iter().any(|kind| line.starts_with(kind)));
            }
        }
        if direct != proxied {
            // So it may where a temporary table hides another, which no statement notices that was there before.
            let hides = self.hides && ["EXECUTE", "BE n", "D n"].iter().any(|word| step.shown.contains(word));
            // The proxy may have prepared the statement anew, where the one that the client had is no longer good.
            if hides || direct.iter().any(|line| line.contains("cached plan must not change result type")) {
                return self.lets_go();
            }
            return Err(difference(&direct, &proxied));
        }
        let keeps = ["TEMP", "temp", "lock", "CURSOR", "LISTEN", "pg_settings"];
        if step.shown.contains("P n") {
            self.named.push_str(&step.shown);
        }
        let named = if step.shown.starts_with("BE") { self.named.as_str() } else { "" };
        // What can't be read behind what changes how it is read is believed to do anything.
        // Behind code what is executed may be anything, also if it is not there, or not reached.
        let is_code = ["DO ", "CALL "].iter().any(|word| step.shown.contains(word));
        self.holds |= is_code && step.shown.contains("EXECUTE");
        self.hides |= step.shown.contains("TEMP TABLE t ");
        self.holds |= step.shown.matches("| ").count() > 1 && step.shown.contains('\\');
        self.holds |= keeps.iter().any(|word| step.shown.contains(word) || named.contains(word));
        Ok(())
    }

    /// Is everything that can be seen of the session the same?
    fn is_same(&mut self) -> Result<(), String> {
        if self.status == b'E' {
            return Ok(());
        }
        self.does(&Step { bytes: query(STATE), readies: 1, shown: "the state".into() })?;
        let [first, second] = &self.told;
        for name in ["DateStyle", "TimeZone", "IntervalStyle", "application_name", "client_encoding"] {
            if first.get(name) != second.get(name) {
                return Err(format!("{name}: told {:?}, directly {:?}", second.get(name), first.get(name)));
            }
        }
        Ok(())
    }

    /// It lets go of all that it may hold.
    fn lets_go(&mut self) -> Result<(), String> {
        self.does(&Step { bytes: query("ROLLBACK"), readies: 1, shown: String::new() })?;
        self.does(&Step { bytes: query("DISCARD ALL"), readies: 1, shown: String::new() })?;
        self.holds = false;
        self.hides = false;
        Ok(())
    }
}

/// Behind a client that has left: as many locks of sessions are held directly as through the proxy.
fn until_locks_are_the_same(server: &PostgresServer, databases: &[String; 2]) {
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let waits = Instant::now();
    while databases.iter().map(|name| server.run_sql(name, held).unwrap()).collect::<BTreeSet<_>>().len() > 1 {
        assert!(waits.elapsed() < Duration::from_secs(20), "locks are not released");
        std::thread::yield_now();
    }
}

#[test]
fn random_sessions_are_what_direct_ones_are() {
    let (seed, steps) = (random::seed(), random::steps(STEPS));
    for server in servers() {
        let version = server.installation().version();
        let role = "DO $$ BEGIN CREATE ROLE model_role; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
                    GRANT model_role TO app";
        server.run_sql("postgres", role).unwrap();
        let names = ["direct", "proxied"].map(|which| database(server, &format!("model_{which}_{version}"), SETUP));
        let proxy = start(&config(server.address(), u32::try_from(CONNECTIONS + 2).unwrap()));
        let baselines: [&[(&str, &str)]; CLIENTS] = [
            &[],
            &[],
            &[("search_path", "a"), ("application_name", "two")],
            &[("options", "-c work_mem=5MB -c app.tenant=mine"), ("TimeZone", "Europe/Berlin")],
            &[("application_name", "two"), ("DateStyle", "SQL, DMY")],
        ];
        let twins =
            |baseline| Twins::new([server.address(), proxy.address], [names[0].as_str(), names[1].as_str()], baseline);
        let mut clients: Vec<Twins> = baselines.into_iter().map(twins).collect();
        let mut random = Random(seed);
        let mut history: Vec<String> = Vec::new();
        for number in 0..steps {
            let which = random.below(CLIENTS);
            let holders = clients.iter().filter(|client| client.holds || client.status != b'I').count();
            // Somebody must have a connection to work with.
            let is_holder = clients[which].holds || clients[which].status != b'I';
            let crowded = holders >= CONNECTIONS && !is_holder;
            let which = if crowded {
                clients.iter().position(|client| client.holds || client.status != b'I').unwrap()
            } else {
                which
            };
            let client = &mut clients[which];
            let mut step = step(&mut random);
            // In a failed transaction a named statement must be on this very connection.
            let is_named = ["D n", "P n", "BE n", "C P n"].iter().any(|named| step.shown.starts_with(named));
            // What has been reset in a text is the server's own value for the rest of that text, and what `DISCARD ALL` takes
            // comes back with the next segment.
            let is_reset = ["RESET", "DEFAULT", "LOCAL", "DISCARD"].iter().any(|word| step.shown.contains(word));
            // So must one that is executed behind the end of that transaction, in one text with it.
            let is_behind = step.shown.contains("; ") && step.shown.contains("EXECUTE");
            // What executes another statement is described, and shows rows, as that one does now, not as it was parsed.
            let uses_named = step.shown.starts_with("D n") || step.shown.contains("EXECUTE n");
            let is_stale = uses_named && client.named.contains("EXECUTE");
            if is_stale
                || ((is_named || is_behind) && client.status == b'E')
                || (step.shown.contains("; ") && is_reset)
                || step.shown.contains("DISCARD ALL | PBE")
            {
                step = Step { bytes: query(""), readies: 1, shown: "Q ".into() };
            }
            let outcome = if crowded || random.one_in(40) {
                history.push(format!("{which}: lets go"));
                client.lets_go()
            } else {
                history.push(format!("{which}: {}", step.shown));
                client.does(&step)
            };
            if let Some(last) = history.last_mut() {
                last.push_str(&format!(" {}", char::from(client.status)));
            }
            let outcome = outcome.and_then(|()| if random.one_in(3) { client.is_same() } else { Ok(()) });
            if let Err(difference) = outcome {
                let last =
                    history.len().saturating_sub(usize::try_from(number_of("SLUICEGATE_MODEL_HISTORY", 60)).unwrap());
                println!("pinned: {:?}", proxy.metric_by("sluicegate_clients_pinned", "reason"));
                let holds = |client: &Twins| (client.holds, char::from(client.status));
                println!("{:?}", clients.iter().map(holds).collect::<Vec<_>>());
                panic!(
                    "seed {seed}, step {number}, PostgreSQL {version}\n{}\n{difference}",
                    history[last..].join("\n")
                );
            }
            if random.one_in(200) {
                // Some leave in whatever state, and come again.
                history.push(format!("{which}: comes anew"));
                clients[which] = twins(baselines[which]);
                // What the one who left had locked is free soon, here and there, and not before the other.
                until_locks_are_the_same(server, &names);
            }
        }
        println!(
            "PostgreSQL {version}: {steps} steps, {} disagreements",
            proxy.metric("sluicegate_disagreements_total")
        );
    }
    let _ = message;
}
