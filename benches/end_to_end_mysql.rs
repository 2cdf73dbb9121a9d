//! The proxy beside MySQL Router and a direct connection: throughput, latency, and processor time per query or transaction.
//!
//! `make bench` runs it behind `end_to_end`. All variants take turns in every round; what counts is the ratio within a round.
//! The proxy has 20 database connections for its clients. Router shares connections too, and keeps 20 of them when they are
//! idle; it opens more when more clients are busy.
//!
//! Environment, as in `end_to_end`:
//! * `BENCH_ROUNDS` (3), `BENCH_SECONDS` (5), `BENCH_CLIENTS` (16,64)
//! * `BENCH_MY_ONLY` (text,prepared,transactions): sections. The first two read a row by its key, the last one is BEGIN, a row
//!   read, a row changed, COMMIT
//! * `BENCH_MY_VARIANTS`: some of direct, router, proxy, proxy-1 (one worker), other, other-1
//! * `BENCH_OTHER=FILE`: another build of the proxy to compare with, as variants `other` and `other-1`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]
#![allow(dead_code, reason = "the benches share a module and each uses a part of it")]

mod load;

use std::path::{Path, PathBuf};

use load::crew::Work;
use load::mysql::{Database, Way};
use load::results::Results;
use load::ways::CONNECTIONS;
use load::{Result, in_turn, list, number};

fn main() {
    if let Err(error) = bench() {
        eprintln!("end_to_end_mysql: {error}");
        std::process::exit(1);
    }
}

fn bench() -> Result<()> {
    let (rounds, seconds) = (number("BENCH_ROUNDS", 3)?, number("BENCH_SECONDS", 5)?.max(1));
    let machine = load::machine();
    let database = Database::start()?;
    let other = std::env::var_os("BENCH_OTHER").map(PathBuf::from);
    let mut ways = Vec::new();
    for name in list("BENCH_MY_VARIANTS", "direct,router,proxy,proxy-1,other") {
        ways.extend(Way::start(&name, Path::new(env!("CARGO_BIN_EXE_sluicegate")), other.as_ref(), &database)?);
    }
    println!("{machine}; MySQL {}", database.server.installation().version());
    println!(
        "{rounds} rounds of {seconds} s; {CONNECTIONS} database connections; medians; cpu: µs of the proxy's process"
    );
    let mut results = Results::new("end_to_end_mysql.tsv", ("router", "Router"));
    for section in list("BENCH_MY_ONLY", "text,prepared,transactions") {
        let (work, unit) = match section.as_str() {
            "text" => (Work::Text, "q/s"),
            "prepared" => (Work::Prepared, "q/s"),
            "transactions" => (Work::Transaction, "tps"),
            other => return Err(format!("BENCH_MY_ONLY knows no section {other:?}").into()),
        };
        for clients in list("BENCH_CLIENTS", "16,64") {
            let clients = clients.parse()?;
            in_turn(&ways, rounds, |way| {
                let sample = database.load(way.port, clients, seconds, work, way.process.as_ref());
                let sample = sample.map_err(|error| format!("{section}, {clients} clients, {}: {error}", way.name))?;
                results.add(&section, clients, way.name, sample)
            })?;
        }
        results.table(&section, ways.iter().map(|way| way.name), unit);
    }
    println!("\nevery run: {}", results.save()?.display());
    Ok(())
}
