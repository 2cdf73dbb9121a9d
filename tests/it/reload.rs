//! What a reload must not change under those who are here, and must change for those who come.

use sluicegate::demo::servers::{APP, APP_PASSWORD, Feature, Installation, Options, PostgresServer};

use crate::harness::proxy::{config, set, start};
use crate::harness::wire::{Login, Wire, query};

/// Warm connections of the old account are there, and nobody who comes in for the new one is given them.
#[test]
fn a_user_with_another_account() {
    let setup = ["CREATE ROLE second LOGIN PASSWORD 'second-secret'"];
    let installation = Installation::find(Feature::Any).unwrap();
    let server = PostgresServer::start(&installation, Options::default()).unwrap();
    server.run_sql("app", setup[0]).unwrap();
    let text = set(&config(server.address(), 8), "user", "name", "\"tom\"");
    let of = |account: &str, password: &str| {
        let text = set(&text, "user", "database_user", &format!("{account:?}"));
        set(&text, "user", "password", &format!("{{ value = {password:?} }}"))
    };
    let proxy = start(&of(APP, APP_PASSWORD));
    let mut here = Wire::connect(proxy.address, &Login::new("tom", APP_PASSWORD).database("app")).unwrap();
    assert_eq!(here.value("SELECT current_user"), APP);
    proxy.reload(&of("second", "second-secret"));
    proxy.logs("reloaded: users");
    let mut new = Wire::connect(proxy.address, &Login::new("tom", "second-secret").database("app")).unwrap();
    assert_eq!(new.value("SELECT current_user"), "second");
    // Who was here before goes on as who it was, as long as there are connections, and becomes nobody else then.
    assert_eq!(here.value("SELECT current_user"), APP);
    let cut = format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '{APP}'");
    server.run_sql("app", &cut).unwrap();
    let told = here.ask(&query("SELECT current_user"), 1);
    assert!(told[0].field(b'M').unwrap().contains("another account since a reload"), "{told:#?}");
    assert_eq!(new.value("SELECT current_user"), "second");
}
