//! sysbench, as it comes, before both servers.

use std::process::Command;

use crate::harness::mysql::beside::my_config;
use crate::harness::mysql::{database, servers};
use crate::harness::programs::{provisioned, run};
use crate::harness::proxy::start;
use sluicegate::demo::servers::{APP, APP_PASSWORD};

/// Many threads on few connections, transactions among them, with prepared statements and without: no error, no pin.
#[test]
fn sysbench() {
    for server in servers() {
        let name = database(server, &format!("my_sysbench_{:?}", server.flavour()).to_lowercase(), &[""; 0]);
        let proxy = start(&my_config(server, 10));
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
