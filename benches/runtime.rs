//! Which runtime: a forwarder that knows no protocol, on tokio with a current-thread runtime per worker and on one
//! multi-thread runtime, under the same load. `cargo bench --bench runtime`; see docs/decisions/0001.
//!
//! One task per client polls both directions; one read and one write each way, as the proxy's relay does. The load is
//! pgbench's, every client with a database connection of its own. Variants take turns in every round.
//!
//! Environment: `BENCH_ROUNDS` (5), `BENCH_SECONDS` (5), `BENCH_CLIENTS` (16,64,256), `BENCH_MODES` (simple,prepared)

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]
#![allow(dead_code, reason = "the benches share a module and each uses a part of it")]

mod load;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use load::{Database, Door, Process, Result, Sample, dies_with_us, free_port, list, median, number, ratio};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// What the relay is called as, and with how many threads; the first is what the others are compared with.
const VARIANTS: [(&str, usize); 4] = [("current", 2), ("multi", 2), ("current", 1), ("multi", 1)];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let done = match &*args.iter().map(String::as_str).collect::<Vec<_>>() {
        [_, "relay", kind, threads, port, database] => {
            relay(kind, threads.parse().unwrap(), port.parse().unwrap(), database.parse().unwrap())
        }
        _ => bench(),
    };
    if let Err(error) = done {
        eprintln!("runtime: {error}");
        std::process::exit(1);
    }
}

fn bench() -> Result<()> {
    let (rounds, seconds) = (number("BENCH_ROUNDS", 5)?, number("BENCH_SECONDS", 5)?.max(1));
    println!("{}; {rounds} rounds of {seconds} s; cpu: µs of the relay per transaction", load::machine());
    let database = Database::start()?;
    let folder = tempfile::Builder::new().prefix("sluicegate-").tempdir()?;
    let mut relays = Vec::new();
    for (kind, threads) in VARIANTS {
        let port = free_port()?;
        let mut command = dies_with_us(std::env::current_exe()?);
        command.args(["relay", kind, &threads.to_string(), &port.to_string(), &database.server.port().to_string()]);
        let mut process = Process::start("relay", &command, folder.path())?;
        database.wait_for(port, &mut process)?;
        relays.push((format!("{kind}-thread, {threads}"), port, process));
    }
    println!("\n| mode | clients | runtime, threads | tps | p50 µs | p99 µs | cpu µs | cpu / current-thread, 2 |");
    println!("|---|---|---|---|---|---|---|---|");
    for mode in list("BENCH_MODES", "simple,prepared") {
        for clients in list("BENCH_CLIENTS", "16,64,256") {
            let mut samples: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
            for round in 0..rounds as usize {
                for turn in 0..relays.len() {
                    let which = (turn + round) % relays.len();
                    let (_, port, process) = &relays[which];
                    let args = ["-S", "-M", &mode];
                    let sample =
                        database.pgbench(Door::plain(*port), clients.parse()?, seconds, &args, Some(process))?;
                    samples.entry(which).or_default().push(sample);
                }
            }
            for (which, (name, ..)) in relays.iter().enumerate() {
                let all =
                    |which: usize, figure: fn(&Sample) -> f64| samples[&which].iter().map(figure).collect::<Vec<_>>();
                let middle = |figure: fn(&Sample) -> f64| median(all(which, figure));
                println!(
                    "| {mode} | {clients} | {name} | {:.0} | {:.0} | {:.0} | {:.1} | {} |",
                    middle(|sample| sample.per_second),
                    middle(|sample| sample.p50_us),
                    middle(|sample| sample.p99_us),
                    middle(|sample| sample.cpu_us),
                    ratio(&all(which, |sample| sample.cpu_us), &all(0, |sample| sample.cpu_us)),
                );
            }
        }
    }
    Ok(())
}

fn relay(kind: &str, threads: usize, port: u16, database: u16) -> Result<()> {
    let database = SocketAddr::from((Ipv4Addr::LOCALHOST, database));
    if kind == "multi" {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
        // Spawned: what `block_on` itself runs is on no worker.
        let accepting = runtime.spawn(async move {
            let listener = listen(port)?;
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, database));
            }
            Ok::<_, io::Error>(())
        });
        return Ok(runtime.block_on(accepting)??);
    }
    let mut mailboxes = Vec::new();
    for _ in 0..threads {
        let (mailbox, mut arrivals) = tokio::sync::mpsc::unbounded_channel::<std::net::TcpStream>();
        mailboxes.push(mailbox);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || {
            tokio::task::LocalSet::new().block_on(&runtime, async {
                while let Some(client) = arrivals.recv().await {
                    tokio::task::spawn_local(forward(TcpStream::from_std(client).unwrap(), database));
                }
            });
        });
    }
    // As the proxy does: one thread accepts, and clients are spread evenly.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = listen(port)?;
        for mailbox in mailboxes.iter().cycle() {
            let (client, _) = listener.accept().await?;
            mailbox.send(client.into_std()?)?;
        }
        Ok(())
    })
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// Until either side is gone. Writes that do not fit wait for the peer, which pgbench's small ones never do.
async fn forward(client: TcpStream, database: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(database).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut buf = vec![0; 64 << 10];
    loop {
        let (from, to) = tokio::select! {
            ready = client.readable() => { ready?; (&client, &server) }
            ready = server.readable() => { ready?; (&server, &client) }
        };
        let read = match from.try_read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut written = 0;
        while written < read {
            match to.try_write(&buf[written..read]) {
                Ok(taken) => written += taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }
}
