//! Transactions and what status flags say of them: scenarios 93 to 102. A transaction that ends in whatever way leaves its
//! connection to others, and one that is open keeps it.

use std::time::Instant;

use crate::harness::measure::eventually;
use crate::harness::mysql::Flavour;
use crate::harness::mysql::beside::{Sides, Talk, app, both_sides, each};
use crate::harness::mysql::wire::{COM_PING, COM_STMT_EXECUTE, COM_STMT_PREPARE, MyWire, capability};
use crate::harness::wire::PATIENCE;

const TABLE: &[&str] = &["CREATE TABLE t (i int PRIMARY KEY)"];

/// The script with a ping behind each statement, for the flags of its answer.
fn pinged(talk: &mut Talk, script: &[&str]) {
    for sql in script {
        talk.same(sql);
        let flags = [&mut talk.direct, &mut talk.proxied].map(|wire| {
            let ok = wire.command(&[COM_PING]).remove(0);
            let [0, 0, 0, low, high, ..] = ok.payload[..] else { panic!("{ok:?}") };
            // Not whether trackers follow, nor how many warnings the statement before had: behind an error the proxy has
            // asked that already, to learn whether the transaction is still open.
            (low, high & !0x40)
        });
        assert_eq!(flags[1], flags[0], "a ping behind {sql}");
    }
}

/// The same script for clients that are told of their transaction's state, and for those that are not.
fn in_both_forms(sides: &Sides<'_>, script: &[&str]) {
    let mut talk = sides.talk_as(|login| login.with(capability::SESSION_TRACK));
    // What another client has left goes with the DELETE, and not within a transaction, which would tell of it.
    talk.all(&["SET session_track_transaction_info = 'STATE'", "DELETE FROM t"]);
    pinged(&mut talk, script);
    drop(talk);
    let mut plain = sides.talk();
    plain.same("DELETE FROM t");
    pinged(&mut plain, script);
}

/// What a client is told is its own state, never what another one has left.
#[test]
fn my_093_status_flags_are_ones_own() {
    both_sides("my_093", 3, TABLE, |sides| {
        // Nothing has changed yet, also for who would be told.
        sides.talk_as(|login| login.with(capability::SESSION_TRACK)).command(&[COM_PING]);
        let fresh = |sides: &Sides<'_>| {
            let mut talk = sides.talk();
            let [direct, proxied] =
                [&talk.direct, &talk.proxied].map(|wire| wire.login().last().unwrap().payload.clone());
            assert_eq!(proxied, direct);
            talk.command(&[COM_PING]);
            pinged(&mut talk, &["SELECT 1"]);
        };
        for left in [
            &["SET autocommit = 0"][..],
            &["SET autocommit = 0", "SELECT * FROM t"],
            &["SET sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'"],
            &["BEGIN"],
            &["START TRANSACTION READ ONLY", "SELECT * FROM t"],
            // Of one statement alone: no index, and a ping says no more of that.
            &["SELECT * FROM t WHERE i + 0 > 5"],
            &["CREATE TEMPORARY TABLE x (a int)", "DROP DATABASE IF EXISTS my_093_nowhere"],
        ] {
            let mut talk = sides.talk();
            pinged(&mut talk, left);
            drop(talk);
            fresh(sides);
        }
    });
}

/// Without autocommit the first table that is touched begins a transaction, and nothing else does.
#[test]
fn my_094_without_autocommit() {
    both_sides("my_094", 3, TABLE, |sides| {
        in_both_forms(
            sides,
            &[
                "SET autocommit = 0",
                "SELECT 1",
                "SELECT @@autocommit",
                "SELECT * FROM t",
                "COMMIT",
                "SELECT 1",
                "INSERT INTO t VALUES (1)",
                "INSERT INTO t VALUES (1)",
                "SELECT * FROM nowhere",
                "ROLLBACK",
                "SELECT COUNT(*) FROM t",
                "ROLLBACK",
                "BEGIN",
                "COMMIT",
                "SET autocommit = 1",
                "SELECT 1",
            ],
        );
    });
}

/// Who sets autocommit has what is open committed.
#[test]
fn my_095_setting_autocommit() {
    both_sides("my_095", 4, TABLE, |sides| {
        in_both_forms(
            sides,
            &[
                "SET autocommit = 0",
                "INSERT INTO t VALUES (1)",
                "SET autocommit = 1",
                "ROLLBACK",
                "SELECT COUNT(*) FROM t",
                "BEGIN",
                "INSERT INTO t VALUES (2)",
                "SET autocommit = 1",
                "SET autocommit = 0",
                "ROLLBACK",
                "SELECT COUNT(*) FROM t",
                "COMMIT",
                "SET @@SESSION.autocommit = ON, @a = 1",
                "SELECT @a",
            ],
        );
        let mut talk = sides.talk();
        let mut other = sides.talk();
        talk.all(&["SET autocommit = 0", "INSERT INTO t VALUES (3)"]);
        other.same("SELECT COUNT(*) FROM t WHERE i = 3");
        talk.same("SET autocommit = 1");
        other.same("SELECT COUNT(*) FROM t WHERE i = 3");
    });
}

/// What commits without being asked, also where it fails.
#[test]
fn my_096_implicit_commits() {
    let setup = ["CREATE TABLE t (i int PRIMARY KEY)", "CREATE TABLE u (i int)", "CREATE TABLE gone (i int)"];
    both_sides("my_096", 3, &setup, |sides| {
        for commits in [
            "BEGIN",
            "START TRANSACTION READ ONLY",
            "SET autocommit = 1",
            "CREATE TABLE v (i int)",
            "CREATE TABLE v (i int)",
            "ALTER TABLE v ADD COLUMN j int",
            "CREATE INDEX k ON v (j)",
            "RENAME TABLE v TO w",
            "TRUNCATE TABLE w",
            "DROP TABLE w",
            "DROP TABLE w",
            "CREATE VIEW x AS SELECT 1 AS a",
            "DROP VIEW x",
            "ANALYZE TABLE u",
            "LOCK TABLES u READ",
            "CREATE TEMPORARY TABLE tt (i int)",
            "DROP TEMPORARY TABLE tt",
            "FLUSH TABLES",
            "FLUSH TABLES u",
            "SET PASSWORD FOR 'nobody'@'%' = 'x'",
            "CREATE PROCEDURE p() SELECT 1",
            "CALL p()",
            "DROP PROCEDURE p",
            "CREATE TABLE nowhere.t (i int)",
        ] {
            let mut talk = sides.talk();
            pinged(&mut talk, &["DELETE FROM t", "BEGIN", "INSERT INTO t VALUES (1)", commits]);
            pinged(&mut talk, &["ROLLBACK", "UNLOCK TABLES", "SELECT COUNT(*) FROM t"]);
        }
    });
}

/// Names within a transaction, which end with it.
#[test]
fn my_097_savepoints() {
    both_sides("my_097", 3, TABLE, |sides| {
        in_both_forms(
            sides,
            &[
                "SAVEPOINT outside",
                "ROLLBACK TO outside",
                "BEGIN",
                "INSERT INTO t VALUES (1)",
                "SAVEPOINT a",
                "INSERT INTO t VALUES (2)",
                "SAVEPOINT b",
                "INSERT INTO t VALUES (1)",
                "ROLLBACK TO SAVEPOINT a",
                "SELECT COUNT(*) FROM t",
                "ROLLBACK TO b",
                "RELEASE SAVEPOINT a",
                "ROLLBACK TO a",
                "COMMIT",
                "ROLLBACK TO a",
                "SELECT COUNT(*) FROM t",
            ],
        );
    });
}

/// One transaction behind another; and a goodbye with the last one.
#[test]
fn my_098_chain_and_release() {
    both_sides("my_098", 3, TABLE, |sides| {
        in_both_forms(
            sides,
            &[
                "BEGIN",
                "INSERT INTO t VALUES (1)",
                "COMMIT AND CHAIN",
                "INSERT INTO t VALUES (2)",
                "ROLLBACK AND CHAIN NO RELEASE",
                "SELECT COUNT(*) FROM t",
                "COMMIT AND NO CHAIN",
                "START TRANSACTION READ ONLY",
                "COMMIT AND CHAIN",
                "INSERT INTO t VALUES (3)",
                "COMMIT",
                "SET completion_type = 1",
                "BEGIN",
                "COMMIT",
                "SELECT 1",
                "SET completion_type = 0",
                "COMMIT",
            ],
        );
        for (number, release) in
            ["COMMIT RELEASE", "ROLLBACK RELEASE", "COMMIT AND NO CHAIN RELEASE", "/* x */ commit work release;"]
                .iter()
                .enumerate()
        {
            for begins in [format!("INSERT INTO t VALUES ({})", 10 + number), "SELECT 1".to_owned()] {
                let mut talk = sides.talk();
                talk.all(&["BEGIN", &begins, release]);
                [talk.direct, talk.proxied].iter_mut().for_each(MyWire::until_closed);
                sides.talk().same("SELECT COUNT(*) FROM t");
            }
        }
        let mut talk = sides.talk();
        talk.all(&["SET completion_type = 2", "BEGIN", "INSERT INTO t VALUES (90)", "COMMIT"]);
        talk.direct.until_closed();
        // Behind a COMMIT that says nothing of it the proxy can't know: to it the connection of a pinned client is lost.
        assert!(matches!(talk.proxied.rest()[..], [] | [_, _, _, _, 0xFF, ..]));
        sides.talk().same("SELECT COUNT(*) FROM t");
        eventually(sides.proxy, &[("client_connections", 0.0)]);
    });
}

/// A transaction that may only read, and one that sees what was there as it began.
#[test]
fn my_099_read_only_and_snapshots() {
    both_sides("my_099", 4, TABLE, |sides| {
        in_both_forms(
            sides,
            &[
                "START TRANSACTION READ ONLY",
                "SELECT COUNT(*) FROM t",
                "INSERT INTO t VALUES (1)",
                "SELECT COUNT(*) FROM t",
                "CREATE TABLE x (i int)",
                "COMMIT",
                "INSERT INTO t VALUES (1)",
                "START TRANSACTION READ WRITE",
                "INSERT INTO t VALUES (2)",
                "ROLLBACK",
            ],
        );
        let mut talk = sides.talk();
        let mut other = sides.talk();
        talk.same("START TRANSACTION WITH CONSISTENT SNAPSHOT");
        other.same("INSERT INTO t VALUES (5)");
        talk.all(&["SELECT COUNT(*) FROM t", "COMMIT", "SELECT COUNT(*) FROM t"]);
    });
}

/// How the next transaction is to be: that one and no other, whoever asks in between.
#[test]
fn my_100_the_next_transaction_alone() {
    both_sides("my_100", 4, TABLE, |sides| {
        let (mut writer, mut talk, mut other) = (sides.talk(), sides.talk(), sides.talk());
        talk.same("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED");
        other.same("SELECT COUNT(*) FROM t");
        writer.all(&["BEGIN", "INSERT INTO t VALUES (1)"]);
        // It sees what is not committed; the next transaction does not, nor does anybody else.
        drop(other);
        talk.all(&["BEGIN", "SELECT COUNT(*) FROM t", "COMMIT", "BEGIN", "SELECT COUNT(*) FROM t", "COMMIT"]);
        // Behind a statement without a table it is still to come; behind one with a table it is over.
        talk.all(&["SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED", "SELECT 1"]);
        talk.all(&["SELECT COUNT(*) FROM t", "SELECT COUNT(*) FROM t"]);
        talk.all(&["SET TRANSACTION READ ONLY", "BEGIN", "INSERT INTO t VALUES (2)", "COMMIT"]);
        // Within one it is refused.
        talk.same("BEGIN");
        assert_eq!(talk.error("SET TRANSACTION READ ONLY").code, 1568);
        talk.all(&["SET SESSION TRANSACTION READ ONLY", "COMMIT"]);
        assert_eq!(talk.error("INSERT INTO t VALUES (3)").code, 1792);
        drop(talk);
        let mut next = sides.talk();
        next.all(&["SELECT COUNT(*) FROM t", "INSERT INTO t VALUES (4)"]);
        writer.same("ROLLBACK");
    });
}

/// MariaDB prepares statements of XA's: whoever says so, a transaction that has been prepared is not lost with its connection.
#[test]
fn my_101_xa_by_prepared_statements() {
    each("my_101p", 4, TABLE, |server, name, proxy| {
        if server.flavour() == Flavour::MySql {
            return;
        }
        let script = ["XA START 'my_101p'", "INSERT INTO t VALUES (1)", "XA END 'my_101p'", "XA PREPARE 'my_101p'"];
        for by_sql in [false, true] {
            let mut one = MyWire::connect(proxy.address, &app().database(name)).unwrap();
            for (number, sql) in (1..).zip(script) {
                one.query(&format!("PREPARE s{number} FROM \"{sql}\""));
                one.command(&[&[COM_STMT_PREPARE][..], sql.as_bytes()].concat());
            }
            let mut id = String::new();
            for number in 1..=4_u32 {
                if by_sql {
                    one.query(&format!("EXECUTE s{number}"));
                } else {
                    let execute = [&[COM_STMT_EXECUTE][..], &number.to_le_bytes(), &[0, 1, 0, 0, 0]].concat();
                    assert_eq!(one.command(&execute)[0].error(), None, "{number}");
                }
                if number == 2 {
                    id = one.value("SELECT CONNECTION_ID()");
                }
            }
            server.root().query(&format!("KILL {id}"));
            // Nobody says that it has been rolled back.
            one.send(b"\x03SELECT 1");
            let told = one.receive_from(1).error().unwrap();
            assert_ne!(told.code, 1213, "{told}");
            one.until_closed();
            let mut next = MyWire::connect(server.address(), &app().database(name)).unwrap();
            while next.reply("XA COMMIT 'my_101p'")[0].error().is_some_and(|error| error.code == 1397) {}
            assert_eq!(next.value("SELECT COUNT(*) FROM t"), "1");
            next.query("DELETE FROM t");
        }
    });
}

/// XA: a transaction with a name, which others may end once it is prepared.
#[test]
fn my_101_xa() {
    both_sides("my_101", 4, TABLE, |sides| {
        let script = [
            "XA START '{db}'",
            "INSERT INTO t VALUES (1)",
            "SELECT COUNT(*) FROM t",
            "COMMIT",
            "XA END '{db}'",
            "INSERT INTO t VALUES (2)",
            "XA PREPARE '{db}'",
        ];
        for last in ["XA COMMIT '{db}'", "XA ROLLBACK '{db}'"] {
            let mut talk = sides.talk();
            talk.same("DELETE FROM t");
            pinged(&mut talk, &script);
            pinged(&mut talk, &[last, "SELECT COUNT(*) FROM t"]);
        }
        let mut talk = sides.talk();
        talk.same("DELETE FROM t");
        pinged(
            &mut talk,
            &["XA START '{db}'", "INSERT INTO t VALUES (1)", "XA END '{db}'", "XA COMMIT '{db}' ONE PHASE"],
        );
        // Who has prepared it leaves, and another one ends it.
        for last in ["XA COMMIT '{db}'", "XA ROLLBACK '{db}'"] {
            let mut talk = sides.talk();
            talk.all(&[
                "DELETE FROM t",
                "XA START '{db}'",
                "INSERT INTO t VALUES (7)",
                "XA END '{db}'",
                "XA PREPARE '{db}'",
            ]);
            drop(talk);
            // A server that has not seen the end yet says that nobody knows it.
            let mut next = sides.talk();
            for wire in [&mut next.direct, &mut next.proxied] {
                let name = wire.value("SELECT DATABASE()");
                while wire.reply(&last.replace("{db}", &name))[0].error().is_some_and(|error| error.code == 1397) {}
            }
            next.same("SELECT COUNT(*) FROM t");
        }
        // One that was only begun goes with its client.
        let mut talk = sides.talk();
        talk.all(&["DELETE FROM t", "XA START '{db}'", "INSERT INTO t VALUES (8)"]);
        drop(talk);
        sides.talk().all(&[
            "DELETE FROM t",
            "SELECT COUNT(*) FROM t",
            "XA START '{db}'",
            "XA END '{db}'",
            "XA ROLLBACK '{db}'",
        ]);
    });
}

/// A deadlock ends the transaction, a lock that is not got in time does not.
#[test]
fn my_102_deadlocks_and_locks() {
    each(
        "my_102_locks",
        4,
        &["CREATE TABLE t (i int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 0), (2, 0)"],
        |server, name, proxy| {
            let connect = || MyWire::connect(proxy.address, &app().database(name)).unwrap();
            let (mut one, mut other) = (connect(), connect());
            let waits = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'";
            let mut root = server.root();
            one.query("BEGIN");
            one.query("UPDATE t SET v = 1 WHERE i = 1");
            other.query("BEGIN");
            // The heavier one, which is not chosen.
            other.query("UPDATE t SET v = 2 WHERE i = 2");
            other.query("INSERT INTO t SELECT i + 10, v FROM t WHERE i = 2");
            other.send(b"\x03UPDATE t SET v = 2 WHERE i = 1");
            let began = Instant::now();
            while root.query(waits)[0][1].as_deref() == Some("0") {
                assert!(began.elapsed() < PATIENCE, "nobody waits");
                std::thread::yield_now();
            }
            let error = one.error("UPDATE t SET v = 1 WHERE i = 2");
            assert_eq!((error.code, error.state.as_str()), (1213, "40001"), "{error}");
            assert_eq!(other.receive_from(1).first(), 0);
            other.query("COMMIT");
            // Its transaction is over, and so is everything it has done.
            assert_eq!(one.value("SELECT SUM(v) FROM t"), "6");
            if server.flavour() == Flavour::MySql {
                assert_eq!(one.command(&[COM_PING])[0].payload[3] & 1, 0);
            }
            one.query("BEGIN");
            one.query("UPDATE t SET v = 3 WHERE i = 1");
            other.query("SET innodb_lock_wait_timeout = 1");
            other.query("BEGIN");
            other.query("UPDATE t SET v = 4 WHERE i = 2");
            assert_eq!(other.error("UPDATE t SET v = 4 WHERE i = 1").code, 1205);
            one.query("COMMIT");
            // That one is still there.
            assert_eq!(other.command(&[COM_PING])[0].payload[3] & 1, 1);
            other.query("ROLLBACK");
            assert_eq!(one.value("SELECT v FROM t WHERE i = 2"), "2");
            eventually(proxy, &[("database_connections_currently_in_transaction", 0.0)]);
        },
    );
}
