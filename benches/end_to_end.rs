//! The proxy beside PgBouncer and a direct connection: throughput, latency, and processor time per transaction.
//!
//! `make bench` runs it. All variants take turns in every round, so that a machine's mood hits them alike; what counts is
//! the ratio within a round. Both proxies have 20 database connections and log no connections.
//!
//! Environment:
//! * `BENCH_ROUNDS` (3), `BENCH_SECONDS` (5): claims below a factor of 1.3 need 5 rounds of 10 s and a quiet machine
//! * `BENCH_CLIENTS` (1,16,64,256), `BENCH_MODES` (simple,extended,prepared)
//! * `BENCH_ONLY` (transactions,connect,value,rows,copy): sections; also `calls` (system calls, by strace)
//! * `BENCH_VARIANTS`: some of direct, pgbouncer, proxy, proxy-1 (one worker), other, other-1
//! * `BENCH_OTHER=FILE`: another build of the proxy to compare with, as variants `other` and `other-1`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]
#![allow(dead_code, reason = "the benches share a module and each uses a part of it")]

mod load;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use load::{Database, Process, Result, Sample, dies_with_us, free_port, list, median, number, provisioned, ratio};
use sluicegate::demo::servers::{APP, APP_PASSWORD, MONITOR, MONITOR_PASSWORD};

/// Database connections for clients, of either proxy.
const CONNECTIONS: u32 = 20;
/// The proxy counts its own questions' connections too.
const OWN_CONNECTIONS: u32 = 2;
/// A megabyte in one value.
const VALUE: &str = "SELECT repeat('x', 1048576);\n";
/// A megabyte in rows of 16 bytes on the wire.
const ROWS: &str = "SELECT 10000 + i FROM generate_series(1, 65536) AS i;\n";
/// Megabytes and query of a COPY; 64 bytes a row with its frame.
const COPY: (f64, &str) = (128.0, "COPY (SELECT repeat('x', 58) FROM generate_series(1, 2097152)) TO STDOUT");

fn main() {
    if let Err(error) = bench() {
        eprintln!("end_to_end: {error}");
        std::process::exit(1);
    }
}

fn bench() -> Result<()> {
    let rounds = number("BENCH_ROUNDS", 3)?;
    let seconds = number("BENCH_SECONDS", 5)?.max(1);
    let machine = load::machine();
    let bed = Bed::start(&list("BENCH_VARIANTS", "direct,pgbouncer,proxy,proxy-1,other"))?;
    println!("{machine}; PostgreSQL {}", bed.database.server.installation().version());
    println!(
        "{rounds} rounds of {seconds} s; {CONNECTIONS} database connections; medians; cpu: µs of the proxy's process"
    );
    let mut results = Results::default();
    for section in list("BENCH_ONLY", "transactions,connect,value,rows,copy") {
        let value = bed.database.script("value.sql", VALUE)?;
        let rows = bed.database.script("rows.sql", ROWS)?;
        match section.as_str() {
            "transactions" => {
                for mode in list("BENCH_MODES", "simple,extended,prepared") {
                    for clients in list("BENCH_CLIENTS", "1,16,64,256") {
                        let args = ["-S", "-M", &mode];
                        bed.rounds(&mut results, &mode, clients.parse()?, rounds, seconds, &args)?;
                    }
                    results.table(&mode, &bed, "tps");
                }
            }
            "connect" => {
                bed.rounds(&mut results, &section, 16, rounds, seconds, &["-S", "-C"])?;
                results.table(&section, &bed, "conn/s");
            }
            "value" | "rows" => {
                let script = if section == "value" { &value } else { &rows };
                bed.rounds(&mut results, &section, 4, rounds, seconds, &["-f", script])?;
                results.table(&section, &bed, "MB/s");
            }
            "copy" => {
                bed.copies(&mut results, rounds)?;
                results.table(&section, &bed, "MB/s");
            }
            "calls" => bed.system_calls(seconds)?,
            other => return Err(format!("BENCH_ONLY knows no section {other:?}").into()),
        }
    }
    let file = results.save()?;
    println!("\nevery run: {}", file.display());
    Ok(())
}

/// Everything that runs while we measure. Fields are dropped in this order.
struct Bed {
    variants: Vec<Variant>,
    _folders: Vec<tempfile::TempDir>,
    database: Database,
}

/// A way to the database.
struct Variant {
    name: &'static str,
    port: u16,
    process: Option<Process>,
}

impl Bed {
    fn start(wanted: &[String]) -> Result<Self> {
        let database = Database::start()?;
        let mut bed = Self { variants: Vec::new(), _folders: Vec::new(), database };
        let proxy = PathBuf::from(env!("CARGO_BIN_EXE_sluicegate"));
        let other = std::env::var_os("BENCH_OTHER").map(PathBuf::from);
        for name in wanted {
            match (name.as_str(), &other) {
                ("direct", _) => {
                    let port = bed.database.server.port();
                    bed.variants.push(Variant { name: "direct", port, process: None });
                }
                ("pgbouncer", _) => bed.start_pgbouncer()?,
                ("proxy", _) => bed.start_proxy("proxy", &proxy, 0)?,
                ("proxy-1", _) => bed.start_proxy("proxy-1", &proxy, 1)?,
                ("other", Some(file)) => bed.start_proxy("other", file, 0)?,
                ("other-1", Some(file)) => bed.start_proxy("other-1", file, 1)?,
                ("other" | "other-1", None) => {}
                (name, _) => return Err(format!("BENCH_VARIANTS knows no {name:?}").into()),
            }
        }
        Ok(bed)
    }

    fn add(&mut self, name: &'static str, port: u16, mut process: Process, folder: tempfile::TempDir) -> Result<()> {
        self.database.wait_for(port, &mut process)?;
        self.variants.push(Variant { name, port, process: Some(process) });
        self._folders.push(folder);
        Ok(())
    }

    fn start_proxy(&mut self, name: &'static str, program: &Path, workers: u32) -> Result<()> {
        let folder = tempfile::Builder::new().prefix("sluicegate-").tempdir()?;
        let port = free_port()?;
        let config = folder.path().join("proxy.toml");
        fs::write(&config, proxy_config(port, self.database.server.port(), workers, folder.path()))?;
        let mut command = dies_with_us(program);
        command.args(["serve", "--config"]).arg(&config);
        let process = Process::start(name, &command, folder.path())?;
        self.add(name, port, process, folder)
    }

    fn start_pgbouncer(&mut self) -> Result<()> {
        let missing = "no PgBouncer here to compare with; run `make provision`, which installs it, or leave it out of BENCH_VARIANTS";
        let program = provisioned("PGBOUNCER").ok_or(missing)?;
        let chroot = PathBuf::from(provisioned("PGBOUNCER_CHROOT").ok_or(missing)?);
        let (user, group) = (provisioned("PG18_UID").ok_or(missing)?, provisioned("PG18_GID").ok_or(missing)?);
        let folder = tempfile::Builder::new().prefix("sluicegate-").tempdir_in(chroot.join("tmp"))?;
        let inside = Path::new("/").join(folder.path().strip_prefix(&chroot)?);
        let port = free_port()?;
        // The database's own verifier, as an operator would copy it: no password is hashed per login on either side.
        let verifier = self
            .database
            .server
            .run_sql("postgres", &format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{APP}'"))?;
        let users = format!("\"{APP}\" \"{verifier}\"\n");
        let config = pgbouncer_config(port, self.database.server.port(), &inside);
        for (name, text) in [("users.txt", users), ("pgbouncer.ini", config)] {
            let file = folder.path().join(name);
            fs::write(&file, text)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            chown(&file, Some(user.parse()?), Some(group.parse()?))?;
        }
        chown(folder.path(), Some(user.parse()?), Some(group.parse()?))?;
        let mut command = Command::new("chroot");
        command.arg(&chroot).args(["setpriv", "--reuid", &user, "--regid", &group, "--clear-groups"]);
        command.args(["--pdeathsig", "KILL", "--", "prlimit", "--nofile=16384", &program, "-q"]);
        command.arg(inside.join("pgbouncer.ini"));
        let process = Process::start("pgbouncer", &command, folder.path())?;
        self.add("pgbouncer", port, process, folder)
    }

    /// One cell of the table: every variant in every round, each round beginning with another.
    fn rounds(
        &self,
        results: &mut Results,
        section: &str,
        clients: u32,
        rounds: u32,
        seconds: u32,
        args: &[&str],
    ) -> Result<()> {
        for round in 0..rounds {
            for turn in 0..self.variants.len() {
                let variant = &self.variants[(turn + round as usize) % self.variants.len()];
                let process = variant.process.as_ref();
                let sample = self.database.pgbench(variant.port, clients, seconds, args, process);
                let sample =
                    sample.map_err(|error| format!("{section}, {clients} clients, {}: {error}", variant.name))?;
                results.add(section, clients, variant.name, sample)?;
            }
        }
        Ok(())
    }

    fn copies(&self, results: &mut Results, rounds: u32) -> Result<()> {
        for round in 0..rounds {
            for turn in 0..self.variants.len() {
                let variant = &self.variants[(turn + round as usize) % self.variants.len()];
                let cpu = || variant.process.as_ref().map(Process::cpu).transpose();
                let (before, started) = (cpu()?, Instant::now());
                let mut psql = self.database.client("psql", variant.port);
                let status = psql.args(["-Xqc", COPY.1]).stdout(Stdio::null()).status()?;
                if !status.success() {
                    return Err(format!("copy, {}: psql failed ({status})", variant.name).into());
                }
                let spent = cpu()?.zip(before).map_or(f64::NAN, |(after, before)| (after - before).as_secs_f64() * 1e6);
                let per_second = COPY.0 / started.elapsed().as_secs_f64();
                let sample = Sample { per_second, p50_us: f64::NAN, p99_us: f64::NAN, cpu_us: spent / COPY.0 };
                results.add("copy", 1, variant.name, sample)?;
            }
        }
        Ok(())
    }

    /// Both proxies must write twice per transaction, so the sum is put beside the writes, too.
    fn system_calls(&self, seconds: u32) -> Result<()> {
        for mode in list("BENCH_MODES", "simple,extended,prepared") {
            println!("\n## system calls per transaction, {mode}, 64 clients\n");
            for variant in &self.variants {
                let Some(process) = &variant.process else { continue };
                let (sample, calls) = thread::scope(|scope| {
                    let load = scope.spawn(|| {
                        let args = ["-S", "-M", &mode];
                        // Boxed errors can't cross threads.
                        let sample = self.database.pgbench(variant.port, 64, seconds, &args, None);
                        sample.map_err(|error| error.to_string())
                    });
                    thread::sleep(Duration::from_secs(1));
                    let calls = process.system_calls(seconds);
                    (load.join().expect("the load generator panicked"), calls)
                });
                let transactions = sample?.per_second * f64::from(seconds);
                let each = |count: u64| count as f64 / transactions;
                let calls = calls?;
                let total = each(calls.iter().map(|(_, count)| count).sum());
                let mut line = format!("{:<10} {total:5.2}:", variant.name);
                for (name, count) in calls.iter().take(7) {
                    let _ = write!(line, " {name} {:.2}", each(*count));
                }
                println!("{line}");
            }
        }
        Ok(())
    }
}

/// Samples by section, clients and variant, in the order of the rounds.
#[derive(Default)]
struct Results {
    samples: BTreeMap<(String, u32), BTreeMap<&'static str, Vec<Sample>>>,
    lines: String,
}

impl Results {
    fn add(&mut self, section: &str, clients: u32, variant: &'static str, sample: Sample) -> Result<()> {
        let cell = self.samples.entry((section.to_owned(), clients)).or_default().entry(variant).or_default();
        cell.push(sample);
        let Sample { per_second, p50_us, p99_us, cpu_us } = sample;
        let round = cell.len();
        let _ = writeln!(
            self.lines,
            "{section}\t{clients}\t{round}\t{variant}\t{per_second:.1}\t{p50_us:.1}\t{p99_us:.1}\t{cpu_us:.2}"
        );
        // At once, so that a run that is cut short leaves what it has.
        self.save().map(drop)
    }

    fn table(&self, section: &str, bed: &Bed, unit: &str) {
        println!("\n## {section}\n");
        println!(
            "| clients | variant | {unit} | p50 µs | p99 µs | cpu µs | cpu / PgBouncer's | {unit} / PgBouncer's |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for ((of, clients), cells) in &self.samples {
            if of != section {
                continue;
            }
            for Variant { name, .. } in &bed.variants {
                let all = |variant: &str, figure: fn(&Sample) -> f64| -> Vec<f64> {
                    cells.get(variant).into_iter().flatten().map(figure).collect()
                };
                let show = |figure: fn(&Sample) -> f64, digits: usize| {
                    let value = median(all(name, figure));
                    if value.is_nan() { "-".to_owned() } else { format!("{value:.digits$}") }
                };
                let beside = |figure: fn(&Sample) -> f64| ratio(&all(name, figure), &all("pgbouncer", figure));
                println!(
                    "| {clients} | {name} | {} | {} | {} | {} | {} | {} |",
                    show(|sample| sample.per_second, 0),
                    show(|sample| sample.p50_us, 0),
                    show(|sample| sample.p99_us, 0),
                    show(|sample| sample.cpu_us, 1),
                    beside(|sample| sample.cpu_us),
                    beside(|sample| sample.per_second),
                );
            }
        }
    }

    fn save(&self) -> Result<PathBuf> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?.join("bench");
        fs::create_dir_all(&folder)?;
        let file = folder.join("end_to_end.tsv");
        let head = "section\tclients\tround\tvariant\tper_second\tp50_us\tp99_us\tcpu_us\n";
        fs::write(&file, head.to_owned() + &self.lines)?;
        Ok(file)
    }
}

fn proxy_config(port: u16, database: u16, workers: u32, folder: &Path) -> String {
    let (connections, folder) = (CONNECTIONS + OWN_CONNECTIONS, folder.display());
    format!(
        r#"
[[endpoint]]
name         = "bench"
listen       = "127.0.0.1:{port}"
target_group = "bench"
tls          = "off"

[[target_group]]
name    = "bench"
engine  = "postgres"
targets = ["127.0.0.1:{database}"]
tls     = "off"

  [target_group.pool]
  max_connections              = {connections}
  max_idle_connections_percent = 100
  pool_mode                    = "transaction"
  max_prepared_statements      = 200

  [target_group.health]
  user     = "{MONITOR}"
  password = {{ value = "{MONITOR_PASSWORD}" }}

[[user]]
name     = "{APP}"
auth     = ["scram-sha-256"]
password = {{ value = "{APP_PASSWORD}" }}

[admin]
listen = ""

[log]
level = "warn"

[runtime]
workers   = {workers}
state_dir = "{folder}"
"#
    )
}

fn pgbouncer_config(port: u16, database: u16, inside: &Path) -> String {
    let inside = inside.display();
    format!(
        r"
[databases]
* = host=127.0.0.1 port={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {inside}/users.txt
pool_mode = transaction
default_pool_size = {CONNECTIONS}
max_client_conn = 5000
max_prepared_statements = 200
log_connections = 0
log_disconnections = 0
log_pooler_errors = 1
logfile = {inside}/pgbouncer-own.log
"
    )
}
