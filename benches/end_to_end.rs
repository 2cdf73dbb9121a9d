//! The proxy beside PgBouncer and a direct connection: throughput, latency, and processor time per transaction.
//!
//! `make bench` runs it. All variants take turns in every round, so that a machine's mood hits them alike; what counts is
//! the ratio within a round. Both proxies have 20 database connections and log no connections.
//!
//! Environment:
//! * `BENCH_ROUNDS` (3), `BENCH_SECONDS` (5): claims below a factor of 1.3 need 5 rounds of 10 s and a quiet machine
//! * `BENCH_CLIENTS` (1,16,64,256), `BENCH_MODES` (simple,extended,prepared)
//! * `BENCH_ONLY` (transactions,connect,connect-tls,connect-token,value,rows,copy,memory): sections; also `tls` (prepared
//!   transactions of 64 clients over TLS) and `calls` (system calls, by strace). A connect is a login, one transaction
//!   and the end, with SCRAM or a token
//! * `BENCH_IDLE` (2000,5000): idle clients of `memory`
//! * `BENCH_VARIANTS`: some of direct, pgbouncer, proxy, proxy-1 (one worker), other, other-1
//! * `BENCH_OTHER=FILE`: another build of the proxy to compare with, as variants `other` and `other-1`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]
#![allow(dead_code, reason = "the benches share a module and each uses a part of it")]

mod load;

use std::fmt::Write as _;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use load::idle::Idle;
use load::results::Results;
use load::ways::{CONNECTIONS, Entry, Starter, Way};
use load::{Database, Door, Process, Result, Sample, in_turn, list, median, number};

/// Sections that need an endpoint with TLS.
const WITH_TLS: [&str; 4] = ["tls", "connect-tls", "connect-token", "memory"];
/// For a proxy to come to rest.
const QUIET: Duration = Duration::from_millis(500);
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
    let sections = list("BENCH_ONLY", "transactions,connect,connect-tls,connect-token,value,rows,copy,memory");
    let with_tls = sections.iter().any(|section| WITH_TLS.contains(&section.as_str()));
    let bed = Bed::start(&list("BENCH_VARIANTS", "direct,pgbouncer,proxy,proxy-1,other"), with_tls)?;
    println!("{machine}; PostgreSQL {}", bed.database.server.installation().version());
    println!(
        "{rounds} rounds of {seconds} s; {CONNECTIONS} database connections; medians; cpu: µs of the proxy's process"
    );
    let mut results = Results::new("end_to_end.tsv", ("pgbouncer", "PgBouncer"));
    for section in sections {
        let value = bed.database.script("value.sql", VALUE)?;
        let rows = bed.database.script("rows.sql", ROWS)?;
        match section.as_str() {
            "transactions" => {
                for mode in list("BENCH_MODES", "simple,extended,prepared") {
                    for clients in list("BENCH_CLIENTS", "1,16,64,256") {
                        let args = ["-S", "-M", &mode];
                        bed.rounds(&mut results, (&mode, Entry::Plain), clients.parse()?, rounds, seconds, &args)?;
                    }
                    results.table(&mode, bed.names(), "tps");
                }
            }
            "tls" => {
                let args = ["-S", "-M", "prepared"];
                bed.rounds(&mut results, (&section, Entry::Tls), 64, rounds, seconds, &args)?;
                results.table(&section, bed.names(), "tps");
            }
            "connect" | "connect-tls" | "connect-token" => {
                let entry = match section.as_str() {
                    "connect" => Entry::Plain,
                    "connect-tls" => Entry::Tls,
                    _ => Entry::Token,
                };
                bed.rounds(&mut results, (&section, entry), 16, rounds, seconds, &["-S", "-C"])?;
                results.table(&section, bed.names(), "conn/s");
            }
            "memory" => bed.memory(rounds)?,
            "value" | "rows" => {
                let script = if section == "value" { &value } else { &rows };
                bed.rounds(&mut results, (&section, Entry::Plain), 4, rounds, seconds, &["-f", script])?;
                results.table(&section, bed.names(), "MB/s");
            }
            "copy" => {
                bed.copies(&mut results, rounds)?;
                results.table(&section, bed.names(), "MB/s");
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
    variants: Vec<Way>,
    starter: Starter,
    database: Database,
}

impl Bed {
    fn start(wanted: &[String], with_tls: bool) -> Result<Self> {
        let database = Database::start()?;
        let starter = Starter::new(env!("CARGO_BIN_EXE_sluicegate"), with_tls)?;
        let mut variants = Vec::new();
        for name in wanted {
            variants.extend(starter.start(name, &database)?);
        }
        Ok(Self { variants, starter, database })
    }

    /// One cell of the table: every variant in every round, each round beginning with another.
    fn rounds(
        &self,
        results: &mut Results,
        (section, entry): (&str, Entry),
        clients: u32,
        rounds: u32,
        seconds: u32,
        args: &[&str],
    ) -> Result<()> {
        in_turn(&self.variants, rounds, |variant| {
            let token = variant.token()?;
            let Some(door) = variant.door(entry, &token) else { return Ok(()) };
            let process = variant.process.as_ref();
            let sample = self.database.pgbench(door, clients, seconds, args, process);
            let sample = sample.map_err(|error| format!("{section}, {clients} clients, {}: {error}", variant.name))?;
            results.add(section, clients, variant.name, sample)
        })
    }

    fn copies(&self, results: &mut Results, rounds: u32) -> Result<()> {
        in_turn(&self.variants, rounds, |variant| {
            let cpu = || variant.process.as_ref().map(Process::cpu).transpose();
            let (before, started) = (cpu()?, Instant::now());
            let mut psql = self.database.client("psql", Door::plain(variant.port));
            let status = psql.args(["-Xqc", COPY.1]).stdout(Stdio::null()).status()?;
            if !status.success() {
                return Err(format!("copy, {}: psql failed ({status})", variant.name).into());
            }
            let spent = cpu()?.zip(before).map_or(f64::NAN, |(after, before)| (after - before).as_secs_f64() * 1e6);
            let per_second = COPY.0 / started.elapsed().as_secs_f64();
            let sample = Sample { per_second, p50_us: f64::NAN, p99_us: f64::NAN, cpu_us: spent / COPY.0 };
            results.add("copy", 1, variant.name, sample)
        })
    }

    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.variants.iter().map(|way| way.name)
    }

    /// What a client that does nothing costs, in KiB of the proxy's resident memory: every figure from a process that was
    /// started for it, since what a process has once held it may keep.
    fn memory(&self, rounds: u32) -> Result<()> {
        let tls = self.starter.client_tls()?;
        println!("\n## memory of a client that is logged in, has asked once, and is idle\n");
        println!("| clients | variant | KiB, plain | KiB, TLS | KiB that stay when all have left, plain | TLS |");
        println!("|---|---|---|---|---|---|");
        for clients in list("BENCH_IDLE", "2000,5000") {
            let clients = clients.parse()?;
            for variant in self.variants.iter().filter(|variant| variant.process.is_some()) {
                let mut figures = [const { Vec::new() }; 4];
                for _ in 0..rounds {
                    for (entry, place) in [(Entry::Plain, 0), (Entry::Tls, 1)] {
                        let fresh = self.starter.start(variant.name, &self.database)?.ok_or("nothing to start")?;
                        let (held, kept) = memory_of(&fresh, entry, clients, &tls)
                            .map_err(|error| format!("memory, {clients} clients, {}: {error}", fresh.name))?;
                        figures[place].push(held);
                        figures[place + 2].push(kept);
                    }
                }
                let [plain, tls, plain_kept, tls_kept] = figures.map(median);
                println!("| {clients} | {} | {plain:.2} | {tls:.2} | {plain_kept:.2} | {tls_kept:.2} |", variant.name);
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
                        let sample = self.database.pgbench(Door::plain(variant.port), 64, seconds, &args, None);
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

/// KiB per client: while they are there, and once they have gone.
fn memory_of(way: &Way, entry: Entry, clients: u32, tls: &std::sync::Arc<rustls::ClientConfig>) -> Result<(f64, f64)> {
    let (process, door) = (way.process.as_ref().ok_or("no process")?, way.door(entry, "").ok_or("no such door")?);
    let before = process.memory_kib()?;
    let idle = Idle::start(door, clients, tls)?;
    let each = |memory: f64| (memory - before) / f64::from(clients);
    thread::sleep(QUIET);
    let held = each(process.memory_kib()?);
    drop(idle);
    thread::sleep(QUIET);
    Ok((held, each(process.memory_kib()?)))
}
