//! What no reset of a connection undoes, behind clients that have had theirs reset: it is nobody else's.

use crate::harness::mysql::beside::{app, each};
use crate::harness::mysql::wire::{MyWire, capability};
use sluicegate::demo::servers::APP;

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
