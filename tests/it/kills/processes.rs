//! Real programs, killed with SIGKILL in the middle of what they do.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use sluicegate::demo::servers::APP;

use super::{Scene, wait_for_rows};
use crate::harness::levels::Levels;
use crate::harness::programs::conninfo;
use crate::harness::wire::{Wire, below};

/// Starts programs and kills them; how many clients that were.
pub(super) type Process = fn(&Scene<'_>, &mut u64) -> usize;

pub(super) const PROCESSES: [(&str, Process); 7] = [
    ("psql, idle", |scene, _| psql(scene, "SELECT 1;", "")),
    ("psql, in a transaction", |scene, _| psql(scene, "BEGIN; INSERT INTO lost VALUES ('psql');", "")),
    ("psql, with a temporary table", |scene, _| psql(scene, "CREATE TEMP TABLE mine (a int);", "")),
    ("psql, in COPY IN", |scene, _| psql(scene, "SELECT 1;", "COPY lost FROM STDIN;\npsql\npsql\n")),
    ("psql, in COPY OUT that nobody reads", |scene, _| psql(scene, "SELECT 1;", "COPY numbers TO STDOUT;\n")),
    ("psql, in a query", psql_in_a_query),
    ("pgbench", pgbench),
];

/// Clients of one pgbench.
const PGBENCH_CLIENTS: usize = 8;

/// Psql says these statements, and is then killed, behind these last ones.
fn psql(scene: &Scene<'_>, statements: &str, last: &str) -> usize {
    let mut psql = Psql::start(scene);
    psql.say(statements);
    psql.until_done();
    psql.say(last);
    psql.kill();
    1
}

fn psql_in_a_query(scene: &Scene<'_>, _: &mut u64) -> usize {
    let number = scene.number();
    let mut superuser = scene.superuser();
    superuser.query(&format!("SELECT pg_advisory_lock({number})"));
    let mut psql = Psql::start(scene);
    psql.say(&format!("SELECT pg_advisory_xact_lock({number});"));
    wait_until_blocked(&mut superuser, number);
    psql.kill();
    superuser.query(&format!("SELECT pg_advisory_unlock({number})"));
    1
}

fn wait_until_blocked(superuser: &mut Wire, number: u32) {
    let blocked = format!("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = {number} AND NOT granted");
    wait_for_rows(superuser, "running", &blocked);
}

struct Psql {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Psql {
    fn start(scene: &Scene<'_>) -> Self {
        let mut command = scene.server.installation().program("psql");
        command.args(["-XqAt", "--dbname"]).arg(conninfo(scene.main.address, scene.database));
        // It is replaced by psql itself on the way: the process that is killed is psql.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    fn say(&mut self, text: &str) {
        self.stdin.write_all(text.as_bytes()).and_then(|()| self.stdin.write_all(b"\n")).unwrap();
        self.stdin.flush().unwrap();
    }

    /// Until it has had the answers to all that was said.
    fn until_done(&mut self) {
        self.say("\\echo done");
        let mut line = String::new();
        while line != "done\n" {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "psql has ended");
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn pgbench(scene: &Scene<'_>, random: &mut u64) -> usize {
    let script = scene.server.socket_dir().join(format!("kills-{}.sql", scene.number()));
    fs::write(&script, "BEGIN;\nINSERT INTO lost VALUES ('pgbench');\nSELECT pg_sleep(0.001);\nROLLBACK;\n").unwrap();
    let installation = scene.server.installation();
    let mode = ["simple", "extended", "prepared"][below(random, 3)];
    let mut command = installation.program("pgbench");
    command.env("PGAPPNAME", "pgbench-killed").args(["-n", "-T", "60", "-M", mode, "-c", &PGBENCH_CLIENTS.to_string()]);
    command.arg("-f").arg(installation.inside(&script)).arg(conninfo(scene.main.address, scene.database));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // All of its clients are there, and its transactions run.
    Levels::wait_until(scene.main.admin, "pgbench connected", |levels| levels.clients >= PGBENCH_CLIENTS as u64);
    let running =
        format!("SELECT 1 FROM pg_stat_activity WHERE usename = '{APP}' AND application_name = 'pgbench-killed'");
    wait_for_rows(&mut scene.superuser(), "running", &running);
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(&script).unwrap();
    PGBENCH_CLIENTS
}
