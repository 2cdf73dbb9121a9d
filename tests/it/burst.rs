//! A burst, as functions that start at once make it: 2,000 clients connect with TLS and a signed token, run one
//! transaction and leave, over 20 database connections.
//!
//! All of them are connected at the same time, all stand in line at the same time. The database itself refuses a
//! connection too many (the role's `CONNECTION LIMIT`), so none can hide between two looks. Three bursts, one after
//! another: the memory that the proxy holds after the third must be that after the first.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use sluicegate::auth::{Keys, make_token};
use sluicegate::config::Secret;
use sluicegate::demo::servers::Feature;
use sluicegate::net::tls::self_signed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::levels::{Levels, memory_kib, raise_file_limit};
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::wire::{Login, Wire, message, query, terminate};
use crate::harness::{database, server};

const CLIENTS: usize = 2_000;
const CONNECTIONS: u32 = 20;
/// Of the proxy's own, for its questions; they count against its limit and are not the clients'.
const OWN_CONNECTIONS: u32 = 2;
const BURSTS: usize = 3;
/// All of a burst's logins begin at once, and the programs are not optimised: the last client waits for its turn.
const LONG: Duration = Duration::from_secs(120);
/// Memory may differ by so many percent.
const DRIFT_PERCENT: u64 = 10;

const ROLE: &str = "burst";
const REGION: &str = "eu-central-1";
const KEY_ID: &str = "AKIAEXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

#[test]
fn two_thousand_clients_with_tokens_over_twenty_connections() {
    raise_file_limit(CLIENTS as u64 + 500);
    let server = server(Feature::Any);
    let mut superuser = Wire::connect(server.address(), &Login::superuser().database("postgres")).unwrap();
    superuser.query(&format!(
        "DO $$ BEGIN CREATE ROLE {ROLE}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         ALTER ROLE {ROLE} LOGIN CONNECTION LIMIT {CONNECTIONS} PASSWORD 'burst-secret'"
    ));
    let done = [
        "CREATE TABLE done (burst int, client int, PRIMARY KEY (burst, client))".to_owned(),
        format!("GRANT ALL ON done TO {ROLE}"),
    ];
    let name = database(server, "burst", &done);
    let scene = Scene::new(server.address(), name);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();

    let mut memory = vec![("before", memory_kib(scene.proxy.id()))];
    for burst in 1..=BURSTS {
        let began = Instant::now();
        let (logins, highest) = scene.watch(server.address(), || runtime.block_on(scene.burst(burst)));
        let levels = Levels::wait_until(scene.proxy.admin, "everybody gone", |levels| {
            levels.clients + levels.waiting + levels.in_use == 0
        });
        memory.push(("after a burst", memory_kib(scene.proxy.id())));
        println!("burst {burst}: {:?}, logins {logins:?}; {levels:?}", began.elapsed());
        // Not one login at the database was refused, and that would have been the 21st.
        assert_eq!(levels.failed, 0, "{}", scene.proxy.log());
        assert_eq!((levels.idle, highest), (u64::from(CONNECTIONS), u64::from(CONNECTIONS)));
    }
    println!("memory of the proxy in KiB: {memory:?}");
    let mut superuser = Wire::connect(server.address(), &Login::superuser().database(&scene.database)).unwrap();
    assert_eq!(superuser.value("SELECT count(*) FROM done"), (BURSTS * CLIENTS).to_string());
    let (first, last) = (memory[1].1, memory[BURSTS].1);
    assert!(last <= first + first * DRIFT_PERCENT / 100, "the proxy holds more and more memory, in KiB: {memory:?}");
}

/// A proxy with TLS and tokens, and what a client must know of it.
struct Scene {
    database: String,
    proxy: ProxyHandle,
    connector: TlsConnector,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new(server: SocketAddr, database: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let certificate = self_signed(&["localhost"]).unwrap();
        let identities = format!(
            "[[identity]]\naccess_key_id = '{KEY_ID}'\nsecret_access_key = {{ value = '{SECRET_KEY}' }}\n\
             [[identity.statement]]\neffect = 'Allow'\naction = 'rds-db:connect'\n\
             resource = 'arn:aws:rds-db:{REGION}:123456789012:dbuser:prx-1/{ROLE}'\n"
        );
        let files = [
            ("proxy.pem", &certificate.certificate),
            ("proxy.key", &certificate.private_key),
            ("ids.toml", &identities),
        ];
        for (name, text) in files {
            fs::write(file(name), text).unwrap();
            fs::set_permissions(file(name), PermissionsExt::from_mode(0o600)).unwrap();
        }
        let mut text = config(server, CONNECTIONS + OWN_CONNECTIONS);
        for (table, key, value) in [
            ("endpoint", "tls", "\"required\"".to_owned()),
            ("endpoint", "hostnames", "[\"localhost\"]".to_owned()),
            ("endpoint", "login_timeout", format!("\"{}s\"", LONG.as_secs())),
            ("target_group.pool", "connection_borrow_timeout", format!("\"{}s\"", LONG.as_secs())),
            // None is closed in between: the database would count one that is just leaving.
            ("target_group.pool", "max_idle_connections_percent", "100".to_owned()),
            ("user", "name", format!("{ROLE:?}")),
            ("user", "auth", "[\"iam\"]".to_owned()),
            ("user", "password", "{ value = \"burst-secret\" }".to_owned()),
            ("tls", "certificate", format!("{:?}", file("proxy.pem"))),
            ("tls", "private_key", format!("{:?}", file("proxy.key"))),
            ("iam", "region", format!("{REGION:?}")),
            ("iam", "account", "\"123456789012\"".to_owned()),
            ("iam", "resource_id", "\"prx-1\"".to_owned()),
            ("iam", "identities_file", format!("{:?}", file("ids.toml"))),
        ] {
            text = set(&text, table, key, &value);
        }
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.ca.as_bytes()).unwrap()).unwrap();
        let mut client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // Every client is a new process: it has no ticket of an earlier one.
        client.resumption = Resumption::disabled();
        let connector = TlsConnector::from(Arc::new(client));
        Self { database, proxy: start(&text), connector, _folder: folder }
    }

    /// Counts the clients' connections at the database while `work` runs: what `work` gives, and the highest count.
    fn watch<T>(&self, server: SocketAddr, work: impl FnOnce() -> T) -> (T, u64) {
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{ROLE}'");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let mut superuser = Wire::connect(server, &Login::superuser().database("postgres")).unwrap();
                let mut highest = 0;
                loop {
                    // Once more behind the end of the work.
                    let last = over.load(Ordering::Relaxed);
                    highest = highest.max(superuser.value(&count).parse().unwrap());
                    if last {
                        return highest;
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let done = work();
            over.store(true, Ordering::Relaxed);
            (done, watching.join().unwrap())
        })
    }

    /// All clients log in; when all have, all run their transaction; when all have, all leave. How long the logins took.
    async fn burst(&self, burst: usize) -> Duration {
        let began = Instant::now();
        let (address, connector) = (self.proxy.address, &self.connector);
        let startup = Login::new(ROLE, "").database(&self.database).startup();
        let keys = Keys {
            access_key_id: KEY_ID.to_owned(),
            secret_access_key: Secret::new(SECRET_KEY.to_owned()),
            session_token: None,
        };
        let clients = all((0..CLIENTS).map(|_| {
            let token = make_token(&keys, "localhost", address.port(), ROLE, REGION, SystemTime::now()).unwrap();
            log_in(address, connector.clone(), startup.to_vec(), token)
        }))
        .await;
        let logins = began.elapsed();
        let clients =
            all(clients.into_iter().enumerate().map(|(number, client)| transact(client, burst, number))).await;
        all(clients.into_iter().map(leave)).await;
        logins
    }
}

/// Runs them all at once; panics with the first few errors if there were any.
async fn all<T: Send + 'static>(
    futures: impl Iterator<Item = impl Future<Output = io::Result<T>> + Send + 'static>,
) -> Vec<T> {
    let (mut running, mut done, mut errors) = (JoinSet::new(), Vec::new(), Vec::new());
    for future in futures {
        running.spawn(tokio::time::timeout(LONG, future));
    }
    while let Some(ended) = running.join_next().await {
        match ended.unwrap() {
            Ok(Ok(value)) => done.push(value),
            Ok(Err(error)) => errors.push(error.to_string()),
            Err(_) => errors.push(format!("not done within {LONG:?}")),
        }
    }
    assert!(errors.is_empty(), "{} clients failed, such as: {:#?}", errors.len(), &errors[..errors.len().min(5)]);
    done
}

type Client = TlsStream<TcpStream>;

async fn log_in(address: SocketAddr, connector: TlsConnector, startup: Vec<u8>, token: String) -> io::Result<Client> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    expect("an answer to SSLRequest", b'S', socket.read_u8().await?)?;
    let mut client = connector.connect("localhost".try_into().map_err(io::Error::other)?, socket).await?;
    client.write_all(&startup).await?;
    let (kind, body) = frame(&mut client).await?;
    expect("a request for a password", b'R', kind)?;
    expect("a request for one in clear", 3, *body.last().unwrap_or(&0))?;
    client.write_all(&message(b'p', format!("{token}\0").as_bytes())).await?;
    until_ready(&mut client, b'I').await?;
    Ok(client)
}

async fn transact(mut client: Client, burst: usize, number: usize) -> io::Result<Client> {
    client.write_all(&query("BEGIN")).await?;
    until_ready(&mut client, b'T').await?;
    // The sleep is what makes twenty connections worth having.
    let insert = format!("INSERT INTO done SELECT {burst}, {number} FROM pg_sleep(0.005) RETURNING client");
    client.write_all(&query(&insert)).await?;
    let rows = until_ready(&mut client, b'T').await?;
    let expected = number.to_string();
    if rows.len() != 1 || rows.first().and_then(|row| row.get(6..)) != Some(expected.as_bytes()) {
        return Err(io::Error::other(format!("client {number} received {rows:?}")));
    }
    client.write_all(&query("COMMIT")).await?;
    until_ready(&mut client, b'I').await?;
    Ok(client)
}

async fn leave(mut client: Client) -> io::Result<()> {
    client.write_all(&terminate()).await?;
    match client.read(&mut [0; 16]).await {
        Ok(0) => Ok(()),
        Ok(_) => Err(io::Error::other("something came after Terminate")),
        Err(error) => Err(error),
    }
}

/// Reads up to a ReadyForQuery of this status; the bodies of the rows before it. An error is one.
async fn until_ready(client: &mut Client, status: u8) -> io::Result<Vec<Vec<u8>>> {
    let mut rows = Vec::new();
    loop {
        match frame(client).await? {
            (b'Z', body) => return expect("a status", status, *body.last().unwrap_or(&0)).map(|()| rows),
            (b'E', body) => return Err(io::Error::other(String::from_utf8_lossy(&body).into_owned())),
            (b'D', body) => rows.push(body),
            _ => {}
        }
    }
}

async fn frame(client: &mut Client) -> io::Result<(u8, Vec<u8>)> {
    let kind = client.read_u8().await?;
    let length = client.read_u32().await?.checked_sub(4).ok_or_else(|| io::Error::other("a length below 4"))?;
    let mut body = vec![0; length as usize];
    client.read_exact(&mut body).await?;
    Ok((kind, body))
}

fn expect(what: &str, expected: u8, found: u8) -> io::Result<()> {
    if expected == found { Ok(()) } else { Err(io::Error::other(format!("not {what}: {found} for {expected}"))) }
}
