//! Who comes in with a signed token, whoever made it, and who does not: the same words for all of them, and the reason
//! in the log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use sluicegate::auth::{Keys, make_token};
use sluicegate::config::Secret;
use sluicegate::demo::servers::{APP, APP_PASSWORD, Feature, Installation, Options, PostgresServer};

use crate::harness::programs::{Ended, java, python, run, run_for_secrets};
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::wire::{Login, Wire};

const KEY_ID: &str = "AKIAEXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const REGION: &str = "eu-central-1";
const REFUSED: &str = "IAM authentication failed for user \"app\"";
const WRONG_PASSWORD: &str = "password authentication failed for user \"app\"";

/// A server with TLS and a proxy whose user proves itself this way, at an endpoint with this `tls`.
struct Scene {
    server: PostgresServer,
    proxy: ProxyHandle,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(auth: &str, tls: &str) -> Self {
        let installation = Installation::find(Feature::Any).unwrap();
        let server = PostgresServer::start(&installation, Options { ssl: true, ..Options::default() }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let identities = folder.path().join("identities.toml");
        let resource = |user: &str| format!("arn:aws:rds-db:{REGION}:123456789012:dbuser:prx-1/{user}");
        let text = format!(
            "[[identity]]\naccess_key_id = '{KEY_ID}'\nsecret_access_key = {{ value = '{SECRET_KEY}' }}\n\
             [[identity.statement]]\neffect = 'Allow'\naction = 'rds-db:connect'\nresource = '{}'\n\
             [[identity]]\naccess_key_id = 'AKIATEMPORARY'\nsecret_access_key = {{ value = '{SECRET_KEY}' }}\n\
             session_token = {{ value = '{}' }}\n\
             [[identity.statement]]\neffect = 'Allow'\naction = 'rds-db:connect'\nresource = '*'\n\
             [[identity]]\naccess_key_id = 'AKIADENIED'\nsecret_access_key = {{ value = '{SECRET_KEY}' }}\n\
             [[identity.statement]]\neffect = 'Allow'\naction = '*'\nresource = '*'\n\
             [[identity.statement]]\neffect = 'Deny'\naction = 'rds-db:connect'\nresource = '{}'\n",
            resource("*"),
            "Ab1/".repeat(5_000),
            resource("a?p"),
        );
        fs::write(&identities, text).unwrap();
        fs::set_permissions(&identities, PermissionsExt::from_mode(0o600)).unwrap();
        let file = |name: &str| format!("{:?}", server.socket_dir().join(name));
        let text = set(&config(server.address(), 6), "endpoint", "tls", &format!("{tls:?}"));
        let listen = format!("[\"127.0.0.1:{{port}}\", \"unix:{}/.s.PGSQL.{{port}}\"]", folder.path().display());
        let text = set(&text, "endpoint", "listen", &listen);
        let text = set(&text, "endpoint", "hostnames", "[\"LocalHost\", \"127.0.0.1\", \"orders.internal:5432\"]");
        let text = set(&text, "tls", "certificate", &file("server.crt"));
        let text = set(&text, "tls", "private_key", &file("server.key"));
        let text = set(&text, "user", "auth", &format!("[{auth:?}]"));
        let iam = format!(
            "\n[iam]\nregion = '{REGION}'\naccount = '123456789012'\nresource_id = 'prx-1'\nidentities_file = '{}'\n",
            identities.display()
        );
        // Port 0 would be the hostnames' port: the harness has chosen one.
        let proxy = start(&format!("{text}{iam}"));
        Self { server, proxy, folder }
    }

    fn port(&self) -> u16 {
        self.proxy.address.port()
    }

    fn token(&self) -> String {
        make_token(&keys(KEY_ID, SECRET_KEY), "localhost", self.port(), APP, REGION, SystemTime::now()).unwrap()
    }

    fn psql(&self, user: &str, password: &str, more: &str) -> Ended {
        let mut psql = self.server.installation().program("psql");
        psql.args(["--no-psqlrc", "-At", "--command", "SELECT current_user", "--dbname"]);
        psql.arg(format!("host=localhost hostaddr=127.0.0.1 port={} user={user} dbname=app {more}", self.port()));
        psql.env("PGPASSWORD", password);
        run(psql, "")
    }

    fn verified(&self) -> String {
        format!("sslmode=verify-full sslrootcert={}", self.ca().display())
    }

    fn ca(&self) -> PathBuf {
        // Where a client that runs as somebody else, in a root of its own, can read it.
        self.server.socket_dir().join("ca.crt")
    }
}

fn keys(id: &str, key: &str) -> Keys {
    Keys { access_key_id: id.to_owned(), secret_access_key: Secret::new(key.to_owned()), session_token: None }
}

#[test]
fn tokens_of_every_signer() {
    let scene = Scene::new("iam", "required");
    // Our own.
    let mut ours = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    ours.args(["token", "--host", "localhost", "--port", &scene.port().to_string(), "--user", APP, "--region", REGION]);
    ours.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY).env_remove("AWS_SESSION_TOKEN");
    let token = run_for_secrets(ours, "").quietly();
    assert_eq!(scene.psql(APP, token.trim_end(), &scene.verified()).quietly(), "app\n");
    // aws-cli's.
    let mut aws = python();
    aws.args(["-m", "awscli", "rds", "generate-db-auth-token", "--hostname", "localhost", "--username", APP]);
    aws.args(["--region", REGION, "--port", &scene.port().to_string()]);
    aws.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY).env("HOME", scene.folder.path());
    let token = run_for_secrets(aws, "").quietly();
    assert_eq!(scene.psql(APP, token.trim_end(), &scene.verified()).quietly(), "app\n");
    // boto3's, by psycopg.
    let mut boto = python();
    boto.arg("-c").arg(
        "import boto3, os, psycopg, sys\n\
         port, ca = int(sys.argv[1]), sys.argv[2]\n\
         rds = boto3.client('rds', region_name='eu-central-1')\n\
         token = rds.generate_db_auth_token(DBHostname='LOCALHOST', Port=port, DBUsername='app')\n\
         for _ in range(3):\n\
         \x20   with psycopg.connect(host='localhost', port=port, user='app', dbname='app', password=token,\n\
         \x20                        sslmode='verify-full', sslrootcert=ca) as conn:\n\
         \x20       print(*conn.execute('SELECT current_user').fetchone())\n",
    );
    boto.arg(scene.port().to_string()).arg(scene.ca());
    boto.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY).env("HOME", scene.folder.path());
    assert_eq!(run(boto, "").quietly(), "app\napp\napp\n");
}

/// The lines of the README as they stand there.
#[test]
fn the_readmes_commands() {
    let scene = Scene::new("iam", "required");
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let commands: Vec<&str> =
        readme.split("PGPASSWORD=\"$(").skip(1).map(|rest| rest.split("\n\n").next().unwrap()).collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    let words = |command: &Command| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| format!("'{}'", word.display())).collect::<Vec<_>>().join(" ")
    };
    let (python, psql) = (words(&python()), words(&scene.server.installation().program("psql")));
    for command in commands {
        let command = command.split("```").next().unwrap().replace("6432", &scene.port().to_string());
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!(
            "sluicegate() {{ '{}' \"$@\"; }}; aws() {{ {python} -m awscli \"$@\"; }}; python3() {{ {python} \"$@\"; }}\n\
             psql() {{ {psql} \"$@\"; }}\nPGPASSWORD=\"$({command}",
            env!("CARGO_BIN_EXE_sluicegate")
        ));
        shell
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("HOME", scene.folder.path());
        shell.env_remove("AWS_SESSION_TOKEN").env("PYTHONDONTWRITEBYTECODE", "1").env("PGDATABASE", "app");
        let ended = run(shell, "SELECT 'I am ' || current_user;\n");
        assert!(ended.stdout.contains("I am app"), "{ended}");
    }
}

/// What boto3 signs, character for character, is what we sign: of awkward users and security tokens, too.
#[test]
fn the_same_tokens_as_boto3() {
    let (host, session) = ("db.example.us-east-1.rds.amazonaws.com", "tok/en+with=chars");
    for user in ["app user+x@y", "a/b?c=d&e%20f", "J\u{f6}rg", "~-_.*'()"] {
        let mut boto = python();
        boto.arg("-c").arg(
            "import boto3, sys\n\
             rds = boto3.client('rds', region_name='us-east-1')\n\
             print(rds.generate_db_auth_token(DBHostname=sys.argv[1], Port=5432, DBUsername=sys.argv[2]))",
        );
        boto.args([host, user]).env("HOME", "/nowhere").env("AWS_ACCESS_KEY_ID", KEY_ID);
        boto.env("AWS_SECRET_ACCESS_KEY", SECRET_KEY).env("AWS_SESSION_TOKEN", session);
        let theirs = run_for_secrets(boto, "").quietly();
        let sorted = |token: &str| {
            let (address, query) = token.trim_end().split_once("/?").unwrap();
            let mut pairs: Vec<String> = query.split('&').map(str::to_owned).collect();
            pairs.sort();
            (address.to_owned(), pairs)
        };
        let keys = Keys { session_token: Some(Secret::new(session.to_owned())), ..keys(KEY_ID, SECRET_KEY) };
        let now = SystemTime::now();
        // Made a moment ago: one of these seconds is its own.
        let ours = (0..120).map(|ago| now - Duration::from_secs(ago));
        let ours = ours.filter_map(|made| make_token(&keys, host, 5432, user, "us-east-1", made));
        let theirs = sorted(&theirs);
        assert!(ours.map(|token| sorted(&token)).any(|ours| ours == theirs), "{theirs:?}");
    }
}

/// Temporary keys bring a security token that can be very long.
#[test]
fn a_token_of_tens_of_kilobytes() {
    let scene = Scene::new("iam", "required");
    let session = "Ab1/".repeat(5_000);
    let keys = Keys { session_token: Some(Secret::new(session.clone())), ..keys("AKIATEMPORARY", SECRET_KEY) };
    let token = make_token(&keys, "localhost", scene.port(), APP, REGION, SystemTime::now()).unwrap();
    assert!((30_000..64_000).contains(&token.len()), "{}", token.len());
    let login = |token: &str| {
        let mut script = python();
        script.arg("-c").arg(
            "import psycopg, sys\n\
             with psycopg.connect(sys.argv[1], password=sys.stdin.read()) as conn:\n\
             \x20   print(conn.execute('SELECT current_user').fetchone()[0])",
        );
        script.arg(format!(
            "host=localhost hostaddr=127.0.0.1 port={} user={APP} dbname=app {}",
            scene.port(),
            scene.verified()
        ));
        run(script, token)
    };
    assert_eq!(login(&token).quietly(), "app\n");
    let refused = login(&token.replacen("Ab1", "Ab2", 1));
    assert!(refused.stderr.contains(REFUSED), "{refused}");
    scene.proxy.logs("X-Amz-Security-Token is not the session_token");
    // One byte too many for PostgreSQL's limit is no login at all.
    let refused = login(&format!("{token}{}", "x".repeat((64 << 10) + 1 - token.len())));
    assert!(!refused.status.success(), "{refused}");
}

#[test]
fn tokens_by_jdbc() {
    let scene = Scene::new("iam", "optional");
    let login = |token: &str, tls: &str| {
        let mut program = java("Login.java");
        program.arg(format!("jdbc:postgresql://localhost:{}/app?{tls}", scene.port())).args([APP, token]);
        run(program, "").quietly()
    };
    let verified = format!("sslmode=verify-full&sslrootcert={}", scene.ca().display());
    assert_eq!(login(&scene.token(), &verified), "app\n");
    let sdk = |arguments: &[&str]| {
        let mut sdk = python();
        sdk.args(arguments).env("HOME", scene.folder.path());
        sdk.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        run_for_secrets(sdk, "").quietly().trim_end().to_owned()
    };
    let port = scene.port().to_string();
    let boto = "import boto3, sys; print(boto3.client('rds', region_name='eu-central-1').generate_db_auth_token('localhost', int(sys.argv[1]), 'app'))";
    assert_eq!(login(&sdk(&["-c", boto, &port]), &verified), "app\n");
    let aws = ["-m", "awscli", "rds", "generate-db-auth-token", "--hostname", "localhost", "--username", APP];
    assert_eq!(login(&sdk(&[&aws[..], &["--region", REGION, "--port", &port]].concat()), &verified), "app\n");
    let refused = login(&scene.token().replace("DBUser=app", "DBUser=apq"), &verified);
    assert_eq!(refused.trim_end(), format!("28000 FATAL: {REFUSED}"));
    let refused = login(&scene.token(), "sslmode=disable");
    assert!(refused.starts_with("28000") && refused.contains("this login needs TLS"), "{refused}");
}

/// It is as good as TLS, also where TCP must have that.
#[test]
fn tokens_on_a_unix_socket() {
    let scene = Scene::new("iam", "required");
    let mut script = python();
    script.arg("-c").arg(
        "import psycopg, sys\nwith psycopg.connect(sys.argv[1], password=sys.argv[2]) as conn:\n\
         \x20   print(conn.execute('SELECT 1').fetchone()[0])",
    );
    script.arg(format!("host={} port={} user={APP} dbname=app", scene.folder.path().display(), scene.port()));
    script.arg(scene.token());
    assert_eq!(run(script, "").quietly(), "1\n");
}

#[test]
fn tokens_are_not_even_asked_for_without_tls() {
    let scene = Scene::new("iam", "optional");
    let refused = scene.psql(APP, &scene.token(), "sslmode=disable").stderr;
    assert!(refused.contains("this login needs TLS"), "{refused}");
    // Nobody was asked for anything.
    let refused = Wire::connect(scene.proxy.address, &Login::app().database("app")).err().unwrap().to_string();
    assert!(refused.contains("this login needs TLS"), "{refused}");
    assert_eq!(scene.psql(APP, &scene.token(), "sslmode=require").quietly(), "app\n");
    // Where TLS is required, the endpoint's own words come first.
    let strict = Scene::new("iam", "required");
    let refused = strict.psql(APP, &strict.token(), "sslmode=disable").stderr;
    assert!(refused.contains("this endpoint requires TLS"), "{refused}");
}

#[test]
fn every_refusal_has_the_same_words_and_its_own_reason() {
    let scene = Scene::new("iam", "required");
    let (port, now) = (scene.port(), SystemTime::now());
    let token = |id: &str, key: &str, host: &str, port: u16, user: &str, region: &str, now: SystemTime| {
        make_token(&keys(id, key), host, port, user, region, now).unwrap()
    };
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let good = scene.token();
    let cases = [
        (token(KEY_ID, SECRET_KEY, "localhost", port, APP, REGION, now - minutes(16)), "the token has expired"),
        (token(KEY_ID, SECRET_KEY, "localhost", port, APP, REGION, now + minutes(6)), "ahead of this machine's clock"),
        (token(KEY_ID, SECRET_KEY, "localhost", port, "root", REGION, now), "DBUser is not the user"),
        (token(KEY_ID, SECRET_KEY, "elsewhere", port, APP, REGION, now), "not in `hostnames`"),
        (token(KEY_ID, SECRET_KEY, "orders.internal", port, APP, REGION, now), "not in `hostnames`"),
        (token(KEY_ID, SECRET_KEY, "localhost", port, APP, "us-east-1", now), "another region"),
        (token("AKIAUNKNOWN", SECRET_KEY, "localhost", port, APP, REGION, now), "not in identities_file"),
        (token("AKIADENIED", SECRET_KEY, "localhost", port, APP, REGION, now), "denies rds-db:connect"),
        (token(KEY_ID, "another-secret", "localhost", port, APP, REGION, now), "signature does not fit"),
        (good.replace("Action=connect", "Action=Connect"), "Action is not connect"),
        (format!("{good}&X-Amz-Extra=1"), "does not belong there"),
        ("hunter2-secret".to_owned(), "a password was given where a token is needed"),
        (APP_PASSWORD.to_owned(), "a password was given where a token is needed"),
    ];
    for (token, reason) in cases {
        let refused = scene.psql(APP, &token, &scene.verified());
        assert!(refused.stderr.contains(REFUSED) && !refused.stderr.contains(reason), "{refused}");
        scene.proxy.logs(reason);
    }
    // One that does not exist is asked, and refused, in the same way.
    let unknown = scene.psql("nobody", &good, &scene.verified());
    assert!(unknown.stderr.contains("IAM authentication failed for user \"nobody\""), "{unknown}");
    // For another port it is another token.
    let other = token(KEY_ID, SECRET_KEY, "orders.internal", 5432, APP, REGION, now);
    assert_eq!(scene.psql(APP, &other, &scene.verified()).quietly(), "app\n");
    assert_eq!(scene.psql(APP, &good, &scene.verified()).quietly(), "app\n");
    // Nothing of a key or a token is in the log.
    let log = scene.proxy.log();
    let signature = good.rsplit_once("X-Amz-Signature=").unwrap().1;
    for hidden in [SECRET_KEY, signature, "X-Amz-", "hunter2-secret"] {
        assert!(!log.contains(hidden), "{hidden} is in {log}");
    }
}

#[test]
fn tokens_or_passwords() {
    let scene = Scene::new("iam-or-password", "required");
    assert_eq!(scene.psql(APP, &scene.token(), &scene.verified()).quietly(), "app\n");
    assert_eq!(scene.psql(APP, APP_PASSWORD, &scene.verified()).quietly(), "app\n");
    for (password, words) in [
        ("wrong-secret", WRONG_PASSWORD),
        (&format!("{APP_PASSWORD} "), WRONG_PASSWORD),
        (&scene.token().replace("Expires=900", "Expires=901"), REFUSED),
    ] {
        let refused = scene.psql(APP, password, &scene.verified());
        assert!(refused.stderr.contains(words), "{refused}");
    }
}

#[test]
fn md5_logins() {
    let scene = Scene::new("md5", "optional");
    assert_eq!(scene.psql(APP, APP_PASSWORD, "sslmode=disable").quietly(), "app\n");
    assert_eq!(scene.psql(APP, APP_PASSWORD, &scene.verified()).quietly(), "app\n");
    for user in [APP, "nobody"] {
        let refused = scene.psql(user, "wrong-secret", "sslmode=disable");
        assert!(refused.stderr.contains("password authentication failed for user"), "{refused}");
    }
}
