//! What no reset of a connection undoes, behind clients that have had theirs reset: it is nobody else's.

use crate::harness::mysql::beside::{app, each};
use crate::harness::mysql::wire::{MyWire, capability};
use sluicegate::demo::servers::APP;

/// COM_RESET_CONNECTION leaves `FOUND_ROWS()` as it was; MariaDB even shows a new session that of an old one.
#[test]
fn numbers_of_rows_are_nobody_elses() {
    each(
        "my_found",
        1,
        &["CREATE TABLE t (i int)", "INSERT INTO t VALUES (1), (2), (3), (4)"],
        |server, name, proxy| {
            let client = || MyWire::connect(proxy.address, &app().database(name)).unwrap();
            let mut one = client();
            one.query("SELECT * FROM t");
            let mut other = client();
            other.command(&[0x1F]);
            assert_eq!(other.value("SELECT FOUND_ROWS()"), "0");
            // Enough of them for each thread that the server keeps.
            for _ in 0..20 {
                let mut direct = MyWire::connect(server.address(), &app().database(name)).unwrap();
                direct.query("SELECT * FROM t");
            }
            server.kill(&other.value("SELECT CONNECTION_ID()"));
            assert_eq!(client().value("SELECT FOUND_ROWS()"), "0");
        },
    );
}

/// Settings that the proxy puts on a connection have warnings of their own.
#[test]
fn warnings_of_the_proxys_own_are_nobodys() {
    each("my_warned", 1, &[], |_, name, proxy| {
        let client = || MyWire::connect(proxy.address, &app().database(name)).unwrap();
        let (mut one, mut other) = (client(), client());
        for wire in [&mut one, &mut other] {
            assert!(wire.query("SHOW WARNINGS").is_empty());
        }
        one.query("SET sql_mode = 'NO_ZERO_DATE'");
        for _ in 0..2 {
            other.query("DO 1");
            assert!(one.query("SHOW WARNINGS").is_empty());
        }
    });
}

#[test]
fn what_lasts_is_nobody_elses() {
    each("my_lasting", 1, &[], |server, name, proxy| {
        let login = app().database(name).without(capability::MULTI_STATEMENTS);
        let client = || MyWire::connect(proxy.address, &login).unwrap();
        let mut root = server.root();
        root.query("CREATE ROLE IF NOT EXISTS lasting");
        root.query(&format!("GRANT lasting TO {APP}@'%'"));
        let (mut one, mut other) = (client(), client());
        let pristine = other.reply("SELECT CURRENT_ROLE()");
        one.query("SET ROLE lasting");
        one.command(&[0x1F]);
        drop(one);
        assert_eq!(other.reply("SELECT CURRENT_ROLE()"), pristine);
        let mut one = client();
        assert_eq!(one.error("SELECT 1; SELECT 2").code, 1064);
        one.command(&[0x1B, 0, 0]);
        one.command(&[0x1F]);
        drop(one);
        assert_eq!(other.error("SELECT 1; SELECT 2").code, 1064);
    });
}
