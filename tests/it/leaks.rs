//! No secret is printed: not by any value's `Debug` form, and not in the log at its loudest, whatever way one logs in.
//! (The harness looks for the suite's secrets in the log, the metrics and the errors of every test.)

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use sluicegate::auth::{Authenticator, Keys, Rotating, make_token, password_key};
use sluicegate::config::{Config, Secret};
use sluicegate::demo::servers::{APP, APP_PASSWORD, Feature, Installation, MONITOR, Options, PostgresServer};
use sluicegate::protocol::{
    Answer, Challenge, ConnectOptions, Credentials, LoginSecret, Password, Proof, Protocol, Question, ScramKeys,
    ScramSecret,
};

use crate::auth_query::SETUP;
use crate::harness::programs::{python, run};
use crate::harness::proxy::{config, keeps_secrets, set, start_with};
use crate::tls::Ca;

const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// Every place of the configuration that takes a secret, filled.
fn everything(folder: &Path) -> String {
    fs::write(folder.join("file"), "file-secret").unwrap();
    let identities = folder.join("identities.toml");
    let text = format!(
        "[[identity]]\naccess_key_id = 'AKIAEXAMPLE'\nsecret_access_key = {{ value = '{SECRET_KEY}' }}\n\
         session_token = {{ value = 'session-secret' }}\n\
         [[identity.statement]]\neffect = 'Allow'\naction = '*'\nresource = '*'\n"
    );
    fs::write(&identities, text).unwrap();
    fs::set_permissions(&identities, PermissionsExt::from_mode(0o600)).unwrap();
    format!(
        "[[endpoint]]\nname = 'e'\nlisten = '127.0.0.1:6432'\ntarget_group = 'g'\ntls = 'off'\nhostnames = ['localhost']\n\
         [[target_group]]\nname = 'g'\nengine = 'postgres'\ntargets = ['db:5432']\n\
         [target_group.health]\nuser = 'm'\npassword = {{ env = 'MONITOR' }}\n\
         [target_group.auth_query]\nenabled = true\nuser = 'a'\npassword = {{ command = ['echo', 'command-secret'] }}\n\
         [[user]]\nname = 'u'\npassword = {{ value = 'value-secret' }}\n\
         [[user]]\nname = 'f'\nauth = ['iam-or-password']\npassword = {{ file = '{0}/file' }}\n\
         [[user]]\nname = 'i'\nauth = ['md5']\ndatabase_auth = 'iam'\npassword = {{ value = 'md5-secret' }}\n\
         [iam]\nregion = 'r'\naccount = '1'\nresource_id = 'p'\nidentities_file = '{0}/identities.toml'\n",
        folder.display()
    )
}

#[test]
fn no_debug_form_shows_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let env = |name: &str| match name {
        "MONITOR" => Some("env-secret".to_owned()),
        "AWS_ACCESS_KEY_ID" => Some("AKIAOURS".to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some(SECRET_KEY.to_owned()),
        "AWS_SESSION_TOKEN" => Some("aws-secret".to_owned()),
        _ => None,
    };
    let text = everything(folder.path()).replace("targets = ['db:5432']", "targets = ['db:5432']\ntls = 'verify-full'");
    let config = Config::parse(&text, "proxy.toml", &env).unwrap();
    let (iam, key) = (config.iam.as_ref(), config.access_key.as_ref());
    let authenticator = Authenticator::new(&config.users, &config.endpoints, iam, key).unwrap();
    let secret = Secret::new("a-secret".to_owned());
    let password = Password::new("b-secret");
    let keys = ScramKeys { client_key: *b"c-secret-c-secret-c-secret-c-sec", server_key: [b'd'; 32] };
    let scram = ScramSecret::derive(b"e-secret", b"f-secret", std::num::NonZeroU32::MIN);
    let signing = Keys {
        access_key_id: "AKIA".to_owned(),
        secret_access_key: secret.clone(),
        session_token: Some(secret.clone()),
    };
    let options = ConnectOptions {
        user: "u".to_owned(),
        database: "d".to_owned(),
        fixed: Vec::new(),
        secret: Some(LoginSecret::Password(password.clone())),
        tls: false,
        local_socket: false,
        nonce: [0; 18],
        max_prepared_statements: 1,
        statement_key: [0; 16],
        learned: std::sync::Arc::default(),
    };
    let proofs = [
        Proof::Scram(scram.clone()),
        Proof::Md5(*b"g-secretg-secretg-secretg-secret"),
        Proof::Password,
        Proof::Challenge(Challenge { password: Password::new("i-secret"), weaker: Some(true) }),
    ];
    let credentials = proofs.clone().map(|proof| Credentials { proof, known: true });
    let question = Question::Password { user: "u".to_owned(), password: password.clone() };
    let secrets = [
        LoginSecret::Password(password.clone()),
        LoginSecret::Scram(keys.clone()),
        LoginSecret::Md5(*b"h-secreth-secreth-secreth-secret"),
    ];
    let rotating = Rotating::new(secret.clone());
    let mut dump =
        format!("{config:#?}{authenticator:#?}{secret:#?}{secret}{password:#?}{keys:#?}{scram:#?}{signing:#?}");
    dump += &format!("{proofs:#?}{credentials:#?}{question:#?}{secrets:#?}{rotating:#?}{:#?}", options.secret);
    dump += &format!("{:#?}", Answer::Credentials(credentials[0].clone()));
    assert_eq!(format!("{:#?}", password_key().unwrap()), "PasswordKey(***)");
    // The bytes as numbers, too: a derived form prints an array so.
    let numbers = |text: &str| text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let flat = dump.split_whitespace().collect::<Vec<_>>().join(" ");
    keeps_secrets("a Debug form", &dump);
    for secret in ["secret", "-secret"] {
        assert!(!flat.contains(&numbers(secret)), "{flat}");
    }
    assert!(dump.contains("***") && dump.contains("AKIAEXAMPLE"));
    let mut machine = sluicegate::postgres::Postgres::connect(options);
    let _ = sluicegate::protocol::Handshake::step(&mut machine, b"R\0\0\0\x08\0\0\0\x03", &mut Vec::new());
}

/// At `trace`, where even the libraries below say what they do: every way to log in, here and at the database, and a reload.
#[test]
fn no_log_shows_a_secret_however_loud_it_is() {
    let installation = Installation::find(Feature::Any).unwrap();
    let server = PostgresServer::start(&installation, Options { ssl: true, ..Options::default() }).unwrap();
    server.run_sql("postgres", &format!("{SETUP} CREATE ROLE anna LOGIN PASSWORD 'anna-secret'")).unwrap();
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new());
    everything(folder.path());
    ca.signs("client", "certified");
    let file = |name: &str| format!("{:?}", server.socket_dir().join(name));
    for format in ["text", "json"] {
        // The certificate of the database has its name.
        let text = config(server.address(), 12).replace("targets = [\"127.0.0.1:", "targets = [\"localhost:");
        let text = set(&text, "endpoint", "tls", "\"optional\"");
        let text = set(&text, "endpoint", "hostnames", "[\"localhost\"]");
        let text = set(&text, "target_group", "tls", "\"verify-full\"");
        let text = set(&text, "target_group", "ca_file", &file("ca.crt"));
        let text = set(&text, "tls", "certificate", &file("server.crt"));
        let text = set(&text, "tls", "private_key", &file("server.key"));
        let text = set(&text, "tls", "client_ca", &format!("{:?}", ca.file("ca.pem")));
        let text = set(&text, "user", "auth", "[\"iam-or-password\"]");
        let text = set(&text, "log", "level", "\"trace\"");
        let text = set(&text, "log", "format", &format!("{format:?}"));
        let asks = "  [target_group.auth_query]\n  enabled = true\n  user = \"sluicegate_auth\"\n  \
                    password = { command = [\"echo\", \"lookup-secret\"], refresh = \"1s\" }\n\n[[user]]";
        let text = text.replacen("[[user]]", asks, 1);
        let more = format!(
            "\n[[user]]\nname = \"scram\"\ndatabase_user = \"{APP}\"\npassword = {{ value = \"{APP_PASSWORD}\" }}\n\
             [[user]]\nname = \"md5\"\nauth = [\"md5\"]\ndatabase_user = \"{APP}\"\npassword = {{ env = \"PASSWORD\" }}\n\
             [[user]]\nname = \"certified\"\nauth = [\"certificate\"]\ndatabase_user = \"{APP}\"\n\
             password = {{ command = [\"echo\", \"{APP_PASSWORD}\"] }}\n\
             [[user]]\nname = \"signs\"\ndatabase_user = \"{APP}\"\ndatabase_auth = \"iam\"\n\
             password = {{ value = \"{APP_PASSWORD}\" }}\n\
             [iam]\nregion = 'r'\naccount = '1'\nresource_id = 'p'\nidentities_file = '{}/identities.toml'\n",
            folder.path().display()
        );
        let environment = [
            ("PASSWORD", APP_PASSWORD),
            ("AWS_ACCESS_KEY_ID", "AKIAOURS"),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_SESSION_TOKEN", "session-secret"),
        ];
        let proxy = start_with(&format!("{text}{more}"), &environment);
        proxy.logs("the target is up");
        let port = proxy.address.port();
        let keys = Keys {
            access_key_id: "AKIAEXAMPLE".to_owned(),
            secret_access_key: Secret::new(SECRET_KEY.to_owned()),
            session_token: Some(Secret::new("session-secret".to_owned())),
        };
        let token = make_token(&keys, "localhost", port, APP, "r", SystemTime::now()).unwrap();
        let spoiled = token.replace("DBUser=app", "DBUser=apq");
        let logins = [
            (APP, token.as_str(), true),
            (APP, &spoiled, false),
            (APP, APP_PASSWORD, true),
            (APP, "wrong-secret", false),
            ("scram", APP_PASSWORD, true),
            ("scram", "wrong-secret", false),
            ("md5", APP_PASSWORD, true),
            ("md5", "wrong-secret", false),
            ("anna", "anna-secret", true),
            ("anna", "wrong-secret", false),
            ("certified", "", true),
            ("nobody", "wrong-secret", false),
            (MONITOR, "wrong-secret", false),
            // This database takes no tokens: it refuses what it is shown.
            ("signs", APP_PASSWORD, false),
        ];
        let log_in = || {
            let mut script = python();
            script.arg("-c").arg(
                "import psycopg, sys\n\
                 for user, password in zip(sys.argv[2::2], sys.argv[3::2]):\n\
                 \x20   try:\n\
                 \x20       with psycopg.connect(sys.argv[1], user=user, password=password) as conn:\n\
                 \x20           print(conn.execute('SELECT 1').fetchone()[0])\n\
                 \x20   except psycopg.OperationalError as error:\n\
                 \x20       print(error, file=sys.stderr)\n\
                 \x20       print('refused')\n",
            );
            let shown =
                format!("sslcert={} sslkey={}", ca.file("client.pem").display(), ca.file("client.key").display());
            script.arg(format!("host=localhost hostaddr=127.0.0.1 port={port} dbname=app sslmode=require {shown}"));
            script.args(logins.iter().flat_map(|(user, password, _)| [*user, *password]));
            let ended = run(script, "");
            let expected: String = logins.iter().map(|login| if login.2 { "1\n" } else { "refused\n" }).collect();
            assert_eq!(ended.stdout, expected, "{ended}");
        };
        log_in();
        proxy.reload(&format!("{text}{more}"));
        proxy.logs("reloaded");
        log_in();
        // The log was as loud as it gets; the harness reads it as the proxy ends.
        assert!(proxy.log().contains("TRACE"), "{}", proxy.log());
    }
}
