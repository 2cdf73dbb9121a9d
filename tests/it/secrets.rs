//! Passwords that change at the database while the proxy runs, and logins there with tokens of the proxy's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use sluicegate::demo::servers::{APP, APP_PASSWORD, Feature, Installation, MONITOR, MONITOR_PASSWORD};
use sluicegate::demo::servers::{Options, PostgresServer};

use crate::harness::programs::{Ended, python, run};
use crate::harness::proxy::{ProxyHandle, config, set, start, start_with};
use crate::harness::wire::{Login, Wire};

const KEY_ID: &str = "AKIAEXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn own_server() -> PostgresServer {
    let installation = Installation::find(Feature::Any).unwrap();
    PostgresServer::start(&installation, Options { ssl: true, ..Options::default() }).unwrap()
}

/// One connection, by this password; who it is.
fn psycopg(proxy: &ProxyHandle, password: &str) -> Ended {
    let mut script = python();
    script.arg("-c").arg(
        "import psycopg, sys\nwith psycopg.connect(sys.argv[1]) as conn:\n\
         \x20   print(conn.execute('SELECT current_user').fetchone()[0])",
    );
    let port = proxy.address.port();
    script.arg(format!("host=127.0.0.1 port={port} user={APP} dbname=app password={password} sslmode=disable"));
    run(script, "")
}

fn count(text: &str, words: &str) -> usize {
    text.matches(words).count()
}

/// The password of the database's user is exchanged, then the file; the old connections are cut. One refused login, and
/// clients and database agree again.
#[test]
fn pg_108_a_rotated_password_is_picked_up_after_one_refusal() {
    let server = own_server();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, APP_PASSWORD).unwrap();
    let text = set(&config(server.address(), 8), "user", "password", &format!("{{ file = \"{}\" }}", file.display()));
    let proxy = start(&text);
    assert_eq!(psycopg(&proxy, APP_PASSWORD).quietly(), "app\n");
    // A client that was here before.
    let mut here = Wire::connect(proxy.address, &Login::app().database("app")).unwrap();
    assert_eq!(here.value("SELECT 1"), "1");

    let rotate = |password: &str| {
        let cut = format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '{APP}'");
        server.run_sql("app", &format!("ALTER ROLE {APP} PASSWORD '{password}'; {cut}")).unwrap();
    };
    rotate("second-secret");
    fs::write(&file, "second-secret\n").unwrap();
    assert_eq!(here.value("SELECT 2"), "2");
    assert_eq!(count(&server.log(), "password authentication failed"), 1, "{}", server.log());
    // Clients prove the new one from now on.
    let refused = psycopg(&proxy, APP_PASSWORD);
    assert!(refused.stderr.contains("password authentication failed"), "{refused}");
    assert_eq!(psycopg(&proxy, "second-secret").quietly(), "app\n");

    // Nobody says what the third one is: clients are told, and the database is left in peace.
    rotate("third-secret");
    let refused: Vec<_> = (0..10).map(|_| psycopg(&proxy, "second-secret")).collect();
    assert!(refused.iter().any(|ended| ended.stderr.contains("could not log in")), "{:?}", refused[0]);
    let failures = count(&server.log(), "password authentication failed");
    assert!(failures <= 12, "{failures} refusals for 10 clients");
}

/// The operator has exchanged it everywhere, and no database connection was needed since: a client is the first to know.
#[test]
fn a_rotated_password_is_picked_up_from_a_client() {
    let server = own_server();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, APP_PASSWORD).unwrap();
    let text = set(&config(server.address(), 8), "user", "password", &format!("{{ file = \"{}\" }}", file.display()));
    let proxy = start(&text);
    assert_eq!(psycopg(&proxy, APP_PASSWORD).quietly(), "app\n");
    // Guesses make it be read again, and change nothing.
    assert!(psycopg(&proxy, "wrong-secret").stderr.contains("password authentication failed"));
    assert_eq!(psycopg(&proxy, APP_PASSWORD).quietly(), "app\n");
    server.run_sql("app", &format!("ALTER ROLE {APP} PASSWORD 'second-secret'")).unwrap();
    fs::write(&file, "second-secret\n").unwrap();
    let began = std::time::Instant::now();
    // Not for ten seconds after it was last read: so long a storm of guesses must wait.
    while !psycopg(&proxy, "second-secret").status.success() {
        assert!(began.elapsed() < crate::harness::wire::PATIENCE, "{}", proxy.log());
    }
    proxy.logs("the password was read again, and is another one");
    assert!(psycopg(&proxy, APP_PASSWORD).stderr.contains("password authentication failed"));
    assert_eq!(count(&server.log(), "password authentication failed"), 0);
}

/// Read again as its time comes, before anybody is refused.
#[test]
fn a_password_by_command_is_refreshed() {
    let server = own_server();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, APP_PASSWORD).unwrap();
    let source = format!("{{ command = [\"cat\", \"{}\"], refresh = \"100ms\" }}", file.display());
    let proxy = start(&set(&config(server.address(), 8), "user", "password", &source));
    assert_eq!(psycopg(&proxy, APP_PASSWORD).quietly(), "app\n");
    server.run_sql("app", &format!("ALTER ROLE {APP} PASSWORD 'second-secret'")).unwrap();
    fs::write(&file, "second-secret\n").unwrap();
    proxy.logs("the password was read again, and is another one");
    assert_eq!(psycopg(&proxy, "second-secret").quietly(), "app\n");
    assert!(psycopg(&proxy, APP_PASSWORD).stderr.contains("password authentication failed"));
    assert_eq!(count(&server.log(), "password authentication failed"), 0);
    // One that can't be read leaves the last one.
    fs::write(&file, "").unwrap();
    proxy.logs("the password can't be read again");
    assert_eq!(psycopg(&proxy, "second-secret").quietly(), "app\n");
}

#[test]
fn the_monitors_password_is_picked_up_too() {
    let mut server = own_server();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, MONITOR_PASSWORD).unwrap();
    let source = format!("{{ file = \"{}\" }}", file.display());
    let proxy = start(&set(&config(server.address(), 8), "target_group.health", "password", &source));
    proxy.logs("the target is up");
    server.run_sql("app", &format!("ALTER ROLE {MONITOR} PASSWORD 'second-secret'")).unwrap();
    fs::write(&file, "second-secret").unwrap();
    server.restart().unwrap();
    assert_eq!(psycopg(&proxy, APP_PASSWORD).quietly(), "app\n");
    proxy.logs("the password was read again, and is another one whose=\"sluicegate_monitor\"");
}

/// What the proxy signs its own tokens with.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", KEY_ID),
    ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ("AWS_SESSION_TOKEN", "temporary-secret"),
    ("AWS_REGION", "eu-central-1"),
];

/// A second proxy plays the database that takes tokens: it makes all checks. `text` is the configuration of a proxy before
/// it.
struct TokenDatabase {
    _server: PostgresServer,
    folder: tempfile::TempDir,
    database: ProxyHandle,
    text: String,
}

impl TokenDatabase {
    fn new() -> Self {
        let server = own_server();
        let folder = tempfile::tempdir().unwrap();
        let identities = folder.path().join("identities.toml");
        fs::write(
            &identities,
            format!(
                "[[identity]]\naccess_key_id = '{KEY_ID}'\nsecret_access_key = {{ value = '{SECRET_KEY}' }}\n\
                 session_token = {{ value = 'temporary-secret' }}\n\
                 [[identity.statement]]\neffect = 'Allow'\naction = 'rds-db:connect'\nresource = '*'\n"
            ),
        )
        .unwrap();
        fs::set_permissions(&identities, PermissionsExt::from_mode(0o600)).unwrap();
        let file = |name: &str| format!("{:?}", server.socket_dir().join(name));
        let stand_in = set(&config(server.address(), 12), "endpoint", "tls", "\"required\"");
        let stand_in = set(&stand_in, "endpoint", "hostnames", "[\"localhost\"]");
        let stand_in = set(&stand_in, "tls", "certificate", &file("server.crt"));
        let stand_in = set(&stand_in, "tls", "private_key", &file("server.key"));
        let stand_in = set(&stand_in, "user", "auth", "[\"iam\"]");
        let database = start(&format!(
            "{stand_in}\n[iam]\nregion = 'eu-central-1'\naccount = '1'\nresource_id = 'db-1'\nidentities_file = '{}'\n\
             [[user]]\nname = '{MONITOR}'\npassword = {{ value = '{MONITOR_PASSWORD}' }}\n",
            identities.display()
        ));
        let text = config(database.address, 6).replace("\"127.0.0.1:", "\"localhost:");
        let text = set(&text, "endpoint", "listen", "\"127.0.0.1:{port}\"");
        let text = set(&text, "admin", "listen", "\"127.0.0.1:{admin_port}\"");
        let text = set(&text, "target_group", "tls", "\"verify-full\"");
        let text = set(&text, "target_group", "ca_file", &file("ca.crt"));
        let text = set(&text, "user", "database_auth", "\"iam\"");
        Self { _server: server, folder, database, text }
    }
}

/// It says `verify-full` now, but the connections that would carry the token are those of the start.
#[test]
fn a_reload_shows_no_token_to_an_unverified_database() {
    let TokenDatabase { database, text, _server, .. } = TokenDatabase::new();
    let lenient = set(&text, "target_group", "tls", "\"require\"");
    let proxy = start_with(&set(&lenient, "user", "database_auth", "\"password\""), &ENVIRONMENT);
    proxy.logs("the target is up");
    proxy.reload(&text);
    proxy.logs("takes a restart");
    let refused = psycopg(&proxy, APP_PASSWORD);
    assert!(refused.stderr.contains("could not log in"), "{refused}");
    proxy.logs("no token is sent");
    let log = database.log();
    assert!(!log.contains(&format!("user=\"{APP}\" database=\"app\"}}: logged in")), "{log}");
    // In the other direction, too: started as it should be, it goes on.
    drop(proxy);
    let proxy = start_with(&text, &ENVIRONMENT);
    proxy.reload(&set(&lenient, "user", "database_auth", "\"password\""));
    proxy.logs("takes a restart");
    proxy.reload(&text);
    let began = std::time::Instant::now();
    while !psycopg(&proxy, APP_PASSWORD).status.success() {
        assert!(began.elapsed() < crate::harness::wire::PATIENCE, "{}", proxy.log());
    }
}

#[test]
fn tokens_of_our_own_at_databases() {
    let TokenDatabase { database, text, folder, _server } = TokenDatabase::new();
    let proxy = start_with(&text, &ENVIRONMENT);
    assert_eq!(psycopg(&proxy, APP_PASSWORD).quietly(), "app\n");
    assert!(database.logs("logged in").contains(&format!("user=\"{APP}\"")));
    drop(proxy);
    // With another key the database lets nobody in; the client learns no more than that.
    let other = ENVIRONMENT.map(|(name, value)| (name, if value == SECRET_KEY { "another-secret" } else { value }));
    let proxy = start_with(&text, &other);
    let refused = psycopg(&proxy, APP_PASSWORD);
    assert!(refused.stderr.contains("could not log in") && refused.stderr.contains("28000"), "{refused}");
    database.logs("signature does not fit");
    // Without a key, or to whom a token must not be shown, it does not start.
    let check = |text: &str, environment: &[(&str, &str)]| {
        let file = folder.path().join("proxy.toml");
        let text =
            ["port", "admin_port"].iter().fold(text.to_owned(), |text, name| text.replace(&format!("{{{name}}}"), "1"));
        fs::write(&file, text).unwrap();
        let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        check.args(["check", "--config"]).arg(&file);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"] {
            check.env_remove(name);
        }
        check.envs(environment.iter().copied());
        run(check, "").stderr
    };
    assert!(check(&text, &[]).contains("AWS_ACCESS_KEY_ID is not set"));
    let lenient = set(&text, "target_group", "tls", "\"verify-ca\"");
    assert!(check(&lenient, &ENVIRONMENT).contains("tls = \"verify-full\" only"));
}
