//! What the benches share: a database, processes that are always cleaned up, pgbench with its figures, and the processor
//! time of a process.
//!
//! Everything measured runs in a session of its own (`setsid`): the scheduler groups processes by session, and a proxy
//! in the same group as its load generator gets less of the processor than one that is not.

pub mod crew;
pub mod idle;
pub mod mysql;
pub mod results;
pub mod ways;

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sluicegate::demo::servers::{APP, APP_PASSWORD, Feature, Installation, Options, PostgresServer};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A proxy that does not answer by then is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of all transactions, how many have their latency written down.
const SAMPLING_RATE: &str = "0.1";

/// How pgbench comes in.
#[derive(Clone, Copy)]
pub struct Door<'a> {
    pub port: u16,
    pub tls: bool,
    pub user: &'a str,
    pub password: &'a str,
}

impl Door<'static> {
    /// The application with its password, without TLS.
    pub fn plain(port: u16) -> Self {
        Self { port, tls: false, user: APP, password: APP_PASSWORD }
    }
}

/// A database with pgbench's tables, on the newest PostgreSQL there is.
pub struct Database {
    pub server: PostgresServer,
    /// pgbench's scripts and logs go here; the same folder as pgbench sees it.
    folder: PathBuf,
    folder_inside: PathBuf,
}

impl Database {
    pub fn start() -> Result<Self> {
        let installation = Installation::find(Feature::Protocol3_2).or_else(|_| Installation::find(Feature::Any))?;
        let settings = [("shared_buffers", "128MB"), ("autovacuum", "off"), ("max_wal_size", "1GB")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let server = PostgresServer::start(
            &installation,
            Options { max_connections: 600, ssl: true, settings, ..Options::default() },
        )?;
        let folder = server.socket_dir().to_owned();
        let folder_inside = match provisioned("PG18_CHROOT") {
            Some(chroot) => folder.strip_prefix(chroot).map_or(folder.clone(), |rest| Path::new("/").join(rest)),
            None => folder.clone(),
        };
        let database = Self { server, folder, folder_inside };
        let mut init = database.client("pgbench", Door::plain(database.server.port()));
        let done = init.args(["-i", "-q"]).output()?;
        if !done.status.success() {
            return Err(format!("pgbench -i failed: {}", String::from_utf8_lossy(&done.stderr)).into());
        }
        Ok(database)
    }

    /// A script as pgbench sees it.
    pub fn script(&self, name: &str, text: &str) -> Result<String> {
        fs::write(self.folder.join(name), text)?;
        Ok(self.folder_inside.join(name).display().to_string())
    }

    /// `psql` or `pgbench` at a port of loopback; in a session of its own.
    pub fn client(&self, program: &str, door: Door<'_>) -> Command {
        let plain = self.server.installation().program(program);
        let mut command = Command::new("setsid");
        command.arg(plain.get_program()).args(plain.get_args()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let tls = if door.tls { "require" } else { "disable" };
        command.envs([("PGHOST", "127.0.0.1"), ("PGUSER", door.user), ("PGPASSWORD", door.password)]);
        command.envs([("PGDATABASE", APP), ("PGPORT", &door.port.to_string()), ("PGSSLMODE", tls)]);
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Waits until a query through this port is answered.
    pub fn wait_for(&self, port: u16, process: &mut Process) -> Result<()> {
        process.wait_for(|| {
            let said = self.client("psql", Door::plain(port)).args(["-XAtc", "SELECT 1"]).output()?;
            if said.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said.stderr).into()) }
        })
    }

    /// Runs pgbench at `door` and looks at `process` meanwhile. The measured window is `seconds` long and begins a
    /// second after all clients have connected.
    pub fn pgbench(
        &self,
        door: Door<'_>,
        clients: u32,
        seconds: u32,
        args: &[&str],
        process: Option<&Process>,
    ) -> Result<Sample> {
        let mut command = self.client("pgbench", door);
        command.args(["-n", "-P", "1", "--progress-timestamp", "-l", "--sampling-rate", SAMPLING_RATE]);
        command.arg("--log-prefix").arg(self.folder_inside.join("latency"));
        command.args(["-c", &clients.to_string(), "-j", &clients.min(2).to_string(), "-T", &(seconds + 2).to_string()]);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut pgbench = Process { name: "pgbench", child: command.spawn()?, log: None };
        let lines = BufReader::new(pgbench.child.stderr.take().ok_or("pgbench has no stderr")?).lines();
        let (mut window, mut cpu, mut said) = (Vec::new(), Vec::new(), String::new());
        for line in lines {
            let line = line?;
            match progress(&line) {
                // On a crowded machine pgbench skips lines: whatever there is of the window is measured.
                Some(mark) if window.len() <= seconds as usize => {
                    window.push(mark);
                    cpu.push(process.map(Process::cpu).transpose()?.unwrap_or_default());
                }
                Some(_) => {}
                None => said = said + &line + "\n",
            }
        }
        let status = pgbench.child.wait()?;
        let latencies = self.take_latencies(&window)?;
        let (Some(first), Some(last), [before, .., after]) = (window.first(), window.last(), &*cpu) else {
            return Err(format!("pgbench ended early ({status}): {said}").into());
        };
        if !status.success() {
            return Err(format!("pgbench failed ({status}): {said}").into());
        }
        let transactions: f64 = window.windows(2).map(|pair| pair[1].tps * (pair[1].at - pair[0].at)).sum();
        let percentile = |of: usize| latencies.get(latencies.len() * of / 100).copied().unwrap_or(f64::NAN);
        let cpu_us = (*after - *before).as_secs_f64() * 1e6 / transactions;
        let cpu_us = process.map_or(f64::NAN, |_| cpu_us);
        Ok(Sample {
            per_second: transactions / (last.at - first.at),
            p50_us: percentile(50),
            p99_us: percentile(99),
            cpu_us,
        })
    }

    /// Reads and removes pgbench's logs: `client transaction latency script seconds microseconds`.
    fn take_latencies(&self, window: &[Mark]) -> Result<Vec<f64>> {
        let (start, end) = (window.first().map_or(0.0, |mark| mark.at), window.last().map_or(0.0, |mark| mark.at));
        let mut latencies = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with("latency.") {
                continue;
            }
            for line in fs::read_to_string(entry.path())?.lines() {
                let fields: Vec<f64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
                if let [_, _, latency, _, second, micro, ..] = *fields
                    && (start..end).contains(&(second + micro / 1e6))
                {
                    latencies.push(latency);
                }
            }
            fs::remove_file(entry.path())?;
        }
        latencies.sort_by(f64::total_cmp);
        Ok(latencies)
    }
}

/// What one run gave; what could not be measured is NaN.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Processor time of the process per transaction.
    pub cpu_us: f64,
}

/// A line of pgbench's progress: since the line before it, `tps`; `at` is in seconds of the epoch.
struct Mark {
    at: f64,
    tps: f64,
}

/// `progress: 1700000000.123 s, 24012.3 tps, lat ...`
fn progress(line: &str) -> Option<Mark> {
    let (at, rest) = line.strip_prefix("progress: ")?.split_once(" s, ")?;
    Some(Mark { at: at.parse().ok()?, tps: rest.split_once(" tps")?.0.parse().ok()? })
}

/// A process of ours; killed when dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts it in a session of its own; what it says goes to a file in `folder`.
    pub fn start(name: &'static str, command: &Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = fs::File::create(&log)?;
        let mut session = Command::new("setsid");
        session.arg(command.get_program()).args(command.get_args()).current_dir("/");
        session.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = session.spawn().map_err(|error| format!("starting {name}: {error}"))?;
        Ok(Self { name, child, log: Some(log) })
    }

    /// Waits until it answers.
    pub fn wait_for(&mut self, ask: impl Fn() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = ask() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(format!("{} does not answer: {error}\n{}", self.name, self.log()).into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn log(&self) -> String {
        self.log.as_ref().and_then(|log| fs::read_to_string(log).ok()).unwrap_or_default()
    }

    /// Processor time of all its threads so far, to the nanosecond.
    pub fn cpu(&self) -> Result<Duration> {
        let mut total = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            // One that has just ended is not missed: threads that serve clients live as long as the process.
            let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
            total += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(total))
    }

    /// Resident memory now, in KiB.
    pub fn memory_kib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// System calls of a second or so, from strace; by name, the most frequent first. Slows the process down.
    pub fn system_calls(&self, seconds: u32) -> Result<Vec<(String, u64)>> {
        let mut strace = Command::new("timeout");
        strace.args(["-s", "INT", &seconds.to_string(), "strace", "-c", "-f", "-p", &self.id().to_string()]);
        let mut child = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut said = String::new();
        child.stderr.take().ok_or("strace has no stderr")?.read_to_string(&mut said)?;
        child.wait()?;
        // `% time  seconds  usecs/call  calls  [errors]  syscall`
        let call = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.first()?.parse::<f64>().ok()?;
            Some(((*fields.last()?).to_owned(), fields.get(3)?.parse().ok()?))
        };
        let mut calls: Vec<(String, u64)> = said.lines().filter_map(call).filter(|(name, _)| name != "total").collect();
        calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        if calls.is_empty() { Err(format!("strace saw nothing: {said}").into()) } else { Ok(calls) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ours and not waited for, or waited for and then kill does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that dies with us, however we die.
pub fn dies_with_us(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// What `make provision` wrote down under this name.
pub fn provisioned(name: &str) -> Option<String> {
    let text = fs::read_to_string(sluicegate::demo::servers::servers_folder().join("servers.env")).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// A port that is free now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Everyone has a turn in every round, and each round begins with another.
pub fn in_turn<T>(all: &[T], rounds: u32, mut run: impl FnMut(&T) -> Result<()>) -> Result<()> {
    for round in 0..rounds as usize {
        for turn in 0..all.len() {
            run(&all[(turn + round) % all.len()])?;
        }
    }
    Ok(())
}

/// A number from the environment.
pub fn number(name: &str, default: u32) -> Result<u32> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().map_err(|_| format!("{name} is not a number").into()))
}

/// A list from the environment.
pub fn list(name: &str, default: &str) -> Vec<String> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

/// The middle of them, NaN aside.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// `0.81 (0.75-0.90)`: median and range of in-round ratios.
pub fn ratio(of: &[f64], to: &[f64]) -> String {
    let ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).filter(|ratio| !ratio.is_nan()).collect();
    if ratios.is_empty() {
        return "-".to_owned();
    }
    let (min, max) = ratios.iter().fold((f64::MAX, f64::MIN), |(min, max), ratio| (min.min(*ratio), max.max(*ratio)));
    format!("{:.2} ({min:.2}-{max:.2})", median(ratios))
}

/// `2 cores, load 0.5 before the first run, ...`
pub fn machine() -> String {
    let cores = thread::available_parallelism().map_or(0, |cores| cores.get());
    let first = |file: &str, prefix: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(prefix)).unwrap_or_default();
        line.rsplit_once(": ").map_or(line, |(_, value)| value).to_owned()
    };
    let load = first("/proc/loadavg", "");
    let load = load.split(' ').next().unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = first("/proc/cpuinfo", "model name");
    format!("{cores} cores ({model}), Linux {}, load at the start {load}", kernel.trim())
}
