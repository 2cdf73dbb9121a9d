//! Starts the proxy under test: the binary itself, as a child, with a configuration of the test's own.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use sluicegate::demo::servers::{APP, APP_PASSWORD, MONITOR, MONITOR_PASSWORD};

/// How long a proxy may take until it says that it is ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// The last lines of the log are what a failure is explained with.
const LOG_LINES_MAX: usize = 2_000;
/// Of them, so many are shown with every failure.
const LOG_LINES_SHOWN: usize = 100;

/// A running proxy; killed when dropped. It must not outlive the thread that started it (see [`start`]).
pub struct ProxyHandle {
    pub address: SocketAddr,
    /// Where it answers operators.
    pub admin: SocketAddr,
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    /// The first line with a secret in it.
    leaked: Arc<Mutex<Option<String>>>,
    /// Says when the log has come to its end, which is the process's.
    log_end: Receiver<()>,
    config: tempfile::NamedTempFile,
}

impl ProxyHandle {
    /// Waits for these words in the log, which is written behind the answers that clients get; the log then.
    pub fn logs(&self, words: &str) -> String {
        let began = Instant::now();
        loop {
            let log = self.log();
            if log.contains(words) {
                return log;
            }
            assert!(began.elapsed() < PATIENCE, "{words} is not in {log}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until these words are there so many times.
    pub fn until_logs(&self, words: &str, times: usize) {
        let began = Instant::now();
        while self.log().matches(words).count() < times {
            assert!(began.elapsed() < PATIENCE, "{words} is not {times} times in {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn log(&self) -> String {
        let lines = self.log.lock().unwrap();
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

impl ProxyHandle {
    /// Sends it SIGTERM.
    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Sends it SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it tells who measures it; none once it has ended.
    pub fn metrics(&self) -> std::io::Result<String> {
        metrics(self.admin)
    }

    /// The sum of a metric over all of its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = metrics(self.admin).unwrap();
        let series =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// The series of a metric that are not at 0, by the value of this label.
    pub fn metric_by(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let text = self.metrics().unwrap();
        let label = format!("{label}=\"");
        let series = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} "));
        let series = series.map(|(labels, number)| {
            let value = labels.split(label.as_str()).nth(1).unwrap().split('"').next().unwrap();
            (value.to_owned(), number.parse().unwrap())
        });
        series.filter(|(_, number)| *number > 0).collect()
    }

    /// The same, once one of them is this value's. Pins are counted when a session is idle, a moment after its client has its reply.
    pub fn metric_by_with(&self, name: &str, label: &str, value: &str) -> BTreeMap<String, u64> {
        let began = Instant::now();
        loop {
            let series = self.metric_by(name, label);
            if series.contains_key(value) {
                return series;
            }
            assert!(began.elapsed() < PATIENCE, "{name} has no {value}\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a metric is at this number.
    pub fn until_metric(&self, name: &str, number: u64) {
        let began = Instant::now();
        while self.metric(name) != number as f64 {
            assert!(began.elapsed() < PATIENCE, "{name} is {}, never {number}\n{}", self.metric(name), self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Gives it another configuration, as [`start`] takes it, and tells it to read it (SIGHUP).
    pub fn reload(&self, config_text: &str) {
        std::fs::write(self.config.path(), filled(config_text, self.address.port(), self.admin.port())).unwrap();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// Waits until it has ended by itself; all of its log is there then.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        match self.log_end.recv_timeout(patience) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => self.child.wait().unwrap(),
            Err(RecvTimeoutError::Timeout) => panic!("still there after {patience:?}; its log:\n{}", self.log()),
        }
    }

    /// The most memory it ever held.
    pub fn memory_peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// What a proxy that answers operators here tells who measures it; none once it has ended.
pub fn metrics(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// What must stand in no log, no metric and no error of any test. All passwords of the suite end in `-secret`; the rest
/// is an access key, its long session token, what only a token has, and what a database keeps of a password.
const SECRETS: [&str; 9] = [
    "-secret",
    "wJalrXUtnFEMI",
    "Ab1/Ab1/",
    "X-Amz-Credential=",
    "X-Amz-Security-Token=",
    "X-Amz-Signature=",
    "SCRAM-SHA-256$4096:",
    "SCRAM-SHA-256$5000:",
    "$A$005$",
];

/// The secret that stands in this line.
fn secret_in(line: &str) -> Option<String> {
    if let Some(secret) = SECRETS.iter().find(|secret| line.contains(**secret)) {
        return Some((*secret).to_owned());
    }
    // As `pg_authid` keeps it, for whatever password; and the application's alone.
    static OF_APP: LazyLock<String> = LazyLock::new(|| {
        let digest = Md5::new().chain_update(APP_PASSWORD).chain_update(APP).finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    });
    let is_hash = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count() == 32;
    let stored = line.match_indices("md5").find(|(at, _)| is_hash(&line[at + 3..]));
    stored
        .map(|(at, _)| line[at..at + 35].to_owned())
        .or_else(|| line.contains(OF_APP.as_str()).then(|| OF_APP.clone()))
}

/// Fails the test if one of them is here.
pub fn keeps_secrets(what: &str, text: &str) {
    if let Some((line, secret)) = text.lines().find_map(|line| Some((line, secret_in(line)?))) {
        panic!("{secret} stands in {what}: {line}");
    }
}

impl Drop for ProxyHandle {
    fn drop(&mut self) {
        let metrics = metrics(self.admin);
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        // All of the log is there then.
        let _ = self.log_end.recv_timeout(PATIENCE);
        if thread::panicking() {
            if let Ok(Some(status)) = ended {
                println!("the proxy had ended by itself: {status}");
            }
            let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            println!("the last lines of the proxy's log:");
            lines.iter().skip(lines.len().saturating_sub(LOG_LINES_SHOWN)).for_each(|line| println!("{line}"));
        } else {
            let leaked = self.leaked.lock().unwrap().take();
            keeps_secrets("the proxy's log", &leaked.unwrap_or_default());
            keeps_secrets("the metrics", &metrics.unwrap_or_default());
        }
    }
}

/// Starts a proxy and waits until its log says `ready`. `config_text` may hold `{port}`, `{admin_port}` and
/// `{state_dir}`; they are filled in, and the port is where [`ProxyHandle::address`] points.
pub fn start(config_text: &str) -> ProxyHandle {
    start_with(config_text, &[])
}

/// The same, with these environment variables.
pub fn start_with(config_text: &str, environment: &[(&str, &str)]) -> ProxyHandle {
    start_within(config_text, environment, &[])
}

/// The same, by a program that runs another one in limits (`prlimit --nofile=64 --`).
pub fn start_within(config_text: &str, environment: &[(&str, &str)], limits: &[&str]) -> ProxyHandle {
    let [port, admin_port] = free_ports();
    let text = filled(config_text, port, admin_port);
    let mut config = tempfile::Builder::new().prefix("sluicegate-").suffix(".toml").tempfile().unwrap();
    config.write_all(text.as_bytes()).unwrap();

    // The signal comes at the end of the thread that starts it, which is the test's: right for a proxy of its own.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).args(limits);
    command.args([env!("CARGO_BIN_EXE_sluicegate"), "serve", "--config"]);
    command.envs(environment.iter().copied());
    command.arg(config.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let log = Arc::new(Mutex::new(VecDeque::new()));
    let (said_ready, ready) = channel();
    let (at_end, log_end) = channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let sink = log.clone();
    let leaked = Arc::new(Mutex::new(None));
    let leak = leaked.clone();
    thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let is_ready = line.contains("ready");
            let mut lines = sink.lock().unwrap();
            // As it comes: what is kept is the end of it.
            if leak.lock().unwrap().is_none() && secret_in(&line).is_some() {
                *leak.lock().unwrap() = Some(line.clone());
            }
            lines.push_back(line);
            if lines.len() > LOG_LINES_MAX {
                lines.pop_front();
            }
            if is_ready {
                let _ = said_ready.send(());
            }
        }
        drop(said_ready);
        let _ = at_end.send(());
    });
    let [address, admin] = [port, admin_port].map(|port| (Ipv4Addr::LOCALHOST, port).into());
    let mut proxy = ProxyHandle { address, admin, child, log, leaked, log_end, config };
    let started = Instant::now();
    match ready.recv_timeout(PATIENCE) {
        Ok(()) => proxy,
        Err(RecvTimeoutError::Timeout) => panic!("the proxy was not ready in {PATIENCE:?}; its log:\n{}", proxy.log()),
        Err(RecvTimeoutError::Disconnected) => {
            let status = proxy.child.wait().unwrap();
            panic!("the proxy ended ({status}) after {:?}; its log:\n{}", started.elapsed(), proxy.log());
        }
    }
}

fn filled(config_text: &str, port: u16, admin_port: u16) -> String {
    config_text
        .replace("{port}", &port.to_string())
        .replace("{admin_port}", &admin_port.to_string())
        .replace("{state_dir}", &std::env::temp_dir().display().to_string())
}

/// A configuration with one endpoint without TLS in front of `server`, transaction mode, and at most
/// `connections` database connections (the proxy's own count too). All of those may be kept by pinned clients: there are one or
/// two of them in most tests.
pub fn config(server: SocketAddr, connections: u32) -> String {
    format!(
        r#"
[[endpoint]]
name         = "it"
listen       = "127.0.0.1:{{port}}"
target_group = "it"
tls          = "off"

[[target_group]]
name    = "it"
engine  = "postgres"
targets = ["{server}"]
tls     = "off"

  [target_group.pool]
  max_connections           = {connections}
  connection_borrow_timeout = "15s"
  pool_mode                 = "transaction"
  pin_max_percent           = 100

  [target_group.health]
  user     = "{MONITOR}"
  password = {{ value = "{MONITOR_PASSWORD}" }}

[[user]]
name     = "{APP}"
auth     = ["scram-sha-256"]
password = {{ value = "{APP_PASSWORD}" }}

[admin]
listen = "127.0.0.1:{{admin_port}}"

[runtime]
workers   = 2
state_dir = "{{state_dir}}"
"#
    )
}

/// The configuration with a key of the first table of that name set to this value, written as in TOML.
pub fn set(config: &str, table: &str, key: &str, value: &str) -> String {
    let header = |line: &str| line.trim_start().starts_with('[');
    let (mut lines, mut inside, mut done) = (Vec::new(), false, false);
    for line in config.lines() {
        if header(line) {
            inside = !done && line.trim().trim_matches(['[', ']']) == table;
        }
        if !(inside && line.split('=').next().is_some_and(|name| name.trim() == key)) {
            lines.push(line.to_owned());
        }
        if inside && !done {
            lines.push(format!("{key} = {value}"));
            done = true;
        }
    }
    if !done {
        lines.push(format!("[{table}]\n{key} = {value}"));
    }
    lines.join("\n") + "\n"
}

/// Free ports, each given once in this process: who looks whether one is free holds it for a moment, and must not do so to one that a
/// proxy is about to listen on. A process of somebody else can still be faster: such a start fails loudly.
fn free_ports<const N: usize>() -> [u16; N] {
    // Below the range that the kernel takes for outgoing connections, of which the tests make many.
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 17_000;
    // From anywhere, as another process may run the same tests.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(0..COUNT)));
    let next = || FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    [(); N].map(|()| (0..1000).map(|_| next()).find(is_free).unwrap())
}
