//! Users that stand in the database alone: who of them may come in, and what the proxy logs in with for them.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sluicegate::demo::servers::{APP, APP_PASSWORD, Auth, Feature, Installation, Options, PostgresServer};
use sluicegate::demo::servers::{SUPERUSER, SUPERUSER_PASSWORD};
use sluicegate::protocol::ScramSecret;

use crate::harness::programs::{Ended, python, run};
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::wire::{Login, Wire};

/// As `docs/AUTH_QUERY.md` has it.
pub const SETUP: &str = "\
CREATE SCHEMA sluicegate;
CREATE FUNCTION sluicegate.user_lookup(username name, OUT rolname name, OUT rolpassword text) RETURNS SETOF record
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT rolname, rolpassword FROM pg_catalog.pg_authid WHERE rolname = username AND rolcanlogin $$;
REVOKE ALL ON FUNCTION sluicegate.user_lookup(name) FROM PUBLIC;
CREATE ROLE sluicegate_auth LOGIN PASSWORD 'lookup-secret';
GRANT USAGE ON SCHEMA sluicegate TO sluicegate_auth;
GRANT EXECUTE ON FUNCTION sluicegate.user_lookup(name) TO sluicegate_auth;";

struct Scene {
    server: PostgresServer,
    proxy: ProxyHandle,
}

impl Scene {
    /// A server with these roles, and a proxy that looks users up there with these settings.
    fn new(auth: Auth, roles: &str, settings: &[(&str, &str)]) -> Self {
        let installation = Installation::find(Feature::Any).unwrap();
        let logged = vec![("log_statement".to_owned(), "all".to_owned())];
        let server =
            PostgresServer::start(&installation, Options { auth, settings: logged, ..Options::default() }).unwrap();
        // The function belongs to the database that the lookups go to.
        server.run_sql("postgres", &format!("{SETUP}\n{roles}")).unwrap();
        let mut text = config(server.address(), 10);
        let table = "target_group.auth_query";
        text = text
            .replace("[[user]]", &format!("  [{table}]\n  enabled = true\n  user = \"sluicegate_auth\"\n\n[[user]]"));
        text = set(&text, table, "password", "{ value = \"lookup-secret\" }");
        for (key, value) in settings {
            text = set(&text, table, key, value);
        }
        let proxy = start(&text);
        Self { server, proxy }
    }

    fn psycopg(&self, user: &str, password: &str) -> Ended {
        let mut script = python();
        script.arg("-c").arg(
            "import psycopg, sys\nwith psycopg.connect(sys.argv[1], autocommit=True) as conn:\n\
             \x20   print(conn.execute('SELECT current_user').fetchone()[0])",
        );
        let port = self.proxy.address.port();
        script.arg(format!("host=127.0.0.1 port={port} user={user} dbname=app password={password} sslmode=disable"));
        run(script, "")
    }

    fn comes_in(&self, user: &str, password: &str) {
        assert_eq!(self.psycopg(user, password).quietly().trim_end(), user);
    }

    fn is_refused(&self, user: &str, password: &str) {
        let refused = self.psycopg(user, password);
        let words = format!("password authentication failed for user \"{user}\"");
        assert!(refused.stderr.contains(&words), "{refused}");
    }
}

#[test]
fn users_of_the_database_come_in_with_their_own_password() {
    let roles = "CREATE ROLE anna LOGIN PASSWORD 'anna-secret'; CREATE ROLE berta LOGIN PASSWORD 'berta-secret';";
    let scene = Scene::new(Auth::Scram, roles, &[]);
    scene.comes_in("anna", "anna-secret");
    scene.comes_in("berta", "berta-secret");
    scene.is_refused("anna", "berta-secret");
    scene.is_refused("nobody", "anna-secret");
    scene.comes_in("anna", "anna-secret");
    // Those of the configuration are not looked up.
    assert_eq!(scene.psycopg(APP, APP_PASSWORD).quietly(), "app\n");
    // No password ever went to the database but as SCRAM, and nothing was refused there.
    let log = scene.server.log();
    assert!(!log.contains("authentication failed"), "{log}");
    // As much is asked about those who do not exist.
    let asked = |words: &str| log.matches(words).count();
    assert_eq!(asked("FROM sluicegate.user_lookup($1)"), asked("FROM pg_catalog.pg_roles WHERE rolname = $1"), "{log}");
    assert_eq!(asked("parameters: $1 = 'nobody'"), 2, "{log}");
}

#[test]
fn md5_users_come_in_by_md5() {
    let roles = "SET password_encryption = 'md5'; CREATE ROLE anna LOGIN PASSWORD 'anna-secret';\n\
                 SET password_encryption = 'scram-sha-256'; CREATE ROLE berta LOGIN PASSWORD 'berta-secret';";
    let scene = Scene::new(Auth::Md5, roles, &[]);
    scene.comes_in("anna", "anna-secret");
    scene.comes_in("berta", "berta-secret");
    scene.is_refused("anna", "berta-secret");
}

#[test]
fn who_may_not_come_in() {
    let roles = "CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'p-secret'; CREATE ROLE copier REPLICATION LOGIN PASSWORD 'p-secret';\n\
                 CREATE ROLE team PASSWORD 'p-secret'; CREATE ROLE former LOGIN PASSWORD 'p-secret' VALID UNTIL '2020-01-01';\n\
                 CREATE ROLE bare LOGIN; CREATE ROLE guest LOGIN PASSWORD 'p-secret' VALID UNTIL 'infinity';";
    let scene = Scene::new(Auth::Scram, roles, &[]);
    for (user, reason) in [
        ("boss", "the role is a superuser"),
        ("copier", "the role may replicate"),
        ("team", "the role may not log in"),
        ("former", "password has expired"),
        ("bare", "the role has no password"),
        ("ghost", "there is no such role"),
    ] {
        scene.is_refused(user, "p-secret");
        let log = scene.proxy.logs(&format!("user=\"{user}\" reason="));
        assert!(log.lines().any(|line| line.contains(user) && line.contains(reason)), "{user}: {log}");
    }
    scene.comes_in("guest", "p-secret");
    scene.is_refused(&"x".repeat(64), "p-secret");
    drop(scene);
    let scene = Scene::new(Auth::Scram, roles, &[("deny", "[\"replication\"]")]);
    scene.comes_in("boss", "p-secret");
    scene.is_refused("copier", "p-secret");
}

#[test]
fn pg_072_nothing_of_a_clients_reaches_the_question() {
    // A query that says yes only where the path is empty, asked by one who could be tricked.
    let query = "\"SELECT a.rolname, a.rolpassword FROM pg_catalog.pg_authid a WHERE a.rolname = $1 \
                 AND current_setting('search_path') IN ('', '\\\"\\\"')\"";
    let settings = [
        ("query", query),
        ("user", &format!("{SUPERUSER:?}")),
        ("password", &format!("{{ value = {SUPERUSER_PASSWORD:?} }}")),
    ];
    let scene = Scene::new(Auth::Scram, "CREATE ROLE anna LOGIN PASSWORD 'anna-secret';", &settings);
    scene.comes_in("anna", "anna-secret");
    let mut script = python();
    script.arg("-c").arg(
        "import psycopg, sys\nwith psycopg.connect(sys.argv[1], options='-c search_path=evil') as conn:\n\
         \x20   print(conn.execute('SHOW search_path').fetchone()[0])",
    );
    let port = scene.proxy.address.port();
    script.arg(format!("host=127.0.0.1 port={port} user=anna dbname=app password=anna-secret sslmode=disable"));
    assert_eq!(run(script, "").quietly(), "evil\n");
}

/// The whole conversation of one who exists and of one who does not: the same but for the name, the nonce and the salt.
#[test]
fn pg_107_who_does_not_exist_is_asked_and_told_the_same() {
    // Not as many iterations as is usual, in every version.
    let secret = ScramSecret::derive(b"anna-secret", b"salt of 16 bytes", NonZeroU32::new(5000).unwrap());
    let [salt, stored, server] =
        [&secret.salt[..], &secret.stored_key, &secret.server_key].map(|key| STANDARD.encode(key));
    let scram = format!("CREATE ROLE anna LOGIN PASSWORD 'SCRAM-SHA-256$5000:{salt}${stored}:{server}';");
    let md5 = "SET password_encryption = 'md5'; CREATE ROLE anna LOGIN PASSWORD 'anna-secret';".to_owned();
    for (auth, roles) in [(Auth::Scram, scram), (Auth::Md5, md5)] {
        let scene = Scene::new(auth, &roles, &[]);
        scene.comes_in("anna", "anna-secret");
        let conversation = |user: &str| {
            let failed = Wire::connect(scene.proxy.address, &Login::new(user, "wrong-secret").database("app"));
            let frames = failed.err().unwrap().frames;
            let shown = |frame: &crate::harness::wire::Frame| {
                let text = String::from_utf8_lossy(&frame.body).replace(&format!("{user:?}"), "USER");
                // A challenge differs in nonce and salt alone, which are as long.
                let fields = text.split(',').map(|field| match field.split_once('=') {
                    Some((name, value)) if name.ends_with('r') || name == "s" => {
                        format!("{name}={} bytes", value.len())
                    }
                    _ => field.to_owned(),
                });
                let text = fields.collect::<Vec<_>>().join(",");
                let is_md5 = frame.kind == b'R' && frame.body.starts_with(b"\0\0\0\x05");
                (
                    frame.kind,
                    frame.body.len() - if frame.kind == b'E' { user.len() } else { 0 },
                    if is_md5 { String::new() } else { text },
                )
            };
            frames.iter().map(shown).collect::<Vec<_>>()
        };
        let known = conversation("anna");
        assert!(known.len() >= 2, "{known:?}");
        for _ in 0..2 {
            // None so short that it may stand in a nonce by chance.
            for ghost in ["nobody", "ginger", "a-much-longer-name"] {
                assert_eq!(conversation(ghost), known, "{ghost}");
            }
        }
        assert_eq!(conversation("anna"), known);
    }
}

/// What pg_hba.conf says of one client's database is no word about the keys that serve the others.
#[test]
fn one_client_that_may_not_come_from_there_takes_nobodys_keys() {
    let scene = Scene::new(Auth::Scram, "CREATE ROLE anna LOGIN PASSWORD 'anna-secret';", &[]);
    scene.server.run_sql("postgres", "CREATE DATABASE closed").unwrap();
    let file = scene.server.run_sql("postgres", "SHOW hba_file").unwrap();
    let old = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("host closed anna all reject\n{old}")).unwrap();
    scene.server.run_sql("postgres", "SELECT pg_reload_conf()").unwrap();
    let mut here = Wire::connect(scene.proxy.address, &Login::new("anna", "anna-secret").database("app")).unwrap();
    assert_eq!(here.value("SELECT current_user"), "anna");
    let login = Login::new("anna", "anna-secret").database("closed");
    let refused = Wire::connect(scene.proxy.address, &login).err().unwrap().to_string();
    assert!(refused.contains("28000"), "{refused}");
    let cut = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'anna'";
    scene.server.run_sql("app", cut).unwrap();
    assert_eq!(here.value("SELECT current_user"), "anna");
}

/// The keys that the proxy holds are stale, then: those who are here are told when they need a new connection, the database
/// is not stormed, and whoever logs in anew brings the new ones.
#[test]
fn pg_108_a_password_changed_while_clients_are_connected() {
    let scene = Scene::new(Auth::Scram, "CREATE ROLE anna LOGIN PASSWORD 'old-secret';", &[]);
    let login = || Login::new("anna", "old-secret").database("app");
    let mut here: Vec<_> = (0..5).map(|_| Wire::connect(scene.proxy.address, &login()).unwrap()).collect();
    for client in &mut here {
        assert_eq!(client.value("SELECT current_user"), "anna");
    }
    let cut = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'anna'";
    scene.server.run_sql("app", &format!("ALTER ROLE anna PASSWORD 'new-secret'; {cut}")).unwrap();
    for client in &mut here {
        let told = client.ask(&crate::harness::wire::query("SELECT 1"), 1);
        assert_eq!(told[0].field(b'C').as_deref(), Some("53300"), "{told:#?}");
    }
    let failures = |scene: &Scene| scene.server.log().matches("password authentication failed").count();
    assert!(failures(&scene) <= 2, "{}", scene.server.log());
    // The refusal at the database has made the proxy forget: the new password is good at once.
    scene.comes_in("anna", "new-secret");
    scene.is_refused("anna", "old-secret");
    for client in &mut here {
        assert_eq!(client.value("SELECT current_user"), "anna");
    }
    // Changed while nobody needed a connection: what is remembered is too old then, which one refusal finds out.
    scene.server.run_sql("app", "ALTER ROLE anna PASSWORD 'third-secret'").unwrap();
    let mut tries = 0;
    while !scene.psycopg("anna", "third-secret").status.success() {
        tries += 1;
        // Within a second of the last answer it is believed whatever comes.
        assert!(tries < 50);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    scene.is_refused("anna", "new-secret");
    assert!(failures(&scene) <= 4, "{}", scene.server.log());
}

#[test]
fn lookups_that_fail_are_said_and_hurt_nobody_else() {
    let settings = [("password", "{ value = \"wrong-secret\" }")];
    let scene = Scene::new(Auth::Scram, "CREATE ROLE anna LOGIN PASSWORD 'anna-secret';", &settings);
    for user in ["anna", "ghost"] {
        let refused = scene.psycopg(user, "anna-secret");
        assert!(refused.stderr.contains("users of target group \"it\" can't be looked up"), "{refused}");
    }
    scene.proxy.logs("the user can't be looked up (auth_query)");
    assert_eq!(scene.psycopg(APP, APP_PASSWORD).quietly(), "app\n");
    // With a query that does not fit, too.
    let settings = [("query", "\"SELECT 1, $1::text\"")];
    let scene = Scene::new(Auth::Scram, "CREATE ROLE anna LOGIN PASSWORD 'anna-secret';", &settings);
    let refused = scene.psycopg("anna", "anna-secret");
    assert!(refused.stderr.contains("can't be looked up"), "{refused}");
}
