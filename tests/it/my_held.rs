//! What keeps a client of MySQL's or MariaDB's on its connection, and that it ends with its cause: temporary tables, locks, handlers,
//! statements that SQL prepares. Beside a direct connection; in between another client has the connection, if it is free. Scenarios 89,
//! 111, 112, 113 and 119.

use crate::harness::mysql::beside::{Pair, Sides, both_sides};
use crate::harness::mysql::wire::MyWire;

/// Its other client finds no table and no lock.
fn pair_of<'a>(sides: &'a Sides<'a>) -> Pair<'a> {
    let finds_nothing = |other: &mut MyWire, sides: &Sides<'_>, sql: &str| {
        assert_eq!(other.value("SELECT COUNT(*) FROM t"), "3", "{sql}");
        let own = ["a", "b", "x"].map(|lock| format!("IS_USED_LOCK('{}{lock}') <=> CONNECTION_ID()", sides.name));
        assert_eq!(other.value(&format!("SELECT {}", own.join(" OR "))), "0", "{sql}");
    };
    Pair::new(sides, finds_nothing, "clients_pinned")
}

const TABLES: &[&str] = &["CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1), (2), (3)"];

#[test]
fn my_111_temporary_tables() {
    both_sides("my_111", 3, TABLES, |sides| {
        let mut pair = pair_of(sides);
        for _ in 0..2 {
            pair.kept(&["CREATE TEMPORARY TABLE tt (a INT)", "INSERT INTO tt VALUES (7)", "SELECT * FROM tt"]);
            pair.kept(&[
                "CREATE TEMPORARY TABLE IF NOT EXISTS `u` SELECT 'ä' AS a",
                "DROP TABLE tt",
                "SELECT * FROM u",
            ]);
            pair.free(&["DROP TEMPORARY TABLE u", "SELECT * FROM u", "SELECT * FROM tt"]);
        }
        // One of the same name as a table that others see.
        pair.kept(&["CREATE TEMPORARY TABLE t (a INT)", "SELECT COUNT(*) FROM t"]);
        pair.free(&["DROP TABLE t", "SELECT COUNT(*) FROM t"]);
        // What fails leaves none; in a transaction they stay.
        pair.free(&["CREATE TEMPORARY TABLE tt (a nonsense)", "SELECT * FROM tt"]);
        pair.talk.all(&["BEGIN", "CREATE TEMPORARY TABLE tt (a INT)"]);
        pair.kept(&["ROLLBACK", "SELECT * FROM tt"]);
        pair.free(&["DROP TABLE IF EXISTS nothing, {db}.tt"]);
        // Prepared.
        let create = pair.talk.prepare("CREATE TEMPORARY TABLE tt (a INT)");
        pair.talk.execute(create, &[]);
        pair.kept(&["SELECT * FROM tt"]);
        let drop = pair.talk.prepare("DROP TABLE tt");
        pair.talk.execute(drop, &[]);
        pair.free(&["SELECT * FROM tt"]);
        // By another name nobody knows it.
        pair.kept(&["CREATE TEMPORARY TABLE tt (a INT)", "ALTER TABLE tt RENAME TO v", "DROP TABLE v"]);
        pair.talk.command(&[0x1F]);
        pair.free(&["SELECT * FROM v"]);
    });
}

#[test]
fn my_112_locks_of_users() {
    both_sides("my_112", 3, TABLES, |sides| {
        let mut pair = pair_of(sides);
        for _ in 0..2 {
            pair.kept(&["SELECT GET_LOCK('{db}a', 5)", "DO GET_LOCK('{db}a', 5)", "SELECT GET_LOCK('{db}b', 0)"]);
            pair.kept(&[
                "SELECT RELEASE_LOCK('{db}a')",
                "SELECT RELEASE_LOCK('{db}b')",
                "SELECT IS_USED_LOCK('{db}b')",
            ]);
            pair.free(&["SELECT RELEASE_LOCK('{db}a')", "SELECT RELEASE_LOCK('{db}a')"]);
            pair.kept(&["SELECT GET_LOCK('{db}a', 5), GET_LOCK('{db}b', 5)"]);
            pair.free(&["SELECT RELEASE_ALL_LOCKS()"]);
        }
        // One that another client has.
        let mut root = sides.server.root();
        let names = [&sides.name, &sides.twin].map(|name| format!("GET_LOCK('{name}a', 5)")).join(", ");
        root.query(&format!("SELECT {names}"));
        pair.free(&["SELECT GET_LOCK('{db}a', 0)"]);
        root.query("SELECT RELEASE_ALL_LOCKS()");
        // Names that are not written out.
        pair.kept(&["SELECT GET_LOCK(CONCAT('{db}', 'x'), 0)", "SELECT RELEASE_LOCK('{db}x')"]);
        pair.free(&["DO RELEASE_ALL_LOCKS()"]);
        pair.talk.same("SET @l = '{db}a'");
        pair.kept(&["SELECT GET_LOCK(@l, 0)"]);
        pair.free(&["SELECT RELEASE_ALL_LOCKS() AS released", "SELECT @l"]);
        // Who leaves has none.
        pair.kept(&["SELECT GET_LOCK('{db}a', 0)"]);
        let Pair { talk, .. } = pair;
        drop(talk);
        let mut pair = pair_of(sides);
        pair.free(&["SELECT IS_FREE_LOCK('{db}a')"]);
    });
}

#[test]
fn my_113_locks_of_tables() {
    both_sides("my_113", 3, TABLES, |sides| {
        let mut pair = pair_of(sides);
        for _ in 0..2 {
            pair.kept(&["LOCK TABLES t READ", "INSERT INTO t VALUES (4)", "SELECT COUNT(*) FROM t"]);
            pair.free(&["UNLOCK TABLES"]);
            pair.free(&["LOCK TABLES nothing READ", "UNLOCK TABLES"]);
        }
        pair.kept(&["LOCK TABLES t READ", "SELECT GET_LOCK('{db}a', 0)", "UNLOCK TABLES"]);
        pair.free(&["SELECT RELEASE_LOCK('{db}a')"]);
    });
}

#[test]
fn my_119_handlers() {
    both_sides("my_119", 3, TABLES, |sides| {
        let mut pair = pair_of(sides);
        for _ in 0..2 {
            pair.kept(&["HANDLER t OPEN", "HANDLER t READ FIRST", "HANDLER t OPEN AS h", "HANDLER h READ FIRST"]);
            pair.kept(&["HANDLER t CLOSE", "HANDLER h READ NEXT"]);
            pair.free(&["HANDLER h CLOSE", "HANDLER h CLOSE"]);
        }
        pair.free(&["HANDLER nothing OPEN"]);
    });
}

#[test]
fn my_089_statements_that_sql_prepares() {
    both_sides("my_089s", 3, TABLES, |sides| {
        let mut pair = pair_of(sides);
        for _ in 0..2 {
            // They go along with their client.
            pair.free(&["PREPARE s FROM 'SELECT a FROM t WHERE a = ? OR ''x'' = ''y'''", "SET @a = 2"]);
            pair.free(&["EXECUTE s USING @a", "EXECUTE S USING @a", "EXECUTE s", "SET @a = 3", "EXECUTE s USING @a"]);
            // Another one of the same name, and one that can't be.
            pair.free(&["PREPARE s FROM 'SELECT 1 INTO @b'", "EXECUTE s", "SELECT @b", "PREPARE s FROM 'SELEC'"]);
            pair.free(&["EXECUTE s", "DEALLOCATE PREPARE s", "PREPARE s FROM 'SELECT 5'", "EXECUTE s"]);
            pair.free(&["DROP PREPARE s", "EXECUTE s", "DROP PREPARE s"]);
            // From a variable: it stays until it is gone.
            pair.free(&["SET @q = 'SELECT 6'"]);
            pair.kept(&["PREPARE s FROM @q"]);
            pair.free(&["DEALLOCATE PREPARE s"]);
        }
        // What it does is seen.
        pair.free(&["PREPARE c FROM 'CREATE TEMPORARY TABLE tt (a INT)'"]);
        pair.kept(&["EXECUTE c", "SELECT * FROM tt"]);
        pair.talk.command(&[0x1F]);
        pair.free(&["EXECUTE c", "SELECT * FROM tt"]);
        // Another client's is another one's.
        pair.free(&["PREPARE s FROM 'SELECT 5'"]);
        pair.other.query("PREPARE s FROM 'SELECT 8'");
        pair.talk.same("EXECUTE s");
        assert_eq!(pair.other.value("EXECUTE s"), "8");
        pair.talk.same("EXECUTE s");
    });
}
