//! A MySQL client that sends any bytes whatsoever and keeps every packet that comes back: the oracle.
//!
//! It is strict: a sequence id out of order, a packet that does not belong there or a reply that does not come within
//! [`PATIENCE`] fails the test. Packets of 16 MiB and more are put together, and their pieces checked.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use bytes::{Buf, Bytes};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::compressed::Compressed;
use crate::harness::proxy::keeps_secrets;
use crate::harness::vanish::Socket;
use crate::harness::wire::PATIENCE;

/// What a client can do, as bits of the handshake.
pub mod capability {
    pub const LONG_PASSWORD: u32 = 1;
    pub const FOUND_ROWS: u32 = 1 << 1;
    pub const LONG_FLAG: u32 = 1 << 2;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const COMPRESS: u32 = 1 << 5;
    pub const LOCAL_FILES: u32 = 1 << 7;
    pub const IGNORE_SPACE: u32 = 1 << 8;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const INTERACTIVE: u32 = 1 << 10;
    pub const SSL: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const MULTI_STATEMENTS: u32 = 1 << 16;
    pub const MULTI_RESULTS: u32 = 1 << 17;
    pub const PS_MULTI_RESULTS: u32 = 1 << 18;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const CONNECT_ATTRS: u32 = 1 << 20;
    pub const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
    pub const SESSION_TRACK: u32 = 1 << 23;
    pub const DEPRECATE_EOF: u32 = 1 << 24;
    pub const ZSTD: u32 = 1 << 26;
    pub const QUERY_ATTRIBUTES: u32 = 1 << 27;
    /// What the client here has unless a test says otherwise.
    pub const USUAL: u32 = LONG_PASSWORD
        | LONG_FLAG
        | PROTOCOL_41
        | TRANSACTIONS
        | SECURE_CONNECTION
        | MULTI_RESULTS
        | PLUGIN_AUTH
        | DEPRECATE_EOF;
}

/// MariaDB's own.
pub mod extended {
    pub const PROGRESS: u32 = 1;
    pub const BULK: u32 = 1 << 2;
    pub const METADATA: u32 = 1 << 3;
    pub const CACHED_METADATA: u32 = 1 << 4;
}

pub const NATIVE: &str = "mysql_native_password";
pub const CACHING_SHA2: &str = "caching_sha2_password";
/// MySQL asks users it does not know for whichever it has, this one too; over TLS it is the password itself.
const SHA256_ONLY: &str = "sha256_password";

/// Over TLS, and for tokens: the password itself.
pub const CLEAR: &str = "mysql_clear_password";

pub const COM_QUIT: u8 = 0x01;
pub const COM_INIT_DB: u8 = 0x02;
pub const COM_QUERY: u8 = 0x03;
pub const COM_FIELD_LIST: u8 = 0x04;
pub const COM_PING: u8 = 0x0E;
pub const COM_STMT_PREPARE: u8 = 0x16;
pub const COM_STMT_EXECUTE: u8 = 0x17;
pub const COM_STMT_SEND_LONG_DATA: u8 = 0x18;
pub const COM_STMT_CLOSE: u8 = 0x19;
pub const COM_STMT_RESET: u8 = 0x1A;
pub const COM_SET_OPTION: u8 = 0x1B;
pub const COM_STMT_FETCH: u8 = 0x1C;
pub const COM_STMT_BULK_EXECUTE: u8 = 0xFA;

/// As hard as it should try.
const ZSTD_LEVEL: u8 = 3;
/// A payload of this length is followed by another piece, if only an empty one.
const PIECE: usize = 0xFF_FFFF;
/// utf8mb4_general_ci: both flavours have it.
pub const COLLATION: u8 = 45;
/// In the status of an OK or EOF packet: another result follows.
const MORE_RESULTS: u16 = 0x0008;
/// The same: rows are to be fetched.
const CURSOR_EXISTS: u16 = 0x0040;
/// The same: the row is a procedure's OUT parameters.
const PS_OUT_PARAMS: u16 = 0x1000;

/// A packet: the sequence id of its first piece, and its payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    pub sequence: u8,
    pub payload: Bytes,
}

impl Packet {
    pub fn first(&self) -> u8 {
        *self.payload.first().unwrap_or_else(|| panic!("an empty packet {self:?}"))
    }

    /// What an ERR packet says.
    pub fn error(&self) -> Option<MyError> {
        if self.first() != 0xFF {
            return None;
        }
        let mut rest = self.payload.slice(1..);
        let code = rest.get_u16_le();
        // There is no SQLSTATE in what comes before the greeting.
        let state = if rest.first() == Some(&b'#') { text(&rest.split_to(6)[1..]) } else { String::new() };
        let message = text(&rest);
        keeps_secrets("an error", &message);
        Some(MyError { code, state, message })
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.payload[..self.payload.len().min(300)];
        write!(f, "{} \"{}\" {} bytes", self.sequence, shown.escape_ascii(), self.payload.len())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MyError {
    pub code: u16,
    pub state: String,
    pub message: String,
}

impl fmt::Display for MyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code, self.state, self.message)
    }
}

/// Who logs in and how.
#[derive(Clone, Debug)]
pub struct MyLogin {
    pub user: String,
    pub password: String,
    pub database: Option<String>,
    /// Of the authority that must have signed the server's certificate; none: no TLS.
    pub ca_file: Option<PathBuf>,
    /// The one to begin with; none: the server's.
    pub plugin: Option<String>,
    pub capabilities: u32,
    /// MariaDB's own: of who leaves out LONG_PASSWORD.
    pub extended: u32,
    pub collation: u8,
    /// Of its program: names and values, one after another.
    pub attributes: Vec<String>,
}

impl MyLogin {
    pub fn new(user: &str, password: &str) -> Self {
        let (user, password) = (user.to_owned(), password.to_owned());
        let (capabilities, collation, attributes) = (capability::USUAL, COLLATION, Vec::new());
        let (database, ca_file, plugin, extended) = (None, None, None, 0);
        Self { user, password, database, ca_file, plugin, capabilities, extended, collation, attributes }
    }

    pub fn database(self, name: &str) -> Self {
        Self { database: Some(name.to_owned()), ..self }
    }

    pub fn tls(self, ca_file: &Path) -> Self {
        Self { ca_file: Some(ca_file.to_owned()), ..self }
    }

    pub fn plaintext(self) -> Self {
        Self { ca_file: None, ..self }
    }

    pub fn plugin(self, name: &str) -> Self {
        Self { plugin: Some(name.to_owned()), ..self }
    }

    pub fn with(self, capabilities: u32) -> Self {
        Self { capabilities: self.capabilities | capabilities, ..self }
    }

    /// As clients of MariaDB's do.
    pub fn extended(self, extended: u32) -> Self {
        Self { extended, ..self.without(capability::LONG_PASSWORD) }
    }

    pub fn without(self, capabilities: u32) -> Self {
        Self { capabilities: self.capabilities & !capabilities, ..self }
    }
}

/// What a server says first.
#[derive(Clone, Debug)]
pub struct Greeting {
    pub version: String,
    pub connection_id: u32,
    pub capabilities: u32,
    pub collation: u8,
    pub status: u16,
    /// The four bytes in which MariaDB has capabilities of its own.
    pub extended: u32,
    pub scramble: [u8; 20],
    pub plugin: String,
}

impl Greeting {
    fn parse(mut rest: Bytes) -> Self {
        assert_eq!(rest.get_u8(), 10, "the protocol's version");
        let version = until_nul(&mut rest);
        let connection_id = rest.get_u32_le();
        let mut scramble = [0; 20];
        rest.copy_to_slice(&mut scramble[..8]);
        assert_eq!(rest.get_u8(), 0);
        let low = u32::from(rest.get_u16_le());
        let (collation, status) = (rest.get_u8(), rest.get_u16_le());
        let capabilities = u32::from(rest.get_u16_le()) << 16 | low;
        assert_eq!(rest.get_u8(), 21, "the scramble's length");
        rest.advance(6);
        let extended = rest.get_u32_le();
        rest.copy_to_slice(&mut scramble[8..]);
        assert_eq!(rest.get_u8(), 0, "the end of the scramble");
        let plugin = until_nul(&mut rest);
        assert!(rest.is_empty(), "after the greeting: {rest:?}");
        Self { version, connection_id, capabilities, collation, status, extended, scramble, plugin }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Compressed(Box<Compressed<Stream>>),
}

impl Stream {
    fn both(&mut self) -> &mut dyn ReadWrite {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream,
            Self::Compressed(stream) => stream,
        }
    }
}

impl Stream {
    fn half_close(&mut self) {
        match self {
            Self::Plain(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Self::Tls(stream) => stream.sock.shutdown(Shutdown::Write).unwrap(),
            Self::Compressed(stream) => stream.below().half_close(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.both().read(buf)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.both().write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.both().flush()
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// A logged-in connection.
pub struct MyWire {
    /// `None` only while TLS begins.
    stream: Option<Stream>,
    /// Of the next packet, either way.
    sequence: u8,
    greeting: Greeting,
    capabilities: u32,
    login: Vec<Packet>,
    /// Whatever number a packet has: in frames MySQL counts packets anew now and then, and no client minds.
    pub any_sequence: bool,
}

impl MyWire {
    /// Logs in; the error is what the server said.
    pub fn connect(address: SocketAddr, login: &MyLogin) -> Result<Self, MyError> {
        let mut wire = Self::open(address)?;
        wire.log_in(login)?;
        Ok(wire)
    }

    /// Logs in, again and again while it is refused: the first client of a proxy waits for all that has to come before it, for
    /// `connection_borrow_timeout` at most.
    pub fn comes_in(address: SocketAddr, login: &MyLogin) -> Self {
        let began = Instant::now();
        loop {
            match Self::connect(address, login) {
                Ok(wire) => return wire,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
        }
    }

    /// Asks until this is the value.
    pub fn until(&mut self, sql: &str, value: &str) {
        let began = Instant::now();
        while self.value(sql) != value {
            assert!(began.elapsed() < PATIENCE, "never {value}: {sql}");
            std::thread::yield_now();
        }
    }

    /// Connects and reads the greeting; nothing is said.
    pub fn open(address: SocketAddr) -> Result<Self, MyError> {
        Self::greeted(TcpStream::connect_timeout(&address, PATIENCE).unwrap(), &[])
    }

    /// The same over this stream, on which these bytes go ahead.
    pub fn greeted(mut stream: TcpStream, ahead: &[u8]) -> Result<Self, MyError> {
        stream.write_all(ahead).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut stream = Stream::Plain(stream);
        let (mut sequence, mut first) = (0, Packet { sequence: 0, payload: Bytes::new() });
        read_packet(&mut stream, &mut sequence, &mut first, false);
        if let Some(error) = first.error() {
            return Err(error);
        }
        let greeting = Greeting::parse(first.payload.clone());
        Ok(Self {
            stream: Some(stream),
            sequence,
            greeting,
            capabilities: capability::USUAL,
            login: vec![first],
            any_sequence: false,
        })
    }

    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// All packets from the server up to the OK, or the error, that ended the login.
    pub fn login(&self) -> &[Packet] {
        &self.login
    }

    /// Answers the greeting; all packets that come of it are in [`MyWire::login`], also when it fails.
    pub fn log_in(&mut self, login: &MyLogin) -> Result<(), MyError> {
        let plugin = login.plugin.clone().unwrap_or_else(|| self.greeting.plugin.clone());
        let mut nonce = self.greeting.scramble;
        self.respond(login, &plugin, &proof(&plugin, login, &nonce));
        self.prove(login, &mut nonce)?;
        if self.capabilities & (capability::COMPRESS | capability::ZSTD) != 0 {
            let zstd = (self.capabilities & capability::COMPRESS == 0).then_some(ZSTD_LEVEL.into());
            self.stream = self.stream.take().map(|stream| Stream::Compressed(Box::new(Compressed::new(stream, zstd))));
        }
        Ok(())
    }

    /// Its frames, if it has any.
    pub fn frames(&mut self) -> &mut Compressed<impl Read + Write> {
        match self.stream() {
            Stream::Compressed(frames) => frames,
            Stream::Plain(_) | Stream::Tls(_) => panic!("it has no frames"),
        }
    }

    /// The response to the greeting, with this plugin and proof; what comes of it is not read.
    pub fn respond(&mut self, login: &MyLogin, plugin: &str, proof: &[u8]) {
        let (packet, front) = self.response(login, plugin, proof);
        if let Some(ca_file) = &login.ca_file {
            assert_ne!(self.greeting.capabilities & capability::SSL, 0, "no TLS there: {:?}", self.greeting);
            self.send_next(&packet[..front]);
            self.start_tls(ca_file);
        }
        self.send_next(&packet);
    }

    /// The bytes of the response to the greeting, of one that knows the password.
    pub fn response_bytes(&mut self, login: &MyLogin) -> Vec<u8> {
        let (plugin, nonce) = (self.greeting.plugin.clone(), self.greeting.scramble);
        let (packet, _) = self.response(login, &plugin, &proof(&plugin, login, &nonce));
        framed(&mut 1, &packet)
    }

    /// The response, and how much of it goes ahead of TLS.
    fn response(&mut self, login: &MyLogin, plugin: &str, proof: &[u8]) -> (Vec<u8>, usize) {
        self.capabilities = login.capabilities;
        if login.ca_file.is_some() {
            self.capabilities |= capability::SSL;
        }
        if login.database.is_some() {
            self.capabilities |= capability::CONNECT_WITH_DB;
        }
        if !login.attributes.is_empty() {
            self.capabilities |= capability::CONNECT_ATTRS;
        }
        let mut packet = self.capabilities.to_le_bytes().to_vec();
        packet.extend(0x0400_0000_u32.to_le_bytes()); // the longest packet it would take
        packet.push(login.collation);
        packet.extend([0; 19]);
        packet.extend(login.extended.to_le_bytes());
        let front = packet.len();
        packet.extend(login.user.as_bytes());
        packet.push(0);
        packet.push(u8::try_from(proof.len()).unwrap());
        packet.extend(proof);
        for name in login.database.as_deref().into_iter().chain([plugin]) {
            packet.extend(name.as_bytes());
            packet.push(0);
        }
        if !login.attributes.is_empty() {
            let words = login.attributes.iter().flat_map(|word| lengthy(word.as_bytes()));
            packet.extend(lengthy(&words.collect::<Vec<_>>()));
        }
        if self.capabilities & capability::ZSTD != 0 {
            packet.push(ZSTD_LEVEL);
        }
        (packet, front)
    }

    /// Behind a response of the test's own: answers what is asked until it is OK.
    pub fn prove_from(&mut self, login: &MyLogin) -> Result<(), MyError> {
        let mut nonce = self.greeting.scramble;
        self.prove(login, &mut nonce)
    }

    /// Behind a COM_CHANGE_USER: answers what is asked until it is OK.
    pub fn changed(&mut self, login: &MyLogin) -> Result<(), MyError> {
        self.prove(login, &mut [0; 20])
    }

    /// Answers what is asked until it is OK.
    fn prove(&mut self, login: &MyLogin, nonce: &mut [u8; 20]) -> Result<(), MyError> {
        loop {
            let packet = self.receive();
            self.login.push(packet.clone());
            match &packet.payload[..] {
                [0x00, ..] => return Ok(()),
                [0xFF, ..] => return Err(packet.error().unwrap()),
                [0xFE, ..] => {
                    let mut rest = packet.payload.slice(1..);
                    let plugin = until_nul(&mut rest);
                    assert_eq!((rest.len(), rest.last()), (21, Some(&0)), "the scramble: {packet:?}");
                    rest.copy_to_slice(nonce);
                    self.send_next(&proof(&plugin, login, nonce));
                }
                // It knows the account's hash: the proof was enough, and OK follows.
                [0x01, 0x03] => {}
                // It must have the password itself.
                [0x01, 0x04] => {
                    let password = if login.ca_file.is_none() {
                        self.send_next(&[0x02]);
                        let key = self.receive();
                        self.login.push(key.clone());
                        if let Some(error) = key.error() {
                            return Err(error);
                        }
                        assert_eq!(key.first(), 0x01, "the server's key: {key:?}");
                        sealed(&key.payload[1..], &login.password, nonce)
                    } else {
                        [login.password.as_bytes(), &[0]].concat()
                    };
                    self.send_next(&password);
                }
                _ => panic!("during the login: {packet:?}"),
            }
        }
    }

    fn start_tls(&mut self, ca_file: &Path) {
        let Some(Stream::Plain(stream)) = self.stream.take() else { panic!("it has TLS already") };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        self.stream = Some(Stream::Tls(Box::new(StreamOwned::new(connection, stream))));
    }

    fn stream(&mut self) -> &mut Stream {
        self.stream.as_mut().unwrap()
    }

    /// Writes these bytes and nothing else.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let stream = self.stream().both();
        stream.write_all(bytes).and_then(|()| stream.flush()).unwrap();
    }

    /// Writes these bytes as far as somebody takes them.
    pub fn send_as_far_as_it_goes(&mut self, bytes: &[u8]) {
        let _ = self.stream().both().write_all(bytes);
    }

    /// Says that nothing more will come.
    pub fn half_close(&mut self) {
        self.stream().half_close();
    }

    /// Begins a command: sends the payload under sequence id 0.
    pub fn send(&mut self, payload: &[u8]) {
        self.sequence = 0;
        if let Stream::Compressed(frames) = self.stream() {
            frames.number = 0;
        }
        self.send_next(payload);
    }

    /// Sends the payload under the sequence id that comes next, as within a login or behind a LOCAL INFILE request.
    pub fn send_next(&mut self, payload: &[u8]) {
        let bytes = framed(&mut self.sequence, payload);
        self.send_raw(&bytes);
    }

    /// The next packet.
    pub fn receive(&mut self) -> Packet {
        let mut packet = Packet { sequence: 0, payload: Bytes::new() };
        let mut sequence = self.sequence;
        let any = self.any_sequence;
        read_packet(self.stream(), &mut sequence, &mut packet, any);
        self.sequence = sequence;
        packet
    }

    /// What comes next is the first packet of a reply.
    pub fn begin_reply(&mut self) {
        self.sequence = 1;
    }

    /// The next packet, which has this sequence id.
    pub fn receive_from(&mut self, sequence: u8) -> Packet {
        self.sequence = sequence;
        self.receive()
    }

    /// Nothing more may come: the server has closed.
    pub fn until_closed(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "before the end: {rest:?}");
    }

    /// Whatever comes until the server has closed.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset, or TLS that ends without a word, is an end as well; none at all is not.
        if let Err(error) = self.stream().both().read_to_end(&mut rest) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it does not close");
        }
        rest
    }

    /// Sends a query and gives all packets of its reply, of all of its results. A request for a local file ends it too.
    pub fn reply(&mut self, sql: &str) -> Vec<Packet> {
        self.command(&self.text(sql))
    }

    /// The command for a text.
    pub fn text(&self, sql: &str) -> Vec<u8> {
        self.text_with(&[0, 1], sql)
    }

    /// With these attributes ahead of it, where they are known.
    pub fn text_with(&self, attributes: &[u8], sql: &str) -> Vec<u8> {
        let both = self.capabilities & self.greeting.capabilities;
        let attributes = if both & capability::QUERY_ATTRIBUTES == 0 { &[] } else { attributes };
        [&[COM_QUERY], attributes, sql.as_bytes()].concat()
    }

    /// Sends a command and gives all packets of its reply, in whatever form that comes.
    pub fn command(&mut self, payload: &[u8]) -> Vec<Packet> {
        self.send(payload);
        self.reply_to(payload[0])
    }

    /// The next packet begins a reply.
    pub fn expect_reply(&mut self) {
        self.sequence = 1;
    }

    /// All packets of the reply to a command that was sent.
    pub fn reply_to(&mut self, command: u8) -> Vec<Packet> {
        let mut packets = Vec::new();
        match command {
            COM_QUERY | COM_STMT_EXECUTE | COM_STMT_BULK_EXECUTE => while self.result(&mut packets) {},
            // A column begins with a short length.
            COM_FIELD_LIST | COM_STMT_FETCH => while self.receive_into(&mut packets) < 0xFE {},
            COM_STMT_PREPARE if self.receive_into(&mut packets) == 0 => {
                let mut counts = packets[0].payload.slice(5..);
                let has_eof = u16::from(self.capabilities & capability::DEPRECATE_EOF == 0);
                for count in [counts.get_u16_le(), counts.get_u16_le()] {
                    let follow = if count > 0 { count + has_eof } else { 0 };
                    packets.extend((0..follow).map(|_| self.receive()));
                }
            }
            COM_STMT_PREPARE | COM_STMT_CLOSE | COM_STMT_SEND_LONG_DATA | COM_QUIT => {}
            _ => packets.push(self.receive()),
        }
        packets
    }

    /// The first byte of the next packet, which is kept.
    fn receive_into(&mut self, packets: &mut Vec<Packet>) -> u8 {
        let packet = self.receive();
        let first = packet.first();
        packets.push(packet);
        first
    }

    /// Reads one result; whether another one follows.
    pub fn result(&mut self, packets: &mut Vec<Packet>) -> bool {
        let mut first = self.receive();
        // How far it has come: the reply follows.
        while first.payload.starts_with(&[0xFF, 0xFF, 0xFF]) {
            packets.push(first);
            first = self.receive();
        }
        packets.push(first.clone());
        match first.first() {
            0x00 => return status(&first, 1) & MORE_RESULTS != 0,
            0xFF | 0xFB => return false,
            _ => {}
        }
        let mut rest = first.payload;
        let columns = length(&mut rest).unwrap();
        assert!(rest.is_empty(), "after the number of columns: {rest:?}");
        packets.extend((0..columns).map(|_| self.receive()));
        let has_eof = self.capabilities & capability::DEPRECATE_EOF == 0;
        // MySQL forgets to say behind OUT parameters that an OK follows.
        let mut has_parameters = false;
        if has_eof {
            let eof = self.receive();
            assert_eq!((eof.first(), eof.payload.len()), (0xFE, 5), "after the columns: {eof:?}");
            let has_cursor = status(&eof, 3) & CURSOR_EXISTS != 0;
            has_parameters = status(&eof, 3) & PS_OUT_PARAMS != 0;
            packets.push(eof);
            if has_cursor {
                return false;
            }
        }
        loop {
            let packet = self.receive();
            packets.push(packet.clone());
            match packet.first() {
                0xFF => return false,
                0xFE if has_eof && packet.payload.len() == 5 => {
                    return has_parameters || status(&packet, 3) & MORE_RESULTS != 0;
                }
                0xFE if !has_eof && packet.payload.len() < PIECE => return status(&packet, 1) & MORE_RESULTS != 0,
                _ => {}
            }
        }
    }

    /// Runs a query; fails the test on an error or on more than one result. The columns of all rows.
    pub fn query(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.named(sql).1
    }

    /// The same for a query that must fail.
    pub fn error(&mut self, sql: &str) -> MyError {
        let packets = self.reply(sql);
        let error = packets.last().and_then(Packet::error);
        error.unwrap_or_else(|| panic!("no error: {packets:?}\nin: {sql}"))
    }

    /// The only column of the only row of a query.
    pub fn value(&mut self, sql: &str) -> String {
        match &self.query(sql)[..] {
            [row] if row.len() == 1 => row[0].clone().unwrap_or_default(),
            rows => panic!("not one value: {rows:?}\nin: {sql}"),
        }
    }

    /// The only row of a query, by the names of its columns.
    pub fn row(&mut self, sql: &str) -> BTreeMap<String, Option<String>> {
        let (names, mut rows) = self.named(sql);
        assert_eq!(rows.len(), 1, "{rows:?}\nin: {sql}");
        names.into_iter().zip(rows.remove(0)).collect()
    }

    fn named(&mut self, sql: &str) -> (Vec<String>, Vec<Vec<Option<String>>>) {
        let mut packets = Vec::new();
        self.send(&self.text(sql));
        assert!(!self.result(&mut packets), "more than one result: {packets:?}");
        let mut packets = packets.into_iter();
        let first = packets.next().unwrap();
        match first.first() {
            0x00 => return (Vec::new(), Vec::new()),
            0xFF => panic!("{}\nin: {sql}", first.error().unwrap()),
            0xFB => panic!("asks for a file: {first:?}"),
            _ => {}
        }
        let columns = usize::try_from(length(&mut first.payload.clone()).unwrap()).unwrap();
        // catalog, schema, table, original table, name
        let names = packets.by_ref().take(columns).map(|packet| strings(packet.payload).nth(4).unwrap().unwrap());
        let names: Vec<String> = names.collect();
        if self.capabilities & capability::DEPRECATE_EOF == 0 {
            packets.next().unwrap();
        }
        let end = packets.next_back().unwrap();
        assert_eq!(end.error(), None, "in: {sql}");
        let rows = packets.map(|packet| strings(packet.payload).collect::<Vec<_>>()).collect::<Vec<_>>();
        assert!(rows.iter().all(|row| row.len() == columns), "{rows:?}");
        (names, rows)
    }
}

impl Socket for MyWire {
    /// What is below it, and below TLS.
    fn socket(&self) -> &TcpStream {
        match self.stream.as_ref().unwrap() {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &stream.sock,
            Stream::Compressed(_) => panic!("what is below frames is not asked for"),
        }
    }
}

/// The bytes of a packet; the sequence id goes on.
pub fn framed(sequence: &mut u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 4);
    let mut rest = payload;
    loop {
        let (piece, later) = rest.split_at(rest.len().min(PIECE));
        out.extend(&u32::try_from(piece.len()).unwrap().to_le_bytes()[..3]);
        out.push(*sequence);
        out.extend(piece);
        *sequence = sequence.wrapping_add(1);
        if piece.len() < PIECE {
            return out;
        }
        rest = later;
    }
}

/// Fills in the packet that must begin with this sequence id; the id goes on.
fn read_packet(stream: &mut Stream, sequence: &mut u8, packet: &mut Packet, any_sequence: bool) {
    packet.sequence = *sequence;
    let mut payload = Vec::new();
    loop {
        let mut head = [0; 4];
        let stream = stream.both();
        stream.read_exact(&mut head).unwrap_or_else(|error| panic!("no packet {sequence}: {error}"));
        let [a, b, c, id] = head;
        let piece = u32::from_le_bytes([a, b, c, 0]) as usize;
        let began = payload.len();
        payload.resize(began + piece, 0);
        stream.read_exact(&mut payload[began..]).unwrap();
        let shown = &payload[..payload.len().min(300)];
        assert!(
            id == *sequence || any_sequence,
            "the sequence id {id} of \"{}\", not {sequence}",
            shown.escape_ascii()
        );
        *sequence = sequence.wrapping_add(1);
        if piece < PIECE {
            packet.payload = payload.into();
            return;
        }
    }
}

/// A length-encoded string.
fn lengthy(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let head =
        if length < 0xFB { vec![length.to_le_bytes()[0]] } else { [&[0xFC], &length.to_le_bytes()[..]].concat() };
    [&head, bytes].concat()
}

/// What proves the password to this plugin.
pub fn proof(plugin: &str, login: &MyLogin, nonce: &[u8; 20]) -> Vec<u8> {
    let password = login.password.as_bytes();
    let algorithm = match plugin {
        NATIVE => &SHA1_FOR_LEGACY_USE_ONLY,
        CACHING_SHA2 => &SHA256,
        SHA256_ONLY if login.ca_file.is_some() => return [password, &[0]].concat(),
        _ => panic!("the server asks for {plugin}"),
    };
    if password.is_empty() {
        return Vec::new();
    }
    let hash = |bytes: &[u8]| digest(algorithm, bytes);
    let once = hash(password);
    let twice = hash(once.as_ref());
    // The two differ in the order, too.
    let with_nonce = match plugin {
        NATIVE => hash(&[nonce, twice.as_ref()].concat()),
        _ => hash(&[twice.as_ref(), nonce].concat()),
    };
    once.as_ref().iter().zip(with_nonce.as_ref()).map(|(a, b)| a ^ b).collect()
}

/// The password, and the zero byte behind it, under the key that a server has shown.
pub fn sealed(key: &[u8], password: &str, nonce: &[u8; 20]) -> Vec<u8> {
    let bytes = [password.as_bytes(), &[0]].concat();
    let bytes: Vec<u8> = bytes.iter().zip(nonce.iter().cycle()).map(|(byte, other)| byte ^ other).collect();
    let der = SubjectPublicKeyInfoDer::from_pem_slice(key).unwrap();
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(&der).unwrap()).unwrap();
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA1_MGF1SHA1, &bytes, &mut out, None).unwrap().to_vec()
}

/// The status in an OK packet (after its first byte and two numbers) or an EOF packet (after three bytes).
fn status(packet: &Packet, at: usize) -> u16 {
    let mut rest = packet.payload.slice(at..);
    if at == 1 {
        length(&mut rest).unwrap();
        length(&mut rest).unwrap();
    }
    rest.get_u16_le()
}

/// A length-encoded number; none: NULL.
pub fn length(rest: &mut Bytes) -> Option<u64> {
    match rest.get_u8() {
        0xFB => None,
        0xFC => Some(u64::from(rest.get_u16_le())),
        0xFD => Some(rest.get_uint_le(3)),
        0xFE => Some(rest.get_u64_le()),
        0xFF => panic!("no number begins with 0xFF"),
        small => Some(u64::from(small)),
    }
}

/// Length-encoded strings up to the end.
fn strings(mut rest: Bytes) -> impl Iterator<Item = Option<String>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = length(&mut rest);
        Some(length.map(|length| text(&rest.split_to(usize::try_from(length).unwrap()))))
    })
}

fn until_nul(rest: &mut Bytes) -> String {
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or_else(|| panic!("no end in {rest:?}"));
    let found = text(&rest.split_to(end));
    rest.advance(1);
    found
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
