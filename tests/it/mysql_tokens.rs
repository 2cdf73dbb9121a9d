//! Signed tokens at a MySQL endpoint: by the command line, by PyMySQL with boto3, and those that let nobody in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use sluicegate::auth::{Keys, make_token};
use sluicegate::config::Secret;
use sluicegate::demo::servers::{APP, APP_PASSWORD, MONITOR, MONITOR_PASSWORD};

use crate::harness::mysql::wire::{MyLogin, MyWire};
use crate::harness::mysql::{Flavour, MyServer, database, server, servers};
use crate::harness::programs::{provisioned, python, run};
use crate::harness::proxy::{ProxyHandle, config, set, start, start_with};

const KEY_ID: &str = "AKIAEXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const REGION: &str = "eu-central-1";

/// A proxy with TLS before the server, whose user comes in with a token.
fn proxy(server: &MyServer, tls: &str) -> (ProxyHandle, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let identities = folder.path().join("identities.toml");
    let text = format!(
        "[[identity]]\naccess_key_id = '{KEY_ID}'\nsecret_access_key = {{ value = '{SECRET_KEY}' }}\n\
         [[identity.statement]]\neffect = 'Allow'\naction = 'rds-db:connect'\n\
         resource = 'arn:aws:rds-db:{REGION}:123456789012:dbuser:prx-1/{APP}'\n"
    );
    fs::write(&identities, text).unwrap();
    fs::set_permissions(&identities, PermissionsExt::from_mode(0o600)).unwrap();
    let file = |name: &str| format!("{:?}", server.folder().join(name));
    let text = config(server.address(), 6).replace("\"postgres\"", "\"mysql\"");
    let text = set(&text, "endpoint", "tls", &format!("{tls:?}"));
    let text = set(&text, "endpoint", "hostnames", "[\"localhost\"]");
    let text = set(&text, "tls", "certificate", &file("server.crt"));
    let text = set(&text, "tls", "private_key", &file("server.key"));
    let text = set(&text, "user", "auth", "[\"iam\"]");
    let iam = format!(
        "\n[iam]\nregion = '{REGION}'\naccount = '123456789012'\nresource_id = 'prx-1'\nidentities_file = '{}'\n",
        identities.display()
    );
    let monitor = format!("\n[[user]]\nname = '{MONITOR}'\npassword = {{ value = '{MONITOR_PASSWORD}' }}\n");
    (start(&format!("{text}{iam}{monitor}")), folder)
}

fn token(secret: &str, host: &str, port: u16, user: &str, made: SystemTime) -> String {
    let keys = Keys {
        access_key_id: KEY_ID.to_owned(),
        secret_access_key: Secret::new(secret.to_owned()),
        session_token: None,
    };
    make_token(&keys, host, port, user, REGION, made).unwrap()
}

/// Scenario 34.
#[test]
fn my_034_tokens() {
    for server in servers() {
        let name = database(server, &format!("my_034_{:?}", server.flavour()).to_lowercase(), &[""; 0]);
        let (proxy, _folder) = proxy(server, "optional");
        let (port, now) = (proxy.address.port(), SystemTime::now());
        let good = token(SECRET_KEY, "localhost", port, APP, now);
        let login = |token: &str| MyLogin::new(APP, token).database(&name);
        let mut wire = MyWire::connect(proxy.address, &login(&good).tls(&server.ca_file())).unwrap();
        assert_eq!(wire.value("SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)"), APP);
        // Not even asked for without TLS.
        let error = MyWire::connect(proxy.address, &login(&good)).err().unwrap();
        assert_eq!(error.code, 3159, "{error}");
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (wrong, reason) in [
            (token(SECRET_KEY, "localhost", port, APP, now - minutes(16)), "the token has expired"),
            (token(SECRET_KEY, "localhost", port, APP, now + minutes(6)), "ahead of this machine's clock"),
            (token(SECRET_KEY, "elsewhere", port, APP, now), "not in `hostnames`"),
            (token(SECRET_KEY, "localhost", port, "root", now), "DBUser is not the user"),
            (token("another-secret", "localhost", port, APP, now), "signature does not fit"),
            (APP_PASSWORD.to_owned(), "a password was given where a token is needed"),
        ] {
            let error = MyWire::connect(proxy.address, &login(&wrong).tls(&server.ca_file())).err().unwrap();
            assert_eq!((error.code, error.state.as_str()), (1045, "28000"), "{reason}");
            proxy.logs(reason);
        }
        let unknown = MyLogin::new("nobody", &good).tls(&server.ca_file());
        assert_eq!(MyWire::connect(proxy.address, &unknown).err().unwrap().code, 1045);
    }
}

/// Scenario 35: a second proxy plays the database that takes tokens, and makes all checks.
#[test]
fn my_035_tokens_of_our_own_at_databases() {
    for server in servers() {
        let name = database(server, &format!("my_035_{:?}", server.flavour()).to_lowercase(), &[""; 0]);
        let (stand_in, _folder) = proxy(server, "required");
        let text = config(stand_in.address, 6).replace("\"postgres\"", "\"mysql\"");
        let text = set(&text, "target_group", "targets", &format!("[\"localhost:{}\"]", stand_in.address.port()));
        let text = set(&text, "target_group", "tls", "\"verify-full\"");
        let text = set(&text, "target_group", "ca_file", &format!("{:?}", server.ca_file()));
        let text = set(&text, "user", "database_auth", "\"iam\"");
        let keys = |secret| [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_REGION", REGION)];
        let login = MyLogin::new(APP, APP_PASSWORD).database(&name);
        {
            let front = start_with(&text, &keys(SECRET_KEY));
            // One for each connection.
            let mut wires = [(); 3].map(|()| MyWire::connect(front.address, &login).unwrap());
            for wire in &mut wires {
                wire.query("BEGIN");
                assert_eq!(wire.value("SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)"), APP);
            }
            stand_in.until_logs("logged in", 3);
            let log = stand_in.log();
            let is_login = |line: &&str| line.contains("logged in") && line.contains(&format!("user=\"{APP}\""));
            assert_eq!(log.lines().filter(is_login).count(), 3, "{log}");
        }
        // With another key the database lets nobody in; the client learns no more than that.
        let front = start_with(&text, &keys("another-secret"));
        assert_eq!(MyWire::connect(front.address, &login).err().unwrap().code, 9501);
        stand_in.logs("signature does not fit");
    }
}

#[test]
fn tokens_by_the_command_line_and_by_boto3() {
    let server = server(Flavour::MySql);
    let name = database(server, "my_tokens", &[""; 0]);
    let (proxy, folder) = proxy(server, "required");
    let port = proxy.address.port();
    let mut mysql = Command::new("chroot");
    mysql.args([provisioned("MYSQL_CHROOT"), provisioned("MYSQL_CLIENT")]);
    mysql.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    mysql.env("MYSQL_PWD", token(SECRET_KEY, "localhost", port, APP, SystemTime::now()));
    mysql.args(["--no-defaults", "--protocol=tcp", "--host=localhost", "--port", &port.to_string(), "--user", APP]);
    mysql.args(["--enable-cleartext-plugin", "--ssl-mode=REQUIRED", "--silent", "--skip-column-names", &name]);
    assert_eq!(run(mysql, "SELECT 'in';").quietly(), "in\n");
    let mut boto = python();
    boto.arg("-c").arg(
        "import boto3, pymysql, sys\n\
         port, ca, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]\n\
         rds = boto3.client('rds', region_name='eu-central-1')\n\
         token = rds.generate_db_auth_token(DBHostname='localhost', Port=port, DBUsername='app')\n\
         for _ in range(3):\n\
         \x20   with pymysql.connect(host='localhost', port=port, user='app', database=name, password=token, ssl_ca=ca) as conn:\n\
         \x20       cursor = conn.cursor()\n\
         \x20       cursor.execute('SELECT 1')\n\
         \x20       print(*cursor.fetchone())\n",
    );
    boto.arg(port.to_string()).arg(server.ca_file()).arg(&name);
    boto.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY).env("HOME", folder.path());
    assert_eq!(run(boto, "").quietly(), "1\n1\n1\n");
}
