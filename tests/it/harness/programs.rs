//! Runs programs (psql, pgbench, Python) to their end, in bounded time.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use sluicegate::demo::servers::{APP, APP_PASSWORD, servers_folder};

use super::proxy::keeps_secrets;

/// What takes longer hangs. Generous: machines that run tests are busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the tests are.
pub const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");

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

/// Runs a program with this input; it is killed, and the test fails, when it takes too long, or says a secret.
pub fn run(command: Command, input: &str) -> Ended {
    let program = command.get_program().to_owned();
    let ended = run_for_secrets(command, input);
    for (what, said) in [("stdout", &ended.stdout), ("stderr", &ended.stderr)] {
        keeps_secrets(&format!("{what} of {}", program.display()), said);
    }
    ended
}

/// The same for a program whose task it is to print one.
pub fn run_for_secrets(mut command: Command, input: &str) -> Ended {
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
            // What it has said is there then, unless it has left a child behind.
            let said = stdout.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
            panic!("{command:?} took longer than {PATIENCE:?}; it said\n{said}");
        }
    }
}

/// A program that answers each line with a line; killed when dropped.
pub struct Talk {
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
}

impl Talk {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = channel();
        thread::spawn(move || {
            // Ends with the program, or with the test.
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, stdin, answers }
    }

    pub fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no answer to {line}: {error}"))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut source: impl Read + Send + 'static) -> Receiver<String> {
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
pub fn provisioned(key: &str) -> String {
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
    command.arg(format!("{SOURCES}/java/{source}"));
    command
}

/// Java with the JDBC drivers of PostgreSQL and MariaDB and HikariCP, about to run a class that is compiled from a file of `tests/it/java`.
pub fn java_class(class: &str) -> Command {
    static COMPILED: Once = Once::new();
    const CLASSES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/java");
    let libraries = ["PGJDBC", "MARIADB_JDBC", "HIKARICP"].map(provisioned).join(":");
    // Compiled once: that takes longer than to run them.
    COMPILED.call_once(|| {
        let mut compiler = Command::new(provisioned("JAVAC"));
        compiler.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
        compiler.args(["-cp", &libraries, "-d", CLASSES]);
        compiler.args(["Program", "MyProgram", "Batch", "Pool"].map(|name| format!("{SOURCES}/java/{name}.java")));
        run(compiler, "").quietly();
    });
    let mut command = Command::new(provisioned("JAVA"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
    // They end before the better of the two compilers would have paid.
    command.args([
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xmx256m",
        "-cp",
        &format!("{libraries}:{CLASSES}"),
        class,
    ]);
    command
}

/// Node.js with its drivers, about to run a file of `tests/it/clients/node`.
pub fn node(source: &str) -> Command {
    let mut command = Command::new(provisioned("NODE"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
    command.env("NODE_PATH", provisioned("NODE_MODULES")).arg(format!("{SOURCES}/clients/node/{source}"));
    command
}

/// Python with its drivers, about to run a file of `tests/it/clients/python`.
pub fn python_file(source: &str) -> Command {
    let mut command = python();
    command.arg(format!("{SOURCES}/clients/python/{source}"));
    command
}

/// The same with the path of psqlODBC.
pub fn odbc_file(source: &str) -> Command {
    let mut command = python_file(source);
    command.env("PSQLODBC", provisioned("PSQLODBC"));
    command
}

/// The Python that has its drivers.
pub fn python() -> Command {
    let mut command = Command::new(provisioned("PYTHON"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
