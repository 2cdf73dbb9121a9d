//! What TLS vouches for: channel binding on both sides of the proxy, client certificates, TLS from the first byte, and
//! certificates that are exchanged while clients are here.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection, StreamOwned};
use sluicegate::config::TlsConfig;
use sluicegate::demo::servers::{APP, APP_PASSWORD, Feature, Installation, MONITOR, Options, PostgresServer};
use sluicegate::net::tls::server_config;

use crate::harness::gate::cancel_request;
use crate::harness::programs::{Ended, python, run};
use crate::harness::proxy::{ProxyHandle, config, set, start};
use crate::harness::until_running;
use crate::harness::wire::{Frame, Login, PATIENCE, Wire, kinds, message, query, read_frame};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Prints who it is, and by whose certificate.
const WHO: &str = "import psycopg, sys\n\
                   with psycopg.connect(sys.argv[1]) as conn:\n\
                   \x20   print(conn.execute('SELECT current_user').fetchone()[0])";

/// A CA, and a folder with what it has signed.
pub struct Ca {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    pub fn new() -> Self {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "a CA of the tests");
        let made = Self {
            folder: tempfile::tempdir().unwrap(),
            issuer: CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap(),
        };
        std::fs::write(made.file("ca.pem"), made.issuer.pem()).unwrap();
        made
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `NAME.pem` and `NAME.key`: a certificate for localhost, of this subject, signed by the CA.
    pub fn signs(&self, name: &str, subject: &str) {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), format!("{subject}.example.com")]).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, subject);
        self.write(name, &leaf.signed_by(&key, &self.issuer).unwrap().pem(), &key);
    }

    /// The same for localhost alone, signed by itself, with this algorithm.
    fn self_signed(&self, name: &str, algorithm: &'static SignatureAlgorithm) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        self.write(name, &leaf.self_signed(&key).unwrap().pem(), &key);
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.file(&format!("{name}.pem")), certificate).unwrap();
        let file = self.file(&format!("{name}.key"));
        std::fs::write(&file, key.serialize_pem()).unwrap();
        // libpq refuses others.
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn tls(&self, name: &str) -> TlsConfig {
        let file = |ending| self.file(&format!("{name}.{ending}"));
        TlsConfig { certificate: file("pem"), private_key: file("key"), client_ca: None }
    }
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// A proxy that shows this certificate.
pub fn config_with(server: SocketAddr, ca: &Ca, certificate: &str, tls: &str) -> String {
    let text = set(&config(server, 6), "endpoint", "tls", &format!("{tls:?}"));
    let text = set(&text, "tls", "certificate", &quoted(&ca.file(&format!("{certificate}.pem"))));
    set(&text, "tls", "private_key", &quoted(&ca.file(&format!("{certificate}.key"))))
}

fn server(feature: Feature) -> PostgresServer {
    let installation = Installation::find(feature).unwrap();
    PostgresServer::start(&installation, Options { ssl: true, ..Options::default() }).unwrap()
}

/// Logs in by psycopg, whose libpq is of this day.
fn psycopg(address: SocketAddr, user: &str, more: &str) -> Ended {
    let mut script = python();
    let port = address.port();
    script.arg("-c").arg(WHO).arg(format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user={user} dbname=app password={APP_PASSWORD} {more}"
    ));
    run(script, "")
}

fn verified(ca: &Path) -> String {
    format!("sslmode=verify-full sslrootcert={}", ca.display())
}

/// A TLS client that names these protocols.
fn client_config(root: &Path, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// TLS after asking for it, or at once.
pub fn open(address: SocketAddr, root: &Path, alpn: &[&[u8]], asks: bool) -> Tls {
    let mut stream = tcp(address);
    if asks {
        stream.write_all(&SSL_REQUEST).unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"S");
    }
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(client_config(root, alpn), name).unwrap(), stream)
}

/// The first reply to a startup packet, or why there is none.
fn greeted(mut stream: Tls) -> std::io::Result<Frame> {
    stream.write_all(&Login::app().database("app").startup())?;
    stream.flush()?;
    read_frame(&mut stream)
}

#[test]
fn pg_106_logins_are_bound_to_the_certificate_of_the_connection() {
    let (server, ca) = (server(Feature::Any), Ca::new());
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_RSA_SHA512,
    ] {
        ca.self_signed("bound", algorithm);
        let proxy = start(&config_with(server.address(), &ca, "bound", "required"));
        let tls = verified(&ca.file("bound.pem"));
        let bound = psycopg(proxy.address, APP, &format!("{tls} channel_binding=require"));
        assert_eq!(bound.quietly(), "app\n", "{algorithm:?}");
        let plain = psycopg(proxy.address, APP, &format!("{tls} channel_binding=disable"));
        assert_eq!(plain.quietly(), "app\n", "{algorithm:?}");
    }
    // Its signature has no hash: the binding is not offered, and nobody misses it who does not ask for it.
    ca.self_signed("loose", &rcgen::PKCS_ED25519);
    let proxy = start(&config_with(server.address(), &ca, "loose", "required"));
    let tls = verified(&ca.file("loose.pem"));
    assert_eq!(psycopg(proxy.address, APP, &tls).quietly(), "app\n");
    let refused = psycopg(proxy.address, APP, &format!("{tls} channel_binding=require"));
    assert!(refused.stderr.contains("channel binding"), "{refused}");
}

/// What is said to a first message after the mechanism's name: severity, code and words.
fn said(address: SocketAddr, root: &Path, mechanism: &str, first: &str) -> [Option<String>; 3] {
    let mut stream = open(address, root, &[], true);
    stream.write_all(&Login::app().database("app").startup()).unwrap();
    let asked = read_frame(&mut stream).unwrap();
    let offered = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    assert_eq!((asked.kind, asked.body.escape_ascii().to_string()), (b'R', offered.escape_ascii().to_string()));
    let length = i32::try_from(first.len()).unwrap().to_be_bytes();
    let body = [mechanism.as_bytes(), b"\0", &length, first.as_bytes()].concat();
    stream.write_all(&message(b'p', &body)).unwrap();
    let mut reply = read_frame(&mut stream).unwrap();
    if reply.kind == b'R' {
        // A challenge: answered without the data that binds.
        let nonce = String::from_utf8_lossy(&reply.body[4..]).split(',').next().unwrap().to_owned();
        let last = format!("c=biws,{nonce},p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        stream.write_all(&message(b'p', last.as_bytes())).unwrap();
        reply = read_frame(&mut stream).unwrap();
    }
    assert_eq!(reply.kind, b'E');
    [b'V', b'C', b'M'].map(|name| reply.field(name))
}

/// Word for word as the server itself.
#[test]
fn pg_106_downgrades_are_refused_as_the_server_does() {
    for feature in [Feature::Protocol3_0Only, Feature::Protocol3_2] {
        let (server, ca) = (server(feature), Ca::new());
        ca.signs("proxy", "localhost");
        let proxy = start(&config_with(server.address(), &ca, "proxy", "required"));
        let both = |mechanism: &str, first: &str| {
            let direct = said(server.address(), &server.socket_dir().join("ca.crt"), mechanism, first);
            assert_eq!(said(proxy.address, &ca.file("ca.pem"), mechanism, first), direct, "{mechanism} {first}");
            direct[1].clone().unwrap()
        };
        // "I could bind, you can't": somebody has cut the offer out.
        assert_eq!(both("SCRAM-SHA-256", "y,,n=,r=abc"), "28000");
        assert_eq!(both("SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=abc"), "08P01");
        assert_eq!(both("SCRAM-SHA-256-PLUS", "n,,n=,r=abc"), "08P01");
        assert_eq!(both("SCRAM-SHA-256-PLUS", "y,,n=,r=abc"), "08P01");
        // Bound to nothing in the end.
        assert_eq!(both("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=abc"), "28000");
        assert_eq!(both("SCRAM-SHA-256", "n,,n=,r=abc"), "28P01");
        assert_eq!(both("SCRAM-SHA-512", "n,,n=,r=abc"), "08P01");
    }
}

/// Ends TLS with a certificate of its own and opens another TLS to the server: what is said passes unchanged.
fn eavesdrops(server: SocketAddr, root: PathBuf, shows: &TlsConfig) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let shows = server_config(shows, None).unwrap().config;
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let (shows, root) = (shows.clone(), root.clone());
            thread::spawn(move || {
                let mut request = [0; 8];
                client.read_exact(&mut request).unwrap();
                client.write_all(b"S").unwrap();
                let mut client = StreamOwned::new(ServerConnection::new(shows).unwrap(), client);
                let mut server = open(server, &root, &[], true);
                // A login takes turns: what one says, then what the other says.
                let mut buffer = [0; 16 << 10];
                loop {
                    let Ok(read @ 1..) = client.read(&mut buffer) else { return };
                    server.write_all(&buffer[..read]).unwrap();
                    let Ok(read @ 1..) = server.read(&mut buffer) else { return };
                    client.write_all(&buffer[..read]).unwrap();
                }
            });
        }
    });
    address
}

/// This role need prove nothing from now on.
fn trust(server: &PostgresServer, role: &str) {
    let file = server.run_sql("postgres", "SHOW hba_file").unwrap();
    let file = file.lines().find(|line| line.contains("pg_hba.conf")).unwrap().trim().to_owned();
    let old = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("host all {role} all trust\n{old}")).unwrap();
    server.run_sql("postgres", "SELECT pg_reload_conf()").unwrap();
}

#[test]
fn pg_111_a_listener_between_proxy_and_database_is_found_out() {
    let (server, ca) = (server(Feature::Any), Ca::new());
    ca.signs("listener", "localhost");
    let between = eavesdrops(server.address(), server.socket_dir().join("ca.crt"), &ca.tls("listener"));
    // Any certificate will do for `require`: the password alone is what tells the two apart.
    let text = set(&config(between, 6), "target_group", "tls", "\"require\"");
    let proxy = start(&text);
    proxy.logs("SCRAM channel binding check failed");
    drop(proxy);
    // The logins of the pools, which are not the monitor's: that one is let in for nothing, so that they come to their turn.
    trust(&server, MONITOR);
    let proxy = start(&text);
    proxy.logs("the target is up");
    let refused = psycopg(proxy.address, APP, "sslmode=disable");
    assert!(refused.stderr.contains("could not log in"), "{refused}");
    let log = proxy.logs("can't log in at the database");
    assert!(log.contains("SCRAM channel binding check failed"), "{log}");
    drop(proxy);
    // One that does not even ask the database, but for the password itself.
    let heard = Arc::new(Mutex::new(Vec::new()));
    let between = asks_in_the_clear(&ca.tls("listener"), Arc::clone(&heard));
    let proxy = start(&set(&config(between, 6), "target_group", "tls", "\"require\""));
    let log = proxy.logs("anybody in between could be asking");
    assert!(log.contains("the target is unavailable"), "{log}");
    assert_eq!(heard.lock().unwrap().escape_ascii().to_string(), "");
    drop(proxy);
    let text = set(&config(server.address(), 6), "target_group", "tls", "\"require\"");
    let proxy = start(&text);
    assert_eq!(psycopg(proxy.address, APP, "sslmode=disable").quietly(), "app\n");
}

/// Ends TLS with this certificate and asks everybody for the password in the clear; notes what it is told.
fn asks_in_the_clear(shows: &TlsConfig, heard: Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let shows = server_config(shows, None).unwrap().config;
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 1024];
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.read_exact(&mut buffer[..8]).unwrap();
            client.write_all(b"S").unwrap();
            let mut client = StreamOwned::new(ServerConnection::new(shows.clone()).unwrap(), client);
            // Its startup packet.
            let Ok(1..) = client.read(&mut buffer) else { continue };
            client.write_all(b"R\0\0\0\x08\0\0\0\x03").unwrap();
            let _ = client.read(&mut buffer).map(|read| heard.lock().unwrap().extend_from_slice(&buffer[..read]));
        }
    });
    address
}

#[test]
fn certificates_let_clients_in() {
    let (server, ca, foreign) = (server(Feature::Any), Ca::new(), Ca::new());
    ca.signs("proxy", "localhost");
    ca.signs("app", APP);
    ca.signs("service", "service");
    foreign.signs("app", APP);
    let shows = |ca: &Ca, name: &str| {
        let file = |ending| ca.file(&format!("{name}.{ending}"));
        format!("sslcert={} sslkey={}", file("pem").display(), file("key").display())
    };
    let root = verified(&ca.file("ca.pem"));
    let text = set(&config_with(server.address(), &ca, "proxy", "optional"), "user", "auth", "[\"certificate\"]");
    let text = set(&text, "tls", "client_ca", &quoted(&ca.file("ca.pem")));
    let proxy = start(&text);
    let comes_in = |proxy: &ProxyHandle, shown: &str| {
        assert_eq!(psycopg(proxy.address, APP, &format!("{root} {shown}")).quietly(), "app\n");
    };
    let is_refused = |proxy: &ProxyHandle, user: &str, tls: &str| {
        let refused = psycopg(proxy.address, user, tls);
        let words = format!("certificate authentication failed for user \"{user}\"");
        assert!(refused.stderr.contains(&words), "{refused}");
    };
    comes_in(&proxy, &shows(&ca, "app"));
    is_refused(&proxy, APP, &format!("{root} {}", shows(&ca, "service")));
    is_refused(&proxy, APP, &format!("{root} sslcertmode=disable"));
    is_refused(&proxy, APP, "sslmode=disable");
    is_refused(&proxy, "nobody", &format!("{root} {}", shows(&ca, "app")));
    // Of the same name, but nobody here knows who has signed it.
    let refused = psycopg(proxy.address, APP, &format!("{root} {}", shows(&foreign, "app")));
    assert!(refused.stderr.contains("alert"), "{refused}");
    drop(proxy);
    // By other names than the user's own.
    let named = set(&text, "user", "certificate_names", "[\"other\", \"service.example.com\"]");
    let proxy = start(&named);
    comes_in(&proxy, &shows(&ca, "service"));
    is_refused(&proxy, APP, &format!("{root} {}", shows(&ca, "app")));
}

#[test]
fn pg_100_tls_from_the_first_byte() {
    let (server, ca) = (server(Feature::Protocol3_2), Ca::new());
    ca.signs("proxy", "localhost");
    let root = ca.file("ca.pem");
    for tls in ["required", "optional"] {
        let proxy = start(&config_with(server.address(), &ca, "proxy", tls));
        let direct = psycopg(proxy.address, APP, &format!("{} sslnegotiation=direct", verified(&root)));
        assert_eq!(direct.quietly(), "app\n");
        for (address, root) in [(proxy.address, root.clone()), (server.address(), server.socket_dir().join("ca.crt"))] {
            assert_eq!(greeted(open(address, &root, &[b"postgresql"], false)).unwrap().kind, b'R');
            assert_eq!(greeted(open(address, &root, &[b"h2", b"postgresql"], false)).unwrap().kind, b'R');
            // Who asks first may leave it out, but not say something else.
            assert_eq!(greeted(open(address, &root, &[], true)).unwrap().kind, b'R');
            assert_eq!(greeted(open(address, &root, &[b"postgresql"], true)).unwrap().kind, b'R');
            for asks in [true, false] {
                let refused = greeted(open(address, &root, &[b"h2"], asks)).unwrap_err().to_string();
                assert!(refused.contains("NoApplicationProtocol"), "{refused}");
            }
            // Without a name there is TLS, and then not a word.
            assert!(greeted(open(address, &root, &[], false)).is_err());
            // A cancel request comes in as a login does, and is never answered.
            let mut cancel = open(address, &root, &[b"postgresql"], false);
            cancel.write_all(&[0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap();
            let mut rest = Vec::new();
            let _ = cancel.read_to_end(&mut rest);
            assert_eq!(rest, b"");
        }
        if tls == "optional" {
            // It cancels, too.
            let mut one = Wire::connect(proxy.address, &Login::app().database("app")).unwrap();
            let key = one.login().iter().find(|frame| frame.kind == b'K').unwrap().body.clone();
            one.send(&query("SELECT pg_sleep(600)"));
            until_running(&server, "app", "%pg_sleep(600)", 1);
            let mut cancel = open(proxy.address, &root, &[b"postgresql"], false);
            cancel.write_all(&cancel_request(&key)).unwrap();
            let _ = cancel.read_to_end(&mut Vec::new());
            assert_eq!(kinds(&one.until_ready(1)), "TEZ");
        }
        proxy.logs("without ALPN");
    }
    // Where there is no TLS, this is no startup packet.
    let proxy = start(&config(server.address(), 6));
    assert!(greeted(open(proxy.address, &root, &[b"postgresql"], false)).is_err());
    proxy.logs("invalid message length");
}

#[test]
fn certificates_and_users_are_read_again() {
    let (server, ca, new) = (server(Feature::Any), Ca::new(), Ca::new());
    ca.signs("proxy", "localhost");
    new.signs("proxy", "localhost");
    let text = config_with(server.address(), &ca, "proxy", "required");
    let proxy = start(&text);
    let (old_root, new_root) = (verified(&ca.file("ca.pem")), verified(&new.file("ca.pem")));
    let stays = "import psycopg, sys\n\
                 conn = psycopg.connect(sys.argv[1])\n\
                 print('here', flush=True)\n\
                 sys.stdin.readline()\n\
                 print(conn.execute('SELECT current_user').fetchone()[0])";
    let mut script = python();
    let port = proxy.address.port();
    script.arg("-c").arg(stays).arg(format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user={APP} dbname=app password={APP_PASSWORD} {old_root}"
    ));
    script.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut here = script.spawn().unwrap();
    let mut said = std::io::BufReader::new(here.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_eq!(line, "here\n");

    // Nonsense changes nothing.
    proxy.reload(&format!("{text}\nnonsense"));
    proxy.logs("nothing is reloaded");
    assert_eq!(psycopg(proxy.address, APP, &old_root).quietly(), "app\n");
    // Another certificate, another user, and something that can't be exchanged.
    let changed = config_with(server.address(), &new, "proxy", "required");
    let changed = set(&changed, "runtime", "workers", "1");
    let user = format!(
        "\n[[user]]\nname = \"second\"\ndatabase_user = \"{APP}\"\npassword = {{ value = \"{APP_PASSWORD}\" }}\n"
    );
    let refused = psycopg(proxy.address, "second", &old_root);
    assert!(refused.stderr.contains("password authentication failed"), "{refused}");
    proxy.reload(&format!("{changed}{user}"));
    proxy.logs("reloaded: users");
    assert!(proxy.logs("takes a restart").contains("tables=\"[runtime]\""));
    assert_eq!(psycopg(proxy.address, APP, &new_root).quietly(), "app\n");
    assert_eq!(psycopg(proxy.address, "second", &new_root).quietly(), "app\n");
    let refused = psycopg(proxy.address, APP, &old_root);
    assert!(refused.stderr.contains("SSL error"), "{refused}");
    // A file without TLS: endpoints go on offering it until a restart, and have something to show.
    proxy.reload(&config(server.address(), 6));
    proxy.until_logs("reloaded: users", 2);
    let refused = psycopg(proxy.address, "second", &new_root);
    assert!(refused.stderr.contains("password authentication failed"), "{refused}");
    assert_eq!(psycopg(proxy.address, APP, &new_root).quietly(), "app\n");
    // Who was here stays.
    here.stdin.take().unwrap().write_all(b"\n").unwrap();
    line.clear();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_eq!(line, "app\n");
    assert!(here.wait().unwrap().success());
}

/// What load balancers and scanners do before and inside a handshake: nothing is said of it at `info`, no place stays taken.
#[test]
fn pg_112_who_connects_and_leaves_a_tls_endpoint() {
    let (server, ca) = (server(Feature::Any), Ca::new());
    const RECEIVED: &str = "sluicegate_client_connections_received_total";
    const CLOSED: &str = "sluicegate_client_connections_closed_total";
    ca.signs("proxy", "localhost");
    let text = set(&config_with(server.address(), &ca, "proxy", "required"), "endpoint", "max_clients", "4");
    // Nothing else is to be said of the target.
    let proxy = start(&set(&text, "target_group.health", "timeout", "\"20s\""));
    proxy.logs("the target is up");
    let lines = proxy.log().lines().count();
    type Leaves = fn(TcpStream);
    let leaves: [(&str, Leaves); 5] = [
        ("closes", drop),
        ("resets", |stream| {
            socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }),
        ("asks for TLS", |mut stream| {
            stream.write_all(&SSL_REQUEST).unwrap();
            let _ = stream.read(&mut [0]);
        }),
        ("asks and resets", |mut stream| {
            stream.write_all(&SSL_REQUEST).unwrap();
            let _ = stream.read(&mut [0]);
            socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }),
        ("begins a handshake", |mut stream| {
            stream.write_all(&SSL_REQUEST).unwrap();
            let _ = stream.read(&mut [0]);
            stream.write_all(b"\x16\x03\x01\x02\0\x01").unwrap();
        }),
    ];
    for (how, leave) in leaves {
        let came = proxy.metric(RECEIVED);
        for _ in 0..20 {
            leave(tcp(proxy.address));
        }
        // Those who have reset theirs may be gone before they are seen; one who comes after them is, and leaves as the last.
        drop(tcp(proxy.address));
        let began = std::time::Instant::now();
        while proxy.metric(RECEIVED) <= came || proxy.metric(RECEIVED) > proxy.metric(CLOSED) {
            assert!(began.elapsed() < PATIENCE, "who {how}: {}", proxy.log());
        }
        let log = proxy.log();
        assert_eq!(log.lines().count(), lines, "who {how}: {log}");
    }
    // All places are free: as many as there are come in at the same time.
    let root = verified(&ca.file("ca.pem"));
    let mut script = python();
    let port = proxy.address.port();
    script
        .arg("-c")
        .arg("import psycopg, sys\nconns = [psycopg.connect(sys.argv[1]) for _ in range(4)]\nprint(len(conns))");
    script.arg(format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user={APP} dbname=app password={APP_PASSWORD} {root}"
    ));
    assert_eq!(run(script, "").quietly(), "4\n");
}

/// Junk in place of a handshake costs tries, and does not fill the log.
#[test]
fn handshakes_that_fail_are_tries_and_little_noise() {
    let (server, ca) = (server(Feature::Any), Ca::new());
    ca.signs("proxy", "localhost");
    let proxy = start(&config_with(server.address(), &ca, "proxy", "optional"));
    proxy.logs("the target is up");
    let began = std::time::Instant::now();
    let mut number = 0;
    loop {
        let mut stream = tcp(proxy.address);
        stream.write_all(&SSL_REQUEST).unwrap();
        let _ = stream.read(&mut [0]);
        stream.write_all(b"\x16\x03\x01\0\x05hello").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        number += 1;
        if let Err(refused) = Wire::connect(proxy.address, &Login::app().database("app")) {
            assert!(refused.to_string().contains("too many failed logins"), "{refused}");
            break;
        }
        assert!(
            number < 2000 && began.elapsed() < PATIENCE,
            "{number} handshakes, and still one more: {}",
            proxy.log()
        );
    }
    assert!(number >= 100, "{number}");
    let lines = proxy.log().matches("TLS failed").count();
    let most = 1 + usize::try_from(began.elapsed().as_secs() / 10).unwrap();
    assert!((1..=most).contains(&lines), "{lines} lines: {}", proxy.log());
}

/// Asks for TLS with one version and these ciphers; prints the cipher, or the error's name.
const SCAN: &str = r#"
import socket, ssl, sys
port, ca, version, ciphers = int(sys.argv[1]), sys.argv[2], getattr(ssl.TLSVersion, sys.argv[3]), sys.argv[4]
context = ssl.create_default_context(cafile=ca)
context.minimum_version = context.maximum_version = version
plain = socket.create_connection(("127.0.0.1", port))
plain.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
assert plain.recv(1) == b"S"
try:
    context.set_ciphers(ciphers + ":@SECLEVEL=0")
    secured = context.wrap_socket(plain, server_hostname="localhost")
    print(secured.cipher()[0], secured.compression())
except ssl.SSLError as error:
    print(error.reason)
"#;

#[test]
fn what_a_scanner_asks() {
    let (server, ca) = (server(Feature::Any), Ca::new());
    ca.signs("ecdsa", "localhost");
    ca.self_signed("rsa", &rcgen::PKCS_RSA_SHA256);
    for (certificate, root) in [("ecdsa", "ca.pem"), ("rsa", "rsa.pem")] {
        let proxy = start(&config_with(server.address(), &ca, certificate, "required"));
        let scan = |version: &str, ciphers: &str| {
            let mut script = python();
            script.args(["-W", "ignore", "-c", SCAN]).arg(proxy.address.port().to_string()).arg(ca.file(root));
            script.args([version, ciphers]);
            run(script, "").quietly()
        };
        for version in ["TLSv1", "TLSv1_1"] {
            let refused = scan(version, "ALL");
            assert!(refused.contains("_ALERT_"), "{version}: {refused}");
        }
        assert_eq!(scan("TLSv1_3", "ALL"), "TLS_AES_256_GCM_SHA384 None\n");
        let name = certificate.to_uppercase();
        for cipher in ["AES256-GCM-SHA384", "AES128-GCM-SHA256", "CHACHA20-POLY1305"] {
            let wanted = format!("ECDHE-{name}-{cipher}");
            assert_eq!(scan("TLSv1_2", &wanted), format!("{wanted} None\n"));
        }
        // No forward secrecy, no authenticated encryption, no strength.
        for weak in ["kRSA", "DHE", "ECDHE+SHA", "ECDHE+SHA256:!AESGCM:!CHACHA20", "aNULL"] {
            let refused = scan("TLSv1_2", weak);
            assert!(refused.contains("HANDSHAKE_FAILURE"), "{weak}: {refused}");
        }
    }
}
