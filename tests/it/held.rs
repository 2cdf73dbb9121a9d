//! What keeps a client on its connection, from when and until when: locks, cursors, temporary tables, state of the server's
//! process. The pins are seen in the metrics, and others work on undisturbed.

use sluicegate::demo::servers::{APP, APP_PASSWORD, PostgresServer, SUPERUSER, SUPERUSER_PASSWORD};

use crate::harness::measure::{Metrics, eventually};
use crate::harness::proxy::{ProxyHandle, config, start};
use crate::harness::wire::{
    Frame, Login, Script, Wire, batch, bind, close_portal, describe_statement, execute, kinds, parse, query, sync,
    terminate,
};
use crate::harness::{Scenario, database, each, servers};

/// One for clients, two of the proxy's own.
const ONE: u32 = 3;
/// Two for clients: one may be pinned.
const TWO: u32 = 4;

fn client(proxy: &ProxyHandle, database: &str) -> Wire {
    Wire::connect(proxy.address, &Login::app().database(database)).unwrap()
}

/// The unnamed statement, used once, in a segment of its own.
fn extended(sql: &str) -> Vec<u8> {
    batch([parse("", sql), bind("", "", &[]), execute("", 0), sync()])
}

/// A client that may be held on its connection, and one that works on.
struct Pair<'a> {
    proxy: &'a ProxyHandle,
    /// Looks at the database from outside.
    superuser: Wire,
    one: Wire,
    other: Wire,
    reason: &'static str,
    /// Counts what holds the client, if that can be seen from outside.
    presence: Option<&'static str>,
    is_held: bool,
    /// How often that has begun.
    begun: f64,
}

impl<'a> Pair<'a> {
    fn new(
        (server, database, proxy): (&PostgresServer, &str, &'a ProxyHandle),
        reason: &'static str,
        presence: Option<&'static str>,
    ) -> Self {
        let superuser = Wire::connect(server.address(), &Login::superuser().database(database)).unwrap();
        let [one, other] = [(); 2].map(|()| client(proxy, database));
        Self { proxy, superuser, one, other, reason, presence, is_held: false, begun: 0.0 }
    }

    /// It does this, in either protocol, and is held then or not. `None`: that does not matter yet.
    fn does(&mut self, steps: &[(&str, Option<bool>)]) {
        for bytes in [query, extended] {
            for (sql, is_held) in steps {
                let frames = self.one.ask(&bytes(sql), 1);
                assert!(frames.iter().all(|frame| frame.kind != b'E'), "{sql}: {frames:#?}");
                if let Some(is_held) = is_held {
                    self.is(*is_held, sql);
                }
            }
            assert!(!self.is_held, "the steps end free");
        }
    }

    /// Held or not, and the other one does not notice.
    fn is(&mut self, is_held: bool, behind: &str) {
        // What a statement leaves is settled by the time the next one is answered.
        let pid = self.one.value("SELECT pg_backend_pid()");
        if self.is_held && is_held {
            assert_eq!(self.one.value("SELECT pg_backend_pid()"), pid, "{behind}");
        }
        self.begun += f64::from(u8::from(is_held && !self.is_held));
        self.is_held = is_held;
        let level = f64::from(u8::from(is_held));
        let reason = |metric: &str| format!("{metric} reason=\"{}\"", self.reason);
        let expected = [
            (reason("clients_pinned"), level),
            (reason("pins_total"), self.begun),
            // For no other reason.
            ("clients_pinned".to_owned(), level),
            ("pins_total".to_owned(), self.begun),
            ("database_connections_currently_session_pinned".to_owned(), level),
            ("disagreements_total".to_owned(), 0.0),
        ];
        let expected: Vec<(&str, f64)> = expected.iter().map(|(what, value)| (what.as_str(), *value)).collect();
        println!("{behind}");
        eventually(self.proxy, &expected);
        if let Some(presence) = self.presence {
            assert_eq!(self.superuser.value(presence) != "0", is_held, "{behind}");
        }
        for _ in 0..2 {
            assert_eq!(self.other.value("SELECT 'undisturbed'"), "undisturbed", "{behind}");
        }
    }
}

const HELD: Option<bool> = Some(true);
const FREE: Option<bool> = Some(false);
const OPEN: Option<bool> = None;

// ---------------------------------------------------------------- locks

const LOCKS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid() \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

#[test]
fn pg_080_locks_of_a_session_hold_it_until_the_last_is_gone() {
    each("pg_080_locks", TWO, &[], |server, database, proxy| {
        let mut pair = Pair::new((server, database, proxy), "session_lock", Some(LOCKS));
        pair.does(&[
            // As often as it was taken.
            ("SELECT pg_advisory_lock(1)", HELD),
            ("SELECT pg_advisory_lock(1)", HELD),
            ("SELECT pg_advisory_unlock(1)", HELD),
            ("SELECT pg_advisory_unlock(1)", FREE),
            // Two keys are not one; a shared one is another.
            ("SELECT pg_advisory_lock(1, 2)", HELD),
            ("SELECT pg_advisory_unlock(1)", HELD),
            ("SELECT pg_advisory_lock_shared(3)", HELD),
            ("SELECT pg_advisory_unlock(1, 2)", HELD),
            ("SELECT pg_advisory_unlock(3)", HELD),
            ("SELECT pg_advisory_unlock_shared(3)", FREE),
            ("SELECT pg_advisory_lock_shared(4, 5)", HELD),
            ("SELECT pg_try_advisory_lock(6), pg_try_advisory_lock_shared(7, 8)", HELD),
            ("SELECT pg_advisory_unlock_all()", FREE),
            ("SELECT pg_try_advisory_lock(9)", HELD),
            ("DISCARD ALL", FREE),
            // Neither taking nor giving back is undone by a rollback.
            ("BEGIN", OPEN),
            ("SELECT pg_advisory_lock(10)", OPEN),
            ("ROLLBACK", HELD),
            ("BEGIN", OPEN),
            ("SELECT pg_advisory_unlock(10)", OPEN),
            ("ROLLBACK", FREE),
            // Those of a transaction end with it.
            ("SELECT pg_advisory_xact_lock(11)", FREE),
            ("BEGIN", OPEN),
            ("SELECT pg_try_advisory_xact_lock(12)", OPEN),
            ("COMMIT", FREE),
            // Where the text does not say it.
            ("DO $$ BEGIN EXECUTE replace('SELECT pg_advisory-_lock(13)', '-', ''); END $$", HELD),
            ("DO $$ BEGIN EXECUTE replace('SELECT pg_advisory-_unlock(13)', '-', ''); END $$", FREE),
        ]);
        // It was not to be had.
        pair.superuser.query("SELECT pg_advisory_lock(14)");
        for bytes in [query, extended] {
            for ask in ["SELECT pg_try_advisory_lock(14)", "SELECT pg_try_advisory_lock_shared(14)"] {
                let frames = pair.one.ask(&bytes(ask), 1);
                let row = frames.iter().find(|frame| frame.kind == b'D').unwrap();
                assert_eq!(row.columns()[0].as_deref(), Some(&b"f"[..]));
                pair.is(false, ask);
            }
        }
        pair.superuser.query("SELECT pg_advisory_unlock(14)");
        // The statement that has taken it has failed.
        for bytes in [query, extended] {
            let frames = pair.one.ask(&bytes("SELECT pg_advisory_lock(15), 1 / (SELECT 0)"), 1);
            assert!(kinds(&frames).ends_with("EZ"), "{frames:#?}");
            pair.is(true, "a failed statement");
            pair.one.query("SELECT pg_advisory_unlock(15)");
            pair.is(false, "unlocked");
        }
    });
}

/// However it goes, its locks are gone before anybody has its connection, and it is the same connection; what others have prepared
/// is theirs still.
#[test]
fn pg_081_who_leaves_leaves_no_lock() {
    each("pg_081_locks", ONE, &[], |server, database, proxy| {
        let mut other = client(proxy, database);
        let used = batch([describe_statement("s1"), bind("", "s1", &[]), execute("", 0), sync()]);
        assert_eq!(kinds(&other.ask(&batch([parse("s1", "SELECT 'prepared'"), sync()]), 1)), "1Z");
        let mut pid = other.value("SELECT pg_backend_pid()");
        let half = query("SELECT 1")[..7].to_vec();
        let goings = [
            terminate(),
            Vec::new(),
            batch([query("BEGIN; SELECT pg_advisory_lock(2)")]),
            batch([query("BEGIN; SELECT 1/0")]),
            query("SELECT pg_sleep(0.05), pg_advisory_lock(2)"),
            batch([parse("s1", "SELECT pg_advisory_lock_shared(2)"), bind("", "s1", &[]), execute("", 0), sync()]),
            half,
        ];
        for (number, going) in goings.iter().enumerate() {
            let mut one = client(proxy, database);
            one.query("SELECT pg_advisory_lock(1)");
            // In the same session it could be had once more.
            other.send(&query(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            ));
            eventually(proxy, &[("clients_waiting", 1.0), ("clients_pinned", 1.0)]);
            one.send(going);
            drop(one);
            let frames = other.until_ready(1);
            assert_eq!(frames[1].columns()[0].as_deref(), Some(&b"0"[..]), "way {number}");
            assert_eq!(kinds(&other.ask(&used, 1)), "tT2DCZ", "way {number}");
            let now = other.value("SELECT pg_backend_pid()");
            // One in a transaction is closed instead.
            assert!(now == pid || number == 2 || number == 3, "way {number}");
            pid = now;
            assert_eq!(server.run_sql(database, LOCKS).unwrap(), "0", "way {number}");
        }
        eventually(proxy, &[("clients_pinned", 0.0)]);
    });
}

// ---------------------------------------------------------------- cursors

#[test]
fn pg_082_held_cursors_hold_until_they_are_closed() {
    each("pg_082_cursors", TWO, &[], |server, database, proxy| {
        let mut pair = Pair::new((server, database, proxy), "held_cursor", None);
        let declare = "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 5)";
        pair.does(&[
            (declare, HELD),
            ("FETCH 2 FROM c", HELD),
            ("CLOSE c", FREE),
            // From the commit on.
            ("BEGIN", OPEN),
            (declare, OPEN),
            ("COMMIT", HELD),
            ("DECLARE d SCROLL CURSOR WITH HOLD FOR SELECT 1", HELD),
            ("CLOSE c", HELD),
            ("CLOSE ALL", FREE),
            (declare, HELD),
            ("DISCARD ALL", FREE),
            ("BEGIN", OPEN),
            (declare, OPEN),
            ("ROLLBACK", FREE),
            ("BEGIN", OPEN),
            ("SAVEPOINT s", OPEN),
            (declare, OPEN),
            ("ROLLBACK TO s", OPEN),
            ("COMMIT", FREE),
            // No rollback opens it again.
            (declare, HELD),
            ("BEGIN", OPEN),
            ("CLOSE c", OPEN),
            ("ROLLBACK", FREE),
            // One without ends with its transaction.
            ("BEGIN", OPEN),
            ("DECLARE c CURSOR FOR SELECT 1", OPEN),
            ("DECLARE d CURSOR WITHOUT HOLD FOR SELECT 1 AS hold", OPEN),
            ("COMMIT", FREE),
            // Where the text does not say it.
            ("DO $$ BEGIN EXECUTE replace('DECLARE c CURSOR WITH -HOLD FOR SELECT 1', '-', ''); END $$", HELD),
            ("CLOSE c", FREE),
        ]);
    });
}

/// What it reads, while others use the other connection.
#[test]
fn pg_082_a_held_cursor_goes_on_where_it_was() {
    let declare = "DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT n, 'row ' || n FROM generate_series(1, 9) n";
    let others = |script: Script| script.client(1).run("BEGIN; SELECT 1").run("COMMIT").client(0);
    let mut script = Script::new();
    for begins in [vec![query("BEGIN"), query(declare), query("COMMIT")], vec![extended(declare)]] {
        let readies = begins.len();
        script = others(script.send(begins.concat()).ready(readies));
        for fetch in ["FETCH 2 FROM c", "MOVE 1 FROM c", "FETCH BACKWARD 1 FROM c", "FETCH ALL FROM c"] {
            script = others(script.run(fetch)).send(extended("FETCH PRIOR FROM c")).ready(1);
        }
        // An error elsewhere is none of its business.
        script = others(script.run("SELECT 1/0")).run("BEGIN; FETCH FIRST FROM c; ROLLBACK").run("FETCH NEXT FROM c");
        script = others(script.run("CLOSE c")).run("FETCH NEXT FROM c");
        // A portal is one, too.
        let portal = batch([bind("", "fetches", &[]), execute("", 0), sync()]);
        script = script.run(declare).send(batch([parse("fetches", "FETCH 3 FROM c"), sync()])).ready(1);
        script = others(script.send(portal.clone()).ready(1)).send(portal).ready(1);
        script =
            script.send(batch([close_portal("c"), sync()])).ready(1).run("FETCH NEXT FROM c").run("DEALLOCATE ALL");
    }
    Scenario::new("pg_082_a_held_cursor_goes_on").errors(&["22012", "34000", "34000"].repeat(2)).check(script);
}

// ---------------------------------------------------------------- temporary objects

/// What lies in somebody's temporary schema.
const TEMPORARY: &str = "SELECT count(*) FROM pg_depend JOIN pg_namespace n ON refobjid = n.oid \
     WHERE refclassid = 'pg_namespace'::regclass AND nspname ~ '^pg_temp_'";

#[test]
fn pg_083_temporary_objects_hold_until_the_last_is_gone() {
    each("pg_083_temporary", TWO, &[], |server, database, proxy| {
        let mut pair = Pair::new((server, database, proxy), "temporary_object", Some(TEMPORARY));
        pair.does(&[
            ("CREATE TEMP TABLE mine AS SELECT 42 AS a", HELD),
            ("SELECT a FROM mine", HELD),
            ("DROP TABLE mine", FREE),
            ("CREATE TEMPORARY TABLE mine (a int PRIMARY KEY)", HELD),
            ("DISCARD TEMP", FREE),
            ("SELECT 1 AS a INTO TEMP mine", HELD),
            ("CREATE TEMP VIEW seen AS SELECT 1 AS a", HELD),
            ("CREATE TEMP SEQUENCE numbers", HELD),
            ("DROP TABLE mine", HELD),
            ("DROP VIEW seen", HELD),
            ("DROP SEQUENCE numbers", FREE),
            ("CREATE FUNCTION pg_temp.one() RETURNS int LANGUAGE sql AS 'SELECT 1'", HELD),
            ("DROP FUNCTION pg_temp.one", FREE),
            ("CREATE TYPE pg_temp.pair AS (a int, b int)", HELD),
            ("DISCARD ALL", FREE),
            // As the transaction ends.
            ("BEGIN", OPEN),
            ("CREATE TEMP TABLE brief (a int) ON COMMIT DROP", OPEN),
            ("INSERT INTO brief VALUES (1)", OPEN),
            ("COMMIT", FREE),
            ("BEGIN", OPEN),
            ("CREATE TEMP TABLE mine (a int)", OPEN),
            ("ROLLBACK", FREE),
            ("BEGIN", OPEN),
            ("SAVEPOINT s", OPEN),
            ("CREATE TEMP TABLE mine (a int)", OPEN),
            ("ROLLBACK TO s", OPEN),
            ("COMMIT", FREE),
            ("BEGIN", OPEN),
            ("CREATE TEMP TABLE mine (a int) ON COMMIT DELETE ROWS", OPEN),
            ("COMMIT", HELD),
            ("BEGIN", OPEN),
            ("DROP TABLE mine", OPEN),
            ("ROLLBACK", HELD),
            ("ALTER TABLE mine RENAME TO other", HELD),
            ("DROP TABLE IF EXISTS mine", HELD),
            ("DROP TABLE other", FREE),
            // Where the text does not say it.
            ("DO $$ BEGIN EXECUTE replace('CREATE TE-MP TABLE mine (a int)', '-', ''); END $$", HELD),
            ("DO $$ BEGIN EXECUTE 'DROP TABLE mine'; END $$", FREE),
        ]);
        // As long as any table is one.
        pair.presence = None;
        for set in
            ["SET search_path = pg_temp, public", "SELECT set_config('search_path', '\"$user\", PG_TEMP', false)"]
        {
            pair.does(&[
                (set, HELD),
                ("CREATE TABLE mine AS SELECT 42 AS a", HELD),
                ("SET work_mem = '7MB'", HELD),
                ("SELECT a FROM mine", HELD),
                ("DROP TABLE mine", HELD),
                ("RESET search_path", FREE),
                ("BEGIN", OPEN),
                (set, OPEN),
                ("CREATE TABLE mine (a int)", OPEN),
                ("SET search_path = public", OPEN),
                ("COMMIT", HELD),
                ("DISCARD ALL", FREE),
            ]);
        }
    });
    // From the start.
    each("pg_083_startup", TWO, &[], |_, database, proxy| {
        let login = Login::app().database(database).with("search_path", "pg_temp, public");
        let mut one = Wire::connect(proxy.address, &login).unwrap();
        let mut other = client(proxy, database);
        one.query("CREATE TABLE mine AS SELECT 42 AS a");
        for _ in 0..3 {
            assert_eq!(other.query("SELECT to_regclass('mine')"), [[None]]);
            assert_eq!(one.value("SELECT a FROM mine"), "42");
        }
    });
}

/// What others have prepared is of the table that this one hides, however it was made.
#[test]
fn pg_083_a_table_that_hides_another_is_its_clients_own() {
    let made = [
        "CREATE TEMP TABLE t AS SELECT 'mine' AS v",
        "DO $$ BEGIN EXECUTE 'CREATE TE' || 'MP TABLE t AS SELECT ''mine'' AS v'; END $$",
        "BEGIN; SET search_path = 'pg_temp'; CREATE TABLE t AS SELECT 'mine' AS v; SET search_path = public; COMMIT",
        "BEGIN; SET LOCAL search_path = 'pg_temp'; CREATE TABLE t AS SELECT 'mine' AS v; COMMIT",
    ];
    each("pg_083_hides", ONE, &["CREATE TABLE t AS SELECT 'public' AS v"], |_, database, proxy| {
        let used = batch([bind("", "s1", &[]), execute("", 0), sync()]);
        let made_and_used = batch([parse("s1", "SELECT v FROM t"), used.clone()]);
        let value = |frames: &[Frame]| {
            let row = frames.iter().find(|frame| frame.kind == b'D').unwrap_or_else(|| panic!("{frames:#?}"));
            String::from_utf8_lossy(row.columns()[0].as_deref().unwrap()).into_owned()
        };
        for sql in made {
            let [mut one, mut other] = [(); 2].map(|()| client(proxy, database));
            assert_eq!(value(&other.ask(&made_and_used, 1)), "public");
            one.query(sql);
            assert_eq!(value(&one.ask(&made_and_used, 1)), "mine", "{sql}");
            drop(one);
            assert_eq!(value(&other.ask(&used, 1)), "public", "{sql}");
            assert_eq!(value(&client(proxy, database).ask(&made_and_used, 1)), "public", "{sql}");
        }
    });
}

// ---------------------------------------------------------------- the server's process

/// What lives in the process itself has no end but its own: nobody else gets it, not behind a reset either.
#[test]
fn pg_085_what_lives_in_the_servers_process_holds_for_good() {
    for server in servers() {
        let version = server.installation().version();
        let database = database::<&str>(server, &format!("pg_085_process_{version}"), &[]);
        server.run_sql(&database, "CREATE EXTENSION dblink").unwrap();
        let text = config(server.address(), TWO);
        let user = format!("[[user]]\nname = {SUPERUSER:?}\nauth = [\"scram-sha-256\"]\n");
        let proxy = start(&format!("{text}\n{user}password = {{ value = {SUPERUSER_PASSWORD:?} }}\n"));
        let address = server.address();
        let dblink = format!(
            "SELECT dblink_connect('named', 'host={} port={} dbname={database} user={APP} password={APP_PASSWORD}')",
            address.ip(),
            address.port()
        );
        let holding = ["SELECT setseed(0.5)", "LOAD 'auto_explain'", &dblink];
        for (number, sql) in holding.into_iter().enumerate() {
            let login = if number == 1 { Login::superuser() } else { Login::app() }.database(&database);
            for (bytes, end) in [(query(sql), "SELECT 1"), (extended(sql), "DISCARD ALL")] {
                let [mut one, mut other] = [(); 2].map(|()| Wire::connect(proxy.address, &login).unwrap());
                let pid = one.value("SELECT pg_backend_pid()");
                let begun = Metrics::read(&proxy).get("pins_total");
                assert!(kinds(&one.ask(&bytes, 1)).ends_with("CZ"), "{sql}");
                let held = [("clients_pinned reason=\"server_process\"", 1.0), ("pins_total", begun + 1.0)];
                one.query("BEGIN; SAVEPOINT s; ROLLBACK");
                one.query(end);
                eventually(&proxy, &held);
                for _ in 0..2 {
                    assert_eq!(one.value("SELECT pg_backend_pid()"), pid, "{sql}, {end}");
                    assert_ne!(other.value("SELECT pg_backend_pid()"), pid, "{sql}, {end}");
                }
                eventually(&proxy, &held);
                // Whoever comes now gets the connection that is free, or another.
                other.query("BEGIN");
                drop(one);
                let mut next = Wire::connect(proxy.address, &login).unwrap();
                assert_ne!(next.value("SELECT pg_backend_pid()"), pid, "{sql}, {end}");
                other.query("COMMIT");
                let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
                other.until(&gone, "0");
                eventually(&proxy, &[("clients_pinned", 0.0)]);
            }
        }
        // These leave nothing.
        let mut one = client(&proxy, &database);
        let begun = Metrics::read(&proxy).get("pins_total");
        for sql in ["SELECT pg_logical_emit_message(false, 'a', 'b')", "SELECT random()", "NOTIFY here"] {
            one.query(sql);
        }
        eventually(&proxy, &[("clients_pinned", 0.0), ("pins_total", begun)]);
    }
}
