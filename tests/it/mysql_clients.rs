//! Real clients of MySQL's through the proxy: the same work as directly, and what came out compared.

use std::net::SocketAddr;
use std::process::Command;

use crate::harness::forward::Forwarder;
use crate::harness::mysql::{Flavour, MyServer, database, servers};
use crate::harness::programs::{java_mariadb, node, provisioned, python_file, run};
use crate::harness::proxy::{config, start};
use sluicegate::demo::servers::{APP, APP_PASSWORD};

/// What a client program is told of where to go.
fn reach(command: &mut Command, address: SocketAddr, name: &str) {
    command.args(["127.0.0.1", &address.port().to_string(), APP, APP_PASSWORD, name]);
}

/// Runs the program directly and through a proxy, against both servers; what it prints must be the same. `compressed`: it must speak
/// the compressed protocol with the proxy, and otherwise not.
fn same(what: &str, compressed: bool, program: impl Fn(SocketAddr, &str, &MyServer) -> (Command, String)) {
    for server in servers() {
        let name = database(server, &format!("my_clients_{what}_{:?}", server.flavour()).to_lowercase(), &[""; 0]);
        let proxy = start(&config(server.address(), 5).replace("\"postgres\"", "\"mysql\""));
        let between = Forwarder::recording(proxy.address);
        let [direct, proxied] = [server.address(), between.address].map(|address| {
            let (command, input) = program(address, &name, server);
            run(command, &input).quietly()
        });
        assert!(direct.lines().count() >= 5, "{direct}");
        assert_eq!(proxied, direct, "{what}, {:?}", server.flavour());
        for told in between.recorded() {
            assert_eq!(has_frames(&told), compressed, "{what}, {:?}", server.flavour());
        }
        assert_eq!(proxy.metric("sluicegate_disagreements_total"), 0.0);
        assert_eq!(proxy.metric("sluicegate_errors_total"), 0.0);
    }
}

/// Behind the OK of the login everything is frames.
fn has_frames(mut told: &[u8]) -> bool {
    let mut is_in = false;
    while let [a, b, c, number, first, ..] = *told {
        let head = if is_in { 7 } else { 4 };
        let Some(rest) = told.get(head + u32::from_le_bytes([a, b, c, 0]) as usize..) else { return false };
        is_in |= number > 1 && first == 0;
        told = rest;
    }
    is_in && told.is_empty()
}

fn python(what: &str, driver: &str) {
    python_with(what, driver, false);
}

fn python_with(what: &str, driver: &str, compressed: bool) {
    same(what, compressed, |address, name, _| {
        let mut command = python_file("small_mysql.py");
        if compressed {
            command.env("COMPRESSED", "1");
        }
        command.arg(driver);
        reach(&mut command, address, name);
        (command, String::new())
    });
}

#[test]
fn pymysql() {
    python("pymysql", "pymysql");
}

#[test]
fn mysqlclient() {
    python("mysqlclient", "MySQLdb");
}

#[test]
fn mysql_connector_python() {
    python("connector", "mysql.connector");
}

#[test]
fn python_drivers_with_compression() {
    python_with("mysqlclient_zlib", "MySQLdb", true);
    python_with("connector_zlib", "mysql.connector", true);
}

#[test]
fn mysql2() {
    for compressed in ["", "1"] {
        same(&format!("mysql2_{compressed}"), !compressed.is_empty(), |address, name, _| {
            let mut command = node("small_mysql2.js");
            command.env("COMPRESSED", compressed);
            reach(&mut command, address, name);
            (command, String::new())
        });
    }
}

fn connector_j(what: &str, options: &str) {
    same(what, options.contains("useCompression"), |address, name, _| {
        let mut command = java_mariadb("Small.java");
        let port = address.port();
        command.arg(format!(
            "jdbc:mariadb://127.0.0.1:{port}/{name}?user={APP}&password={APP_PASSWORD}&allowPublicKeyRetrieval=true&{options}"
        ));
        (command, String::new())
    });
}

#[test]
fn mariadb_connector_j() {
    connector_j("connector_j", "useServerPrepStmts=false");
}

#[test]
fn mariadb_connector_j_with_prepared_statements() {
    connector_j("connector_j_ps", "useServerPrepStmts=true");
}

#[test]
fn mariadb_connector_j_with_compression() {
    connector_j("connector_j_zlib", "useServerPrepStmts=false&useCompression=true");
    connector_j("connector_j_ps_zlib", "useServerPrepStmts=true&useCompression=true");
}

/// Many threads on few connections, transactions among them, with prepared statements and without: no error, no pin.
#[test]
fn sysbench() {
    for server in servers() {
        let name = database(server, &format!("my_sysbench_{:?}", server.flavour()).to_lowercase(), &[""; 0]);
        let proxy = start(&config(server.address(), 10).replace("\"postgres\"", "\"mysql\""));
        let bench = |work: &str, what: &[&str]| {
            let mut command = Command::new(provisioned("SYSBENCH"));
            command.env_clear().env("PATH", "/usr/bin:/bin").arg(work);
            command.args(["--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-ssl=off"]);
            command.arg(format!("--mysql-port={}", proxy.address.port()));
            command.args([format!("--mysql-user={APP}"), format!("--mysql-password={APP_PASSWORD}")]);
            command.arg(format!("--mysql-db={name}"));
            command.args(["--tables=2", "--table-size=1000"]).args(what);
            let ended = run(command, "");
            assert!(ended.status.success(), "{ended}");
            ended.stdout
        };
        bench("oltp_read_write", &["--threads=1", "prepare"]);
        let pins = proxy.metric("sluicegate_pins_total");
        let ways = ["oltp_point_select", "oltp_read_write"].map(|work| ["disable", "auto"].map(|mode| (work, mode)));
        for (work, mode) in ways.into_iter().flatten() {
            let mode = format!("--db-ps-mode={mode}");
            let said = bench(work, &["--threads=64", "--time=0", "--events=2000", &mode, "run"]);
            // Deadlocks are the database's.
            assert!(work != "oltp_point_select" || said.contains("ignored errors:                      0"), "{said}");
            assert!(said.contains("reconnects:                          0"), "{said}");
            assert!(said.contains("total number of events:              2000"), "{said}");
        }
        assert_eq!(proxy.metric("sluicegate_pins_total"), pins, "{:?}", server.flavour());
        assert_eq!(proxy.metric("sluicegate_errors_total"), 0.0);
    }
}

/// Each server's own command line.
#[test]
fn command_lines() {
    command_line("command_line", [&[], &[]]);
}

/// The same with compression: options of MySQL's, and of MariaDB's, which has zlib alone.
#[test]
fn command_lines_with_compression() {
    command_line("command_line_zlib", [&["--compression-algorithms=zlib"], &["--compress"]]);
    command_line("command_line_zstd", [&["--compression-algorithms=zstd"], &["--compress"]]);
    command_line("command_line_any", [&["--compression-algorithms=zstd,zlib"], &["--compress"]]);
}

fn command_line(what: &str, options: [&[&str]; 2]) {
    const INPUT: &str = "CREATE TABLE IF NOT EXISTS t (i int AUTO_INCREMENT PRIMARY KEY, v text);\n\
         DELETE FROM t; ALTER TABLE t AUTO_INCREMENT = 1;\n\
         INSERT INTO t (v) VALUES ('one'), (NULL), ('drei \\' ü');\nSELECT * FROM t;\nSHOW TABLES;\nSELECT DATABASE(), USER() IS NOT NULL;\n\
         BEGIN; DELETE FROM t; ROLLBACK; SELECT COUNT(*) FROM t;\nUPDATE t SET v = 'x'; SELECT ROW_COUNT();\nSTATUS-IS-NO-COMMAND;\n\
         SELECT LAST_INSERT_ID();\n";
    same(what, !options[0].is_empty(), |address, name, server| {
        let mut command = match server.flavour() {
            Flavour::MySql => {
                let mut command = Command::new("chroot");
                command.args([provisioned("MYSQL_CHROOT"), provisioned("MYSQL_CLIENT")]);
                command
            }
            Flavour::MariaDb => Command::new(provisioned("MARIADB_CLIENT")),
        };
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("MYSQL_PWD", APP_PASSWORD);
        command.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--force", "--table"]);
        command.args(["--user", APP, "--port", &address.port().to_string(), "--database", name]);
        let no_tls = if server.flavour() == Flavour::MySql { "--get-server-public-key" } else { "--skip-ssl" };
        command.args([no_tls, "--silent"]);
        command.args(options[usize::from(server.flavour() == Flavour::MariaDb)]);
        // The one error goes where the rest goes.
        let mut shell = Command::new("sh");
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into())
            .collect();
        shell.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("MYSQL_PWD", APP_PASSWORD);
        shell.args(["-c", "exec \"$@\" 2>&1", "sh"]).args(words);
        (shell, INPUT.to_owned())
    });
}
