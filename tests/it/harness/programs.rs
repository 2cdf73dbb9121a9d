//! Runs programs (psql, pgbench, Python) to their end, in bounded time.

use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use sluicegate::demo::servers::{APP, APP_PASSWORD, servers_folder};

/// What takes longer hangs. Generous: machines that run tests are busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// What it printed; fails the test if it failed or complained.
    pub fn quietly(self) -> String {
        assert!(self.status.success() && self.stderr.is_empty(), "{self}");
        self.stdout
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, stdout, stderr } = self;
        write!(f, "{status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Runs a program with this input; it is killed, and the test fails, when it takes too long.
pub fn run(mut command: Command, input: &str) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    thread::spawn(move || {
        // One that does not read all of it says why on its own.
        let _ = stdin.write_all(input.as_bytes());
    });
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let texts = stdout.recv_timeout(PATIENCE).and_then(|stdout| Ok((stdout, stderr.recv_timeout(PATIENCE)?)));
    match texts {
        Ok((stdout, stderr)) => Ended { status: child.wait().unwrap(), stdout, stderr },
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} took longer than {PATIENCE:?}");
        }
    }
}

fn collect(mut source: impl Read + Send + 'static) -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = source.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// libpq's connection string for the application's role.
pub fn conninfo(address: std::net::SocketAddr, database: &str) -> String {
    let (host, port) = (address.ip(), address.port());
    format!("host={host} port={port} user={APP} password={APP_PASSWORD} dbname={database} sslmode=disable")
}

/// Where a program or file is that `make provision` has installed.
fn provisioned(key: &str) -> String {
    let file = servers_folder().join("servers.env");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key} in {}; run `make provision`", file.display())).to_owned()
}

/// Java with PostgreSQL's JDBC driver, about to run a source file of `tests/it/java`.
pub fn java(source: &str) -> Command {
    let mut command = Command::new(provisioned("JAVA"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
    command.args(["-XX:+UseSerialGC", "-Xmx128m", "-cp", &provisioned("PGJDBC")]);
    command.arg(format!("{}/tests/it/java/{source}", env!("CARGO_MANIFEST_DIR")));
    command
}

/// The Python that has psycopg 3.
pub fn python() -> Command {
    let mut command = Command::new(provisioned("PYTHON"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
