//! Clients of MySQL that are cheap enough not to be what is measured: two threads with a share of the connections each, which
//! know no more of the protocol than where a reply ends. They log in with the proxy's own machine for that, which does
//! whatever a server asks.

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sluicegate::demo::servers::{APP, APP_PASSWORD};
use sluicegate::mysql::connect::Connect;
use sluicegate::mysql::frame::{self, HEAD_BYTES, Reader};
use sluicegate::mysql::message::{OkPacket, command, mark, server_error, status};
use sluicegate::protocol::{ConnectOptions, LoginSecret, Password, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Result;
use super::mysql::ROWS;

/// For a client to log in and prepare; one that waits longer will not come in.
const LOGIN_PATIENCE: Duration = Duration::from_secs(10);
/// Threads of clients.
const THREADS: usize = 2;

/// What a client does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A row by its key, as a text.
    Text,
    /// The same, prepared once.
    Prepared,
    /// BEGIN, a row by its key, a change of another one, COMMIT: four texts.
    Transaction,
}

/// Clients at work, on threads of their own.
pub struct Crew {
    threads: Vec<thread::JoinHandle<io::Result<Vec<u32>>>>,
    /// Latencies are written down.
    pub counts: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    /// What they have done so far.
    pub done: Arc<AtomicU64>,
}

impl Crew {
    /// Starts them; all have come in.
    pub fn start(port: u16, clients: u32, work: Work) -> Result<Self> {
        let [counts, ends] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let done = Arc::new(AtomicU64::new(0));
        let threads = THREADS.min(clients as usize);
        let ready = Arc::new(Barrier::new(threads));
        let (say, said) = mpsc::channel();
        let start = |number: usize| {
            let share = (0..clients as usize).filter(|client| client % threads == number).count();
            let (counts, ends, done, ready, say) =
                (counts.clone(), ends.clone(), done.clone(), ready.clone(), say.clone());
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let mut crew = Vec::new();
                    let mut outcome = Ok(());
                    for number in 0..share {
                        let coming = Client::come_in(port, work, number as u32 * 7919);
                        match tokio::time::timeout(LOGIN_PATIENCE, coming).await {
                            Ok(Ok(client)) => crew.push(client),
                            Ok(Err(error)) => outcome = Err(error),
                            Err(_) => {
                                outcome = Err(io::Error::other(format!("{share} clients, and number {number} waits")))
                            }
                        }
                        if outcome.is_err() {
                            break;
                        }
                    }
                    let is_good = outcome.is_ok();
                    let _ = say.send(outcome);
                    ready.wait();
                    if !is_good {
                        return Ok(Vec::new());
                    }
                    let running = crew.into_iter().map(|client| client.run(work, &counts, &ends, &done));
                    let latencies = futures_util::future::try_join_all(running).await?;
                    Ok(latencies.concat())
                })
            })
        };
        let crew = Self {
            threads: (0..threads).map(start).collect(),
            counts: counts.clone(),
            ends: ends.clone(),
            done: done.clone(),
        };
        for _ in 0..threads {
            if let Err(error) = said.recv()? {
                // Those that are in go home.
                crew.ends.store(true, Ordering::Relaxed);
                return Err(error.into());
            }
        }
        Ok(crew)
    }

    /// Ends them; all latencies in µs.
    pub fn end(self) -> Result<Vec<u32>> {
        self.ends.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in self.threads {
            all.extend(thread.join().map_err(|_| "a client panicked")??);
        }
        Ok(all)
    }
}

/// One connection.
struct Client {
    socket: TcpStream,
    /// Read and not yet taken.
    input: Vec<u8>,
    /// Of the prepared statement.
    statement: u32,
    /// Where in the table it is.
    place: u32,
}

impl Client {
    async fn login(port: u16) -> io::Result<Self> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        socket.set_nodelay(true)?;
        let mut connect = Connect::new(ConnectOptions {
            user: APP.to_owned(),
            database: APP.to_owned(),
            fixed: Vec::new(),
            secret: Some(LoginSecret::Password(Password::new(APP_PASSWORD))),
            tls: false,
            local_socket: false,
            nonce: [0; 18],
            max_prepared_statements: 0,
            statement_key: [0; 16],
            learned: std::sync::Arc::default(),
        });
        let (mut input, mut out) = (Vec::new(), Vec::new());
        loop {
            let (taken, step) = connect.step_inner(&input, &mut out).map_err(io::Error::other)?;
            input.drain(..taken);
            socket.write_all(&out).await?;
            out.clear();
            match step {
                Step::Done(_) => return Ok(Self { socket, input, statement: 0, place: 0 }),
                Step::NeedInput if socket.read_buf(&mut input).await? > 0 => {}
                step @ (Step::NeedInput | Step::StartTls | Step::Ask(_)) => {
                    return Err(io::Error::other(format!("the login ended: {step:?}")));
                }
            }
        }
    }

    /// Logged in, prepared, and not where the others are.
    async fn come_in(port: u16, work: Work, place: u32) -> io::Result<Self> {
        let mut client = Self::login(port).await?;
        client.place = place;
        if work == Work::Prepared {
            client
                .socket
                .write_all(&packet(command::STMT_PREPARE, b"SELECT filler FROM accounts WHERE id = ?"))
                .await?;
            let answer = client.packet().await?;
            client.statement = Reader(answer.get(1..).unwrap_or_default()).u32().unwrap_or_default();
            // A parameter and a column.
            for _ in 0..2 {
                client.packet().await?;
            }
        }
        Ok(client)
    }

    /// Works until the end; latencies in µs.
    async fn run(
        mut self,
        work: Work,
        counts: &AtomicBool,
        ends: &AtomicBool,
        done: &AtomicU64,
    ) -> io::Result<Vec<u32>> {
        let mut latencies = Vec::new();
        while !ends.load(Ordering::Relaxed) {
            let since = Instant::now();
            match work {
                Work::Text => {
                    let id = self.next_id();
                    self.exchange(&query(&format!("SELECT filler FROM accounts WHERE id = {id}"))).await?;
                }
                Work::Prepared => {
                    let (statement, id) = (self.statement.to_le_bytes(), self.next_id().to_le_bytes());
                    // No cursor, once; no NULL, types follow: an INT.
                    let body = [&statement[..], &[0, 1, 0, 0, 0, 0, 1, 3, 0], &id].concat();
                    self.exchange(&packet(command::STMT_EXECUTE, &body)).await?;
                }
                Work::Transaction => {
                    let (read, written) = (self.next_id(), self.next_id());
                    self.exchange(&query("BEGIN")).await?;
                    self.exchange(&query(&format!("SELECT filler FROM accounts WHERE id = {read}"))).await?;
                    self.exchange(&query(&format!("UPDATE accounts SET balance = balance + 1 WHERE id = {written}")))
                        .await?;
                    self.exchange(&query("COMMIT")).await?;
                }
            }
            done.fetch_add(1, Ordering::Relaxed);
            if counts.load(Ordering::Relaxed) {
                latencies.push(u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
        }
        self.socket.write_all(&packet(command::QUIT, b"")).await?;
        Ok(latencies)
    }

    /// Anywhere in the table, and never twice in a row.
    fn next_id(&mut self) -> u32 {
        self.place = self.place.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (self.place >> 8) % ROWS
    }

    /// A command, and its reply to the end.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        self.socket.write_all(request).await?;
        // The first packet ends the reply, or says how many columns follow; rows come behind those.
        let first = self.packet().await?;
        if first.first() == Some(&mark::OK) {
            return Ok(());
        }
        for _ in 0..Reader(&first).number().ok_or_else(|| io::Error::other("what is that?"))? {
            self.packet().await?;
        }
        loop {
            let row = self.packet().await?;
            if row.first() == Some(&mark::EOF) {
                let more = OkPacket::read(&row).map_or(0, |ok| ok.status & status::MORE_RESULTS);
                return if more == 0 { Ok(()) } else { Err(io::Error::other("a second result")) };
            }
        }
    }

    /// The payload of the next packet, if it is no error.
    async fn packet(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(head) = frame::head(&self.input).filter(|head| head.bytes() <= self.input.len()) {
                let payload: Vec<u8> = self.input.drain(..head.bytes()).skip(HEAD_BYTES).collect();
                return match server_error(&payload) {
                    Some(error) => Err(io::Error::other(format!("{} ({})", error.message, error.code))),
                    None => Ok(payload),
                };
            }
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn query(text: &str) -> Vec<u8> {
    packet(command::QUERY, text.as_bytes())
}

fn packet(command: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + 1 + body.len());
    frame::packet(&mut out, &mut 0, |out| {
        out.push(command);
        out.extend_from_slice(body);
    });
    out
}

/// Logs in and asks for something.
pub fn answers(port: u16) -> Result<()> {
    block_on(async {
        let mut client = Client::login(port).await?;
        client.exchange(&query("SELECT 1")).await
    })
}

fn block_on<T>(future: impl Future<Output = io::Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async { tokio::time::timeout(LOGIN_PATIENCE, future).await })??)
}
