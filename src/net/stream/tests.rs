//! Tests of the stream over memory, loopback and unix sockets, with and without TLS.

use std::future::poll_fn;
use std::sync::mpsc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::config::{TargetTls, TargetTlsMode, TlsConfig};
use crate::net::tls;

/// Streams and what stands for them on the way are handed between threads.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Stream>();
    is_send::<Detached>();
};

async fn read(stream: &mut Stream, buf: &mut [u8]) -> usize {
    poll_fn(|cx| stream.poll_read(cx, buf)).await.unwrap()
}

async fn read_exactly(stream: &mut Stream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        let read = read(stream, &mut bytes[filled..]).await;
        assert_ne!(read, 0, "ended after {filled} of {len} bytes");
        filled += read;
    }
    bytes
}

async fn write_all(stream: &mut Stream, bytes: &[u8]) {
    let mut written = 0;
    while written < bytes.len() {
        // Several slices of uneven length, as the relay writes them.
        let rest = &bytes[written..];
        let (a, rest) = rest.split_at(rest.len() / 3);
        let (b, c) = rest.split_at(rest.len() / 7);
        let slices = [IoSlice::new(a), IoSlice::new(b), IoSlice::new(c)];
        written += poll_fn(|cx| stream.poll_write(cx, &slices)).await.unwrap();
    }
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    assert!(!stream.wants_flush());
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    fn new() -> Self {
        let made = tls::self_signed(&["localhost"]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let certificate = file("cert", &made.certificate);
        let private_key = file("key", &made.private_key);
        let ca_file = Some(file("ca", &made.ca));
        let server = tls::server_config(&TlsConfig { certificate, private_key, client_ca: None }, None).unwrap().config;
        let client =
            tls::client_config(&TargetTls { mode: TargetTlsMode::VerifyFull, ca_file }).unwrap().unwrap().config;
        Self { server, client }
    }

    /// Server and client side of a session.
    async fn over(&self, (server, client): (Stream, Stream)) -> (Stream, Stream) {
        let name = ServerName::try_from("localhost").unwrap();
        let (server, client) = tokio::join!(
            server.into_tls_server(self.server.clone()),
            client.into_tls_client(self.client.clone(), name)
        );
        (server.unwrap(), client.unwrap())
    }
}

async fn tcp_pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = TargetAddress::Tcp { host: "localhost".to_owned(), port };
    let (accepted, connected) = tokio::join!(listener.accept(), connect(&address, Duration::from_secs(5)));
    (Stream::tcp(accepted.unwrap().0).unwrap(), connected.unwrap())
}

async fn unix_pair() -> (Stream, Stream) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".s.PGSQL.5432");
    let listener = UnixListener::bind(&path).unwrap();
    let address = TargetAddress::Unix(path);
    let (accepted, connected) = tokio::join!(listener.accept(), connect(&address, Duration::from_secs(5)));
    (Stream::unix(accepted.unwrap().0), connected.unwrap())
}

fn memory_pair(bytes: usize) -> (Stream, Stream) {
    let (a, b) = tokio::io::duplex(bytes);
    (Stream::memory(a), Stream::memory(b))
}

/// Writes far more than any buffer on the way holds while the other side reads late and in odd pieces; then the end.
async fn check_back_pressure((mut from, mut to): (Stream, Stream)) {
    let sent = pattern(6 * 1024 * 1024);
    let expected = sent.clone();
    let writer = async {
        write_all(&mut from, &sent).await;
        poll_fn(|cx| from.poll_shutdown(cx)).await.unwrap();
    };
    let reader = async {
        // The writer runs into a wall first.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let mut received = Vec::with_capacity(expected.len());
        let mut buf = vec![0; 30_011];
        loop {
            match read(&mut to, &mut buf).await {
                0 => break,
                read => received.extend_from_slice(&buf[..read]),
            }
        }
        assert!(received == expected, "{} bytes arrived", received.len());
        // The end stays the end.
        assert_eq!(read(&mut to, &mut buf).await, 0);
    };
    tokio::join!(writer, reader);
}

#[tokio::test]
async fn large_writes_wait_for_the_reader_and_lose_nothing() {
    check_back_pressure(memory_pair(1000)).await;
    check_back_pressure(tcp_pair().await).await;
    check_back_pressure(unix_pair().await).await;
    let tls = Tls::new();
    check_back_pressure(tls.over(memory_pair(1000)).await).await;
    let (server, client) = tls.over(tcp_pair().await).await;
    assert!(server.is_tls() && client.is_tls());
    check_back_pressure((server, client)).await;
    let (server, client) = tls.over(unix_pair().await).await;
    check_back_pressure((client, server)).await;
}

#[tokio::test]
async fn what_tls_took_before_it_stalled_is_not_lost() {
    let (mut from, mut to) = Tls::new().over(memory_pair(512)).await;
    let sent = pattern(10_000);
    let mut noop = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(taken)) = from.poll_write(&mut noop, &[IoSlice::new(&sent)]) else { panic!("nothing taken") };
    assert_eq!(taken, sent.len(), "rustls takes up to 64 KiB ahead");
    assert!(from.wants_flush());
    assert!(from.poll_flush(&mut noop).is_pending());
    let flush = async { poll_fn(|cx| from.poll_flush(cx)).await.unwrap() };
    let ((), received) = tokio::join!(flush, read_exactly(&mut to, sent.len()));
    assert!(received == sent);
    assert!(!from.wants_flush());
    // Beyond its buffer TLS takes nothing more, and says so.
    let mut all = 0;
    while let Poll::Ready(taken) = from.poll_write(&mut noop, &[IoSlice::new(&sent)]) {
        all += taken.unwrap();
        assert!(all < 200_000, "unbounded");
    }
}

/// Scenario 95: one record, read in pieces smaller than it, while the socket stays quiet.
#[tokio::test]
async fn a_record_larger_than_the_read_buffer_is_drained() {
    for pair in [memory_pair(1 << 20), tcp_pair().await] {
        let (mut server, mut client) = Tls::new().over(pair).await;
        // Clients send records of up to 16 KiB.
        let sent = pattern(16_000);
        write_all(&mut client, &sent).await;
        let mut buf = [0; 1000];
        let first = read(&mut server, &mut buf).await;
        let mut received = buf[..first].to_vec();
        // No wake-up can come from the socket any more: polling alone must give the rest.
        let mut noop = Context::from_waker(Waker::noop());
        while received.len() < sent.len() {
            let Poll::Ready(read) = server.poll_read(&mut noop, &mut buf) else {
                panic!("asleep with {} of {} bytes", received.len(), sent.len())
            };
            received.extend_from_slice(&buf[..read.unwrap()]);
        }
        assert!(received == sent);
        assert!(server.poll_read(&mut noop, &mut buf).is_pending());
    }
}

/// Scenario 96: no record to a client carries more than 8 KiB.
#[tokio::test]
async fn records_to_clients_are_small() {
    let (server, client) = tokio::io::duplex(1 << 20);
    let tls = Tls::new();
    let name = ServerName::try_from("localhost").unwrap();
    let (server, client) = tokio::join!(
        Stream::memory(server).into_tls_server(tls.server.clone()),
        TlsConnector::from(tls.client.clone()).connect(name, client),
    );
    let mut server = server.unwrap();
    let (mut raw, mut session) = client.unwrap().into_inner();
    write_all(&mut server, &pattern(100_000)).await;
    drop(server);
    let mut wire = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut raw, &mut wire).await.unwrap();
    let (mut rest, mut largest, mut plain) = (wire.as_slice(), 0, 0);
    while rest.len() >= 5 {
        let (mut record, tail) = rest.split_at(5 + usize::from(u16::from_be_bytes([rest[3], rest[4]])));
        rest = tail;
        while !record.is_empty() {
            session.read_tls(&mut record).unwrap();
            session.process_new_packets().unwrap();
        }
        let bytes = session.process_new_packets().unwrap().plaintext_bytes_to_read();
        std::io::Read::read_exact(&mut session.reader(), &mut vec![0; bytes]).unwrap();
        largest = largest.max(bytes);
        plain += bytes;
    }
    assert_eq!((plain, largest), (100_000, 8 * 1024));
}

#[tokio::test]
async fn a_tls_peer_that_leaves_without_goodbye_is_at_its_end() {
    let (server, mut client) = Tls::new().over(tcp_pair().await).await;
    // Dropping sends no close_notify.
    drop(server);
    assert_eq!(read(&mut client, &mut [0; 10]).await, 0);
    assert_eq!(read(&mut client, &mut [0; 10]).await, 0);
}

#[tokio::test]
async fn looking_without_waiting_sees_what_the_runtime_has_not_heard_of() {
    let tls = Tls::new();
    for pair in [tcp_pair().await, unix_pair().await, memory_pair(4096), tls.over(tcp_pair().await).await] {
        let (mut here, mut there) = pair;
        let mut buf = [0; 64];
        // A TLS server's tickets are read here, and are nothing.
        assert!(there.read_now(&mut buf).unwrap().is_none());
        // Blocks the runtime from here on: no await, so nothing is heard.
        let mut noop = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(5)) = here.poll_write(&mut noop, &[IoSlice::new(b"hello")]) else { panic!() };
        assert_eq!(there.read_now(&mut buf).unwrap(), Some(5));
        assert_eq!(&buf[..5], b"hello");
        assert_eq!(there.read_now(&mut buf).unwrap(), None);
        // And the ordinary way still wakes up.
        write_all(&mut here, b"again").await;
        assert_eq!(read_exactly(&mut there, 5).await, b"again");
        drop(here);
        assert_eq!(there.read_now(&mut buf).unwrap(), Some(0));
    }
}

fn on_a_thread<T: Send + 'static>(work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tell.send(runtime.block_on(work())).unwrap();
    });
    let result = told.recv().unwrap();
    thread.join().unwrap();
    result
}

/// A session begun on one runtime goes on on others, with bytes under way in both directions when it moves; the
/// runtimes it came from are gone by then.
fn check_move(make: impl AsyncFnOnce() -> (Stream, Stream) + Send + 'static) {
    let (server, client) = on_a_thread(async move || {
        let (mut server, mut client) = make().await;
        write_all(&mut client, b"request one, and half of").await;
        assert_eq!(read_exactly(&mut server, 11).await, b"request one");
        write_all(&mut server, b"unread").await;
        (server.detach().unwrap(), client.detach().unwrap())
    });
    // Outside of a runtime it can't be attached, which is an error and no panic.
    let (server, client) = on_a_thread(async move || {
        let (mut server, mut client) = (server.attach().unwrap(), client.attach().unwrap());
        // Nothing has been heard of the new sockets yet; the bytes are seen all the same.
        let mut buf = [0; 64];
        assert_eq!(client.read_now(&mut buf).unwrap(), Some(6));
        assert_eq!(&buf[..6], b"unread");
        assert_eq!(read_exactly(&mut server, 13).await, b", and half of");
        write_all(&mut client, b" request two").await;
        (server.detach().unwrap(), client.detach().unwrap())
    });
    on_a_thread(async move || {
        let (mut server, client) = (server.attach().unwrap(), client.attach().unwrap());
        assert_eq!(read_exactly(&mut server, 12).await, b" request two");
        check_back_pressure((server, client)).await;
    });
}

#[test]
fn a_stream_moves_between_runtimes_in_mid_session() {
    check_move(tcp_pair);
    check_move(unix_pair);
    check_move(async || memory_pair(4096));
    let tls = Tls::new();
    check_move(async move || tls.over(tcp_pair().await).await);
    let tls = Tls::new();
    check_move(async move || tls.over(unix_pair().await).await);
}

#[test]
fn a_stream_needs_a_runtime() {
    let detached = on_a_thread(async || tcp_pair().await.0.detach().unwrap());
    assert!(detached.attach().is_err());
}

#[tokio::test]
async fn sockets_are_set_up() {
    let (server, _client) = tcp_pair().await;
    assert!(matches!(server.peer(), Peer::Address(address) if address.ip().is_loopback()));
    let Layers::Plain(Socket::Tcp(socket)) = &server.layers else { panic!() };
    assert!(socket.nodelay().unwrap());
    let socket = SockRef::from(socket);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
}

#[tokio::test]
async fn connecting_fails_with_a_reason_and_in_time() {
    let limit = Duration::from_millis(200);
    let target = |host: &str, port| TargetAddress::Tcp { host: host.to_owned(), port };
    let error = connect(&target("no-such-host.invalid", 5432), Duration::from_secs(20)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error}");
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = connect(&target("127.0.0.1", port), limit).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    );
    let error = connect(&TargetAddress::Unix("/nonexistent/.s.PGSQL.5432".into()), limit).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/.s.PGSQL.5432"), "{error}");
    // A listener whose queue is full swallows what comes.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    let error = loop {
        match connect(&target("127.0.0.1", address.port()), limit).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
}

#[test]
fn the_time_that_is_left_is_shared() {
    assert_eq!(share(Duration::from_secs(6), 3), Duration::from_secs(2));
    assert_eq!(share(Duration::from_secs(6), 0), Duration::from_secs(6));
}

#[test]
fn made_certificates_can_be_read() {
    let made = tls::self_signed(&["localhost", "127.0.0.1", "::1"]).unwrap();
    for pem in [&made.ca, &made.certificate] {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    }
    PrivateKeyDer::from_pem_slice(made.private_key.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_read_that_is_given_up_leaves_nothing_behind() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 10);
    let mut stream = Stream::memory(ours);
    let mut buf = b"before".to_vec();
    {
        let mut read = std::pin::pin!(stream.read_more(&mut buf));
        assert!(std::future::poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await);
    }
    assert_eq!(buf, b"before");
    tokio::io::AsyncWriteExt::write_all(&mut theirs, b" and after").await.unwrap();
    assert_eq!(stream.read_more(&mut buf).await.unwrap(), 10);
    assert_eq!(buf, b"before and after");
}
