//! Control connections to a MySQL that is played by the test.

use super::*;
use crate::config::{Secret, TargetAddress, TargetTls, TargetTlsMode};
use crate::net::tls::{self, ClientTls, self_signed};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const QUESTION: &str = "SELECT a, b";
/// Of caching_sha2_password: the password itself is needed.
const SAY_IT: &[u8] = b"\x01\x04";

fn account(password: &Secret) -> Account<'_> {
    Account { user: "m", password, database: "", timeout: Duration::from_secs(20) }
}

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&[a, b, c, sequence], payload].concat()
}

/// `None`: the peer has closed.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    from.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; usize::from(head[0]) | usize::from(head[1]) << 8];
    from.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}

async fn within<T>(done: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), done).await.unwrap()
}

/// Connections that are logged in, to a database whose part each time goes to `play`.
fn logged_in<F>(play: impl Fn(DuplexStream) -> F + Send + Sync + 'static) -> Control<MySql>
where
    F: Future<Output = ()> + Send + 'static,
{
    let way = Way::new(TargetAddress::Unix("/nowhere".into()), None, Duration::from_secs(20)).unwrap();
    let log_in = move |_| -> LoggingIn {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(play(theirs));
        Box::pin(async move { Ok(Stream::memory(ours)) })
    };
    Control::new(
        MySql { way, log_in: Box::new(log_in) },
        &account(&Secret::new(String::new())),
        Duration::from_secs(20),
    )
    .unwrap()
}

/// Two columns, a row of 'x' and NULL, the end.
fn answer() -> Vec<u8> {
    let column = |name: &[u8]| [b"\x03def\0\0\0\x01", name, b"\0\x0c\x2d\0\x04\0\0\0\xFD\0\0\x1f\0\0"].concat();
    let payloads =
        [b"\x02".to_vec(), column(b"a"), column(b"b"), b"\x01x\xFB".to_vec(), b"\xFE\0\0\x02\0\0\0".to_vec()];
    (1..).zip(payloads).flat_map(|(sequence, payload)| packet(sequence, &payload)).collect()
}

async fn answers(mut database: DuplexStream, answer: Vec<u8>) {
    let asked = [b"\x03", QUESTION.as_bytes()].concat();
    assert_eq!(read(&mut database).await, Some((0, asked)));
    // Nobody may be there any more.
    let _ = database.write_all(&answer).await;
}

#[tokio::test]
async fn an_answer_is_a_row_of_texts() {
    let control = logged_in(|database| answers(database, answer()));
    let row = control.borrow().await.unwrap().ask(QUESTION).await.unwrap();
    assert_eq!(row, [Some("x".to_owned()), None]);
    let control = logged_in(|database| answers(database, packet(1, b"\xFF\x10\x04#08004full")));
    let error = control.borrow().await.unwrap().ask(QUESTION).await.unwrap_err();
    assert!(matches!(&error, ControlError::Server(error) if (&*error.code, &*error.message) == ("1040", "full")));
}

/// Where the driver panics, the proxy would end.
#[tokio::test]
async fn no_answer_makes_the_driver_panic() {
    let right = answer();
    let mut wrong: Vec<Vec<u8>> = (0..right.len()).map(|end| right[..end].to_vec()).collect();
    for (at, byte) in right.iter().enumerate() {
        for other in [0, 1, 0x20, 0x7F, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF, byte ^ 1, byte ^ 0x80] {
            let mut answer = right.clone();
            answer[at] = other;
            wrong.push(answer);
        }
    }
    // Packets that are empty, or cut off, each with its right length.
    let payloads: [&[u8]; 9] =
        [b"", b"\xFF", b"\xFF\x10", b"\xFF\x10\x04", b"\xFF\x10\x04#1", b"\0", b"\xFB", b"\xFEx", b"\xFC\0\0"];
    for payload in payloads {
        wrong.push(packet(1, payload));
        wrong.push([packet(1, b"\x01"), packet(2, payload)].concat());
        wrong.push([&right[..right.len() - 11], &packet(4, payload), &packet(5, payload)].concat());
    }
    for answer in wrong {
        let sent = answer.clone();
        let control = logged_in(move |database| answers(database, sent.clone()));
        let asked = async move { control.borrow().await.unwrap().ask(QUESTION).await };
        let asked = within(tokio::spawn(asked)).await;
        assert!(asked.is_ok(), "it panics at {answer:?}");
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_none() {
    for answer in [answer().repeat(2000), packet(1, b"\x01").repeat(20_000), b"\xFF\xFF\xFF\x01".repeat(17_000)] {
        let control = logged_in(move |database| answers(database, answer.clone()));
        within(async { control.borrow().await.unwrap().ask(QUESTION).await }).await.ok();
    }
    let endless = [packet(1, b"\xFC\xFF\xFF"), packet(2, &[b'x'; 60_000]), packet(3, &[b'x'; 60_000])].concat();
    let control = logged_in(move |database| answers(database, endless.clone()));
    let error = control.borrow().await.unwrap().ask(QUESTION).await.unwrap_err();
    assert!(matches!(error, ControlError::Network(_) | ControlError::MySql(_)), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_has_ended_is_not_lent_again() {
    let logins = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&logins);
    let control = logged_in(move |database| {
        count.fetch_add(1, Ordering::Relaxed);
        answers(database, answer())
    });
    for expected in 1..4 {
        // Its database closes it behind the answer.
        control.borrow().await.unwrap().ask(QUESTION).await.unwrap();
        assert_eq!(logins.load(Ordering::Relaxed), expected);
        let mut is_closed = false;
        while !is_closed {
            tokio::task::yield_now().await;
            control.pool.retain(|connection, _| {
                is_closed = MySql::is_closed(connection);
                true
            });
        }
    }
}

#[tokio::test]
async fn who_is_done_says_goodbye_and_who_is_not_just_goes() {
    for is_answered in [true, false] {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let control = logged_in(move |mut database| {
            let tell = tell.clone();
            async move {
                tell.send(read(&mut database).await).unwrap();
                if is_answered {
                    database.write_all(&answer()).await.unwrap();
                }
                for _ in 0..2 {
                    tell.send(read(&mut database).await).unwrap();
                }
            }
        });
        let connection = control.borrow().await.unwrap();
        if is_answered {
            connection.ask(QUESTION).await.unwrap();
            told.recv().await.unwrap().unwrap();
        } else {
            // Dropped as soon as it has been heard.
            tokio::select! {
                _ = connection.ask(QUESTION) => panic!("nobody answers"),
                question = told.recv() => assert!(question.unwrap().is_some()),
            }
        }
        control.close();
        let goodbye = is_answered.then(|| (0, b"\x01".to_vec()));
        assert_eq!(within(told.recv()).await.unwrap(), goodbye);
        assert_eq!(within(told.recv()).await.unwrap(), None);
        assert!(matches!(control.borrow().await.unwrap_err(), ControlError::Closed));
    }
}

/// Protocol 10, a version, thread, salt, capabilities (all, or all but TLS), and the rest.
fn greeting(tls: bool) -> Vec<u8> {
    let mut payload = b"\x0a9.7.4\0\x01\0\0\0saltsalt\0".to_vec();
    payload.extend_from_slice(&[0xFF, if tls { 0xFF } else { 0xF7 }, 0xFF, 2, 0, 0xFF, 0xDF, 21]);
    payload.extend_from_slice(b"\0\0\0\0\0\0\0\0\0\0saltsaltsalt\0caching_sha2_password\0");
    packet(0, &payload)
}

async fn listener() -> (TcpListener, TargetAddress) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, TargetAddress::Tcp { host: "127.0.0.1".to_owned(), port })
}

/// A login there that fails.
async fn refused(address: TargetAddress, tls: Option<ClientTls>) -> ControlError {
    let way = Way::new(address, tls, Duration::from_secs(20)).unwrap();
    let control = mysql_control::<crate::mysql::MySql>(way, &account(&Secret::new("hunter2".to_owned()))).unwrap();
    within(control.borrow()).await.unwrap_err()
}

/// Behind the response: asks this, and gives what the client says to it.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, question: &[u8]) -> Option<Vec<u8>> {
    let (sequence, response) = read(&mut stream).await.unwrap();
    assert!(!response.windows(7).any(|bytes| bytes == b"hunter2"));
    stream.write_all(&packet(sequence + 1, question)).await.unwrap();
    read(&mut stream).await.map(|(_, answer)| answer)
}

/// A server that shows a certificate of its own making, for another name, and then asks this; what the client answers to it, and
/// what comes of the login.
async fn asked(mode: TargetTlsMode, ca_is_right: bool, question: &[u8]) -> (Option<Vec<u8>>, ControlError) {
    let made = self_signed(&["elsewhere.example"]).unwrap();
    let other = self_signed(&["elsewhere.example"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [ca, leaf, key] = ["ca.pem", "leaf.pem", "leaf.key"].map(|name| folder.path().join(name));
    fs::write(&ca, if ca_is_right { &made.ca } else { &other.ca }).unwrap();
    fs::write(&leaf, &made.certificate).unwrap();
    fs::write(&key, &made.private_key).unwrap();
    let config = crate::config::TlsConfig { certificate: leaf, private_key: key, client_ca: None };
    let acceptor = TlsAcceptor::from(tls::server_config(&config, None).unwrap().config);
    let client = tls::client_config(&TargetTls { mode, ca_file: Some(ca) }).unwrap();
    let (listener, address) = listener().await;
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&greeting(true)).await.unwrap();
        let (sequence, request) = read(&mut stream).await.unwrap();
        assert_eq!((sequence, request.len()), (1, 32), "nothing is said before TLS");
        ask(acceptor.accept(stream).await.ok()?, question).await
    };
    tokio::join!(serving, refused(address, client))
}

#[tokio::test]
async fn the_password_is_said_to_whom_it_is_meant_for() {
    let clear = b"\xFEmysql_clear_password\0";
    for question in [SAY_IT, clear] {
        let (answer, _) = asked(TargetTlsMode::VerifyCa, true, question).await;
        assert_eq!(answer.as_deref(), Some(&b"hunter2\0"[..]));
        let (answer, error) = asked(TargetTlsMode::Require, false, question).await;
        assert_eq!(answer, None);
        assert!(error.to_string().contains("anybody in between"), "{error}");
    }
    // Without TLS it is sealed, or not said.
    for (question, expected) in [(SAY_IT, Some(b"\x02".to_vec())), (clear, None)] {
        let (listener, address) = listener().await;
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&greeting(true)).await.unwrap();
            ask(stream, question).await
        };
        let (answer, _) = tokio::join!(serving, refused(address, None));
        assert_eq!(answer, expected);
    }
}

#[tokio::test]
async fn a_stranger_is_told_nothing() {
    for (mode, ca_is_right) in [(TargetTlsMode::VerifyCa, false), (TargetTlsMode::VerifyFull, true)] {
        let (answer, error) = asked(mode, ca_is_right, SAY_IT).await;
        assert_eq!(answer, None);
        assert!(matches!(error, ControlError::Tls(_)), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_not_understood_ends_the_login_with_words() {
    for (question, words) in [
        (&b"\xFEclient_ed25519\0salt"[..], "does not speak MySQL"),
        (b"\xFEparsec\0saltsaltsaltsaltsaltsaltsaltsalt", "parsec"),
        (b"\xFEsha256_password\0saltsaltsaltsaltsalt\0", "sha256_password"),
        (b"\xFEnobody_knows_it\0x", "not known"),
        // mysql_old_password, as it was asked for before there were names.
        (b"\xFE", "does not speak MySQL"),
        (b"\xFEmysql_native_password\0", "does not speak MySQL"),
        (b"\x01", "does not speak MySQL"),
        (b"", "does not speak MySQL"),
        (b"nonsense", "does not speak MySQL"),
    ] {
        let (answer, error) = asked(TargetTlsMode::VerifyCa, true, question).await;
        assert_eq!(answer, None, "{question:?}");
        assert!(error.to_string().contains(words), "{question:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_without_tls_or_room_or_sense_says_so() {
    let tls = || tls::client_config(&TargetTls { mode: TargetTlsMode::Require, ca_file: None }).unwrap();
    for (greeting, words) in [
        (greeting(false), "does not offer TLS"),
        (packet(0, b"\xFF\x10\x04Too many connections"), "1040"),
        (packet(0, b""), "does not speak MySQL"),
        (packet(0, b"\x0a9.7.4\0"), "does not speak MySQL"),
        (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "does not speak MySQL"),
    ] {
        let (listener, address) = listener().await;
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&greeting).await.unwrap();
            stream
        };
        let (_stream, error) = tokio::join!(serving, refused(address, tls()));
        assert!(error.to_string().contains(words), "{error}");
    }
}
