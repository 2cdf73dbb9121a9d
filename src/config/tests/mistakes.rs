//! Each kind of mistake, with the whole message it leads to.

use super::*;

#[test]
fn unknown_keys_and_wrong_types() {
    const DURATION: &str = r#"a duration such as "250ms", "30s", "15m" or "1h", at most "8760h""#;
    check(&[
        (
            "#user",
            "endpoint = []",
            "21: user[0].endpoint: unknown key, did you mean `endpoints`? (known here: database_auth, name, auth, \
             password, certificate_names, database_user, endpoints, max_clients, max_connections)",
        ),
        (
            "#root",
            "[logs]",
            "22: logs: unknown key, did you mean `log`? (known here: target_group, tls, admin, endpoint, iam, user, dns, \
             log, runtime)",
        ),
        ("#root", "[log]\ncolour = true", "23: log.colour: unknown key (known here: format, level)"),
        ("#endpoint", "login_timeout = 15", &format!("6: endpoint[0].login_timeout: found 15, allowed: {DURATION}")),
        (
            "#endpoint",
            "login_timeout = '15 seconds'",
            &format!("6: endpoint[0].login_timeout: found \"15 seconds\", allowed: {DURATION}"),
        ),
        (
            "#endpoint",
            "max_clients = '10'",
            "6: endpoint[0].max_clients: found \"10\", allowed: a number from 1 to 1000000",
        ),
        (
            "#endpoint",
            "allow_from = '10.0.0.0/8'",
            "6: endpoint[0].allow_from: found \"10.0.0.0/8\", allowed: networks such as \"10.0.0.0/8\" or \"fd00::/8\"",
        ),
        (
            "#pool",
            "pool_mode = true",
            "13: target_group[0].pool.pool_mode: found true, allowed: \"transaction\" or \"session\"",
        ),
        ("#root", "[[log]]", "22: log: found a list, allowed: a table, [log]"),
    ]);
    let text = SMALL.replace("[[user]]", "[user]");
    assert_eq!(messages(&text), ["proxy.toml:18: user: found a table, allowed: tables, each headed [[user]]"]);
}

#[test]
fn impossible_values() {
    check(&[
        (
            "#endpoint",
            "role = 'read-rite'",
            "6: endpoint[0].role: found \"read-rite\", allowed: \"read-write\"; did you mean \"read-write\"?",
        ),
        (
            "#endpoint",
            "login_timeout = '0'",
            "6: endpoint[0].login_timeout: found \"0\", allowed: a duration above zero: this one can't be switched off",
        ),
        ("#endpoint", "max_clients = 0", "6: endpoint[0].max_clients: found 0, allowed: a number from 1 to 1000000"),
        (
            "#endpoint",
            "max_clients = 99999999999999999999999",
            "6: endpoint[0].max_clients: found 99999999999999999999999, allowed: a number from 1 to 1000000",
        ),
        (
            "#endpoint",
            "allow_from = ['10.0.0.0/8',\n'10.0.0.0/99']",
            "7: endpoint[0].allow_from[1]: found \"10.0.0.0/99\", allowed: networks such as \"10.0.0.0/8\" or \"fd00::/8\"",
        ),
        (
            "#endpoint",
            "allow_from = []",
            "6: endpoint[0].allow_from: found a list, allowed: at least one network: nobody could connect",
        ),
        (
            "\"127.0.0.1:6432\"",
            "['localhost:6432']",
            "3: endpoint[0].listen[0]: found \"localhost:6432\", allowed: an IP address and port such as \"0.0.0.0:6432\" or \
             \"[::]:6432\", or \"unix:/run/sluicegate/.s.PGSQL.6432\"",
        ),
        (
            "db1:5432",
            "db1",
            "10: target_group[0].targets[0]: found \"db1\", allowed: \"host:port\", \"[IPv6 address]:port\" or \
             \"unix:/run/postgresql/.s.PGSQL.5432\"",
        ),
        (
            "#pool",
            "max_connections_percent = 101",
            "13: target_group[0].pool.max_connections_percent: found 101, allowed: a number from 1 to 100",
        ),
        (
            "name = \"orders\"",
            "name = \"my orders\"",
            "2: endpoint[0].name: found \"my orders\", allowed: 1 to 63 letters, digits, -, _ or .",
        ),
        (
            "#root",
            "[log]\nlevel = 'degub'",
            "23: log.level: found \"degub\", allowed: off, error, warn, info, debug or trace, or a filter such as \
             \"info,sluicegate::pool=debug\"",
        ),
        (
            "#user",
            "auth = []",
            "21: user[0].auth: PostgreSQL asks for one thing once: one method, such as [\"scram-sha-256\"] or [\"iam\"]; for \
             tokens and passwords both, [\"iam-or-password\"]",
        ),
        ("#user", "auth = ['iam']", "21: user[0].auth: tokens need an [iam] table"),
        (
            "#pool",
            "init_query = \"SELECT 'x\\u0000'\"",
            "13: target_group[0].pool.init_query: at most 65536 bytes of SQL, and none of them zero",
        ),
        ("#user", "max_clients = 0", "21: user[0].max_clients: found 0, allowed: a number from 1 to 1000000"),
        (
            "#user",
            "max_connections = '5'",
            "21: user[0].max_connections: found \"5\", allowed: a number from 1 to 262143",
        ),
        (
            "#endpoint",
            "hostnames = ['orders.internal:0']",
            "6: endpoint[0].hostnames[0]: found \"orders.internal:0\", allowed: \
             names as clients write them, such as \"orders.internal\" or \"orders.example.com:5432\"",
        ),
    ]);
}

#[test]
fn a_folder_is_no_certificate() {
    let text = small_with("#root", "[tls]\ncertificate = '/'\nprivate_key = 'Cargo.toml'");
    assert_eq!(
        messages(&text),
        ["proxy.toml:23: tls.certificate: found \"/\", allowed: the path of a file; this is a folder"]
    );
}

#[test]
fn missing_keys() {
    check(&[
        ("name = \"orders\"\n", "", "1: endpoint[0].name: is missing, needed: 1 to 63 letters, digits, -, _ or ."),
        ("engine = \"postgres\"\n", "", "7: target_group[0].engine: is missing, needed: \"postgres\" or \"mysql\""),
        (
            "user = \"monitor\"\n",
            "",
            "14: target_group[0].health.user: is missing, needed: the name of a database account",
        ),
        (
            "password = { value = \"hunter2\" }",
            "",
            "18: user[0].password: is missing, needed: for scram-sha-256: { env = \"NAME\" }, { file = \"/path\" }, \
             { command = [\"program\", \"argument\"] } or \
             { value = \"...\" }",
        ),
        ("#root", "[tls]\ncertificate = 'Cargo.toml'", "22: tls.private_key: is missing, needed: the path of a file"),
    ]);
    assert_eq!(
        messages(""),
        [
            "proxy.toml:1: target_group: is missing, needed: at least one [[target_group]]",
            "proxy.toml:1: endpoint: is missing, needed: at least one [[endpoint]]",
        ]
    );
}

#[test]
fn parts_that_contradict_each_other() {
    const SECOND: &str = "[[endpoint]]\nname = 'two'\ntarget_group = 'orders'\ntls = 'off'\n";
    check(&[
        (
            "target_group = \"orders\"",
            "target_group = \"ordres\"",
            "4: endpoint[0].target_group: found \"ordres\", allowed: the name of a target group: orders; did you mean \
             \"orders\"?",
        ),
        (
            "#user",
            "endpoints = ['order']",
            "21: user[0].endpoints[0]: found \"order\", allowed: the name of an endpoint: orders; did you mean \"orders\"?",
        ),
        (
            "#root",
            "[[user]]\nname = 'app'\npassword = { value = 'x' }",
            "23: user[1].name: \"app\" is already taken in line 19",
        ),
        (
            "#root",
            &format!("{SECOND}listen = '0.0.0.0:6432'"),
            "26: endpoint[1].listen: \"0.0.0.0:6432\" collides with \"127.0.0.1:6432\" of endpoint[0].listen in line 3",
        ),
        (
            "#root",
            &format!("{SECOND}listen = '127.0.0.1:9632'"),
            "26: endpoint[1].listen: \"127.0.0.1:9632\" collides with \"127.0.0.1:9632\" of [admin] listen",
        ),
        (
            "tls = \"off\"",
            "tls = \"optional\"",
            "5: endpoint[0].tls: \"optional\" needs `certificate` and `private_key` in [tls]; or set tls = \"off\"",
        ),
        (
            "tls = \"off\"\n",
            "",
            "1: endpoint[0].tls: \"required\" (the default) needs `certificate` and `private_key` in [tls]; or set \
             tls = \"off\"",
        ),
        (
            "#pool",
            "max_connections = 10\nmax_connections_percent = 10",
            "13: target_group[0].pool.max_connections: `max_connections_percent` is set in line 14; keep one of the two",
        ),
        (
            "#group",
            "writer_endpoint = 'db1:5432'",
            "11: target_group[0].writer_endpoint: goes with discovery = \"dns\"; list the database in `targets`",
        ),
    ]);
    for (a, b, collide) in [
        ("127.0.0.1:0", "127.0.0.1:0", false),
        ("0.0.0.0:6432", "[::]:6432", false),
        ("[::]:6432", "[::1]:6432", true),
        ("127.0.0.1:6432", "127.0.0.2:6432", false),
        ("unix:/a/.s.PGSQL.1", "unix:/a/.s.PGSQL.1", true),
        ("unix:/a/.s.PGSQL.1", "unix:/b/.s.PGSQL.1", false),
    ] {
        let listen = format!("['{a}', '{b}']");
        let text = small_with("\"127.0.0.1:6432\"", &listen);
        assert_eq!(parse(&text).is_err(), collide, "{listen}");
    }
}

#[test]
fn what_later_versions_bring() {
    const LATER: &str = "not available yet in this version";
    check(&[
        ("#endpoint", "role = 'split'", &format!("6: endpoint[0].role: \"split\" is {LATER}: use \"read-write\"")),
        (
            "\"db1:5432\"",
            "'db1:5432', 'db2:5432'",
            &format!("10: target_group[0].targets: {LATER}: one target per group"),
        ),
        (
            "#root",
            "[admin]\nlisten = '0.0.0.0:9632'",
            &format!(
                "23: admin.listen: \"0.0.0.0:9632\" is {LATER}: off loopback it needs TLS; use \"127.0.0.1:9632\""
            ),
        ),
    ]);
    // At their defaults the same keys say nothing new, and are let through.
    let text = SMALL
        .replace(
            "#pool",
            "transaction_max = '0'\nquery_timeout = '0'",
        )
        .replace("#health", "[target_group.auth_query]\nenabled = false\ndeny = ['superuser', 'replication']")
        .replace("#user", "auth = ['scram-sha-256', 'caching_sha2_password']")
        .replace(
            "#root",
            "[dns]\nservers = []\n[tls]\nclient_ca = ''\n[admin]\ntls = false\nviewers = {}\n[runtime]\nmemory_max = '0'",
        );
    good(&text);
}

#[test]
fn all_mistakes_at_once_in_the_order_of_the_file() {
    let text = SMALL
        .replace("#endpoint", "rolle = 'split'\nmax_clients = -1")
        .replace("#pool", "reset = 'smrt'")
        .replace("MONITOR_PASSWORD", "NOBODY_SET_THIS")
        .replace("#root", "[runtime]\nworkers = 1.5");
    let found = messages(&text);
    let places = [
        "proxy.toml:6: endpoint[0].rolle: unknown key, did you mean `role`?",
        "proxy.toml:7: endpoint[0].max_clients: found -1, allowed:",
        "proxy.toml:14: target_group[0].pool.reset: found \"smrt\", allowed: \"smart\" or \"full\"; did you mean \"smart\"?",
        "proxy.toml:17: target_group[0].health.password: the environment variable NOBODY_SET_THIS is not set",
        "proxy.toml:24: runtime.workers: found a fraction, allowed: a number from 0 to 1024",
    ];
    assert_eq!(found.len(), places.len(), "{found:#?}");
    for (message, place) in found.iter().zip(places) {
        assert!(message.starts_with(place), "{message}\nis not\n{place}");
    }
}

#[test]
fn broken_toml_is_told_with_its_line() {
    for (piece, replacement, line) in [
        ("#endpoint", "role = ", 6),
        ("#endpoint", "role = \"split", 6),
        ("[[user]]", "[[user]", 18),
        ("#user", "name = 'twice'", 21),
    ] {
        let text = small_with(piece, replacement);
        let errors = parse(&text).expect_err(&text);
        let first = &errors.errors[0];
        assert_eq!(first.line, line, "{errors}");
        assert!(matches!(first.problem, Problem::Syntax { .. }));
        assert!(!errors.to_string().contains("hunter2"), "{errors}");
    }
}

#[test]
fn what_is_for_one_engine() {
    check(&[(
        "engine = \"postgres\"",
        "engine = \"mysql\"\nauth_query = { enabled = true, user = 'a', password = { value = 'b' } }",
        "10: target_group[0].auth_query.enabled: users are looked up in PostgreSQL only; list those of MySQL as [[user]]",
    )]);
}
