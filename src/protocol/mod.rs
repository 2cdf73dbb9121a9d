//! The words both protocols share: what a machine is, what it asks, what it says.
//!
//! A machine is plain synchronous code: bytes in, bytes and a verdict out. It opens no socket, reads no clock and
//! draws no random number; what it needs of these is handed in. Nothing here imports another module of the crate.
//! Reading order: [`Handshake`] (a login, either side), [`ClientSide`] and [`ServerSide`] (everything after it).

mod codec;
mod error;
mod intent;
mod learned;
mod out;
mod password_key;
mod pinning;
mod room;
mod scram_secret;
mod settings;

pub use codec::Codec;
pub use error::{ClientError, ErrorKind, HandshakeError, Meaning, ServerError, Violation};
pub use intent::{Clears, Intent, PinReason, Pins};
pub use learned::Learned;
pub use out::{Out, Sides};
pub use password_key::PasswordKey;
pub use pinning::{Fingerprint, Gate, PinBudget, PinCause, PinPlace, PinPolicy, PinRules};
pub use room::has_room_for;
pub use scram_secret::{ITERATIONS, SALT_BYTES, ScramSecret};
pub use settings::{Difference, Parameters, Settings};

use siphasher::sip128::{Hasher128, SipHasher13};
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

/// One wire protocol: four machines under one name.
pub trait Protocol: 'static {
    /// As in metrics, logs and `engine` of the configuration.
    const NAME: &'static str;
    /// What a client that begins with TLS must say it wants to speak (ALPN, RFC 7301). `None`: it can't begin so.
    const DIRECT_TLS: Option<&'static [u8]>;
    /// A client says nothing before it has been greeted.
    const SERVER_SPEAKS_FIRST: bool;
    /// Clients of one user stop one another by their numbers alone, without a secret.
    const KILLS_BY_NUMBER: bool;
    /// Logs a client in: we play the server.
    type Accept: Handshake<Output = Accepted<Self::Client>>;
    /// Logs in at a database: we play the client.
    type Connect: Handshake<Output = Self::Server>;
    /// Asks a database to cancel what one of our connections to it is doing, from a connection of its own; done when
    /// its last words are written. The database answers by closing that connection.
    type Cancel: Handshake<Output = ()> + 'static;
    /// Lives as long as the client.
    type Client: ClientSide;
    /// Lives as long as the server connection. `Send`, because an idle connection may change workers.
    type Server: ServerSide<Client = Self::Client, Cancel = Self::Cancel> + Send;

    /// The machine for a client that has just connected.
    fn accept(options: AcceptOptions) -> Self::Accept;
    /// The machine for a client that [logs in again](ClientSide::logs_in_again) over its connection; `direct_tls`: that is TLS already.
    /// `None`: its protocol has no such thing.
    fn accept_again(_client: Self::Client, _options: AcceptOptions) -> Option<Self::Accept> {
        None
    }
    /// The machine for a login at a database.
    fn connect(options: ConnectOptions) -> Self::Connect;
}

/// What a new client's login machine must know.
#[derive(Clone)]
pub struct AcceptOptions {
    /// What the endpoint says about TLS.
    pub tls: TlsOffer,
    /// The client began with TLS instead of asking for it, and it has started.
    pub direct_tls: Option<Secured>,
    /// Unpredictable bytes for this login's nonce.
    pub nonce: [u8; 18],
    /// Said before the client says anything, where the protocol has it so.
    pub greeting: Greeting,
    /// For a password that comes without TLS, where the protocol has such a thing. `None`: none is taken so.
    pub password_key: Option<Arc<PasswordKey>>,
}

/// What a client is greeted with by a server that speaks first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// The target's version, in its own words. `None`: nobody knows it yet.
    pub version: Option<Arc<str>>,
    /// The client's [`CancelKey::process_id`], not 0.
    pub connection_id: u32,
    /// Unpredictable bytes: a challenge, and another one for who has to be asked again.
    pub challenges: [[u8; 20]; 2],
}

/// What an endpoint says to a client that asks for TLS, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsOffer {
    /// A client without TLS is refused.
    Required,
    /// The client chooses.
    Optional,
    /// Requests for TLS are declined.
    Off,
    /// A unix socket: safe as it is; requests for TLS are declined, as PostgreSQL does.
    LocalSocket,
}

/// What a finished TLS handshake has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secured {
    /// The hash of the server's certificate to which a login can be bound (`tls-server-end-point`, RFC 5929 §4.1).
    /// `None`: there is none for this kind of certificate.
    pub end_point: Option<Vec<u8>>,
    /// The names in the client's certificate, which has been verified. Empty: it has shown none.
    pub client_names: Vec<String>,
}

/// By which a query can be cancelled: a connection's own, as a database gave it, or a client's, as we did.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// Names the session; no secret.
    pub process_id: u32,
    /// Proves the right to cancel.
    pub secret: Box<[u8]>,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelKey({})", self.process_id)
    }
}

/// What a login at a database needs.
#[derive(Clone)]
pub struct ConnectOptions {
    /// The database's user.
    pub user: String,
    /// The database's name.
    pub database: String,
    /// What is fixed at login and part of the pool's key: startup-only parameters, raw `options`.
    pub fixed: Vec<(String, String)>,
    /// What we prove ourselves with. `None`: only `trust` will do.
    pub secret: Option<LoginSecret>,
    /// Ask for TLS first and refuse to go on without.
    pub tls: bool,
    /// A local socket: a cleartext password may be sent although there is no TLS.
    pub local_socket: bool,
    /// Unpredictable bytes for this login's nonce.
    pub nonce: [u8; 18],
    /// How many prepared statements the connection may hold for its clients.
    pub max_prepared_statements: usize,
    /// Secret key for the hash that names prepared statements on servers; one per process.
    pub statement_key: [u8; 16],
    /// What the connections to the target know together.
    pub learned: Arc<Learned>,
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectOptions({:?}, {:?})", self.user, self.database)
    }
}

/// A password that does not print itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes themselves: for the machine that must prove or compare it, nobody else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// What the proxy proves itself with at a database.
#[derive(Clone, PartialEq, Eq)]
pub enum LoginSecret {
    /// The password, or a token in its place.
    Password(Password),
    /// A password that must not be said as it is: whoever is spoken to has not shown who it is, not even by TLS.
    Unsaid(Password),
    /// The keys that a client's SCRAM proof has shown: good wherever the same verifier is kept.
    Scram(ScramKeys),
    /// The hexadecimal MD5 of password and user name, as the database keeps it.
    Md5([u8; 32]),
}

impl fmt::Debug for LoginSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginSecret(***)")
    }
}

/// What is worth as much as the password to those who keep its verifier (RFC 5802 §3).
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// ClientKey, whose hash the verifier holds.
    pub client_key: [u8; 32],
    /// ServerKey, as in the verifier.
    pub server_key: [u8; 32],
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKeys(***)")
    }
}

/// A hash of what decides what a server makes of a statement: its text, and a label of what it is read under. The key is secret, so
/// that nobody can search for two texts with one hash.
pub fn keyed_hash(key: &[u8; 16], label: u64, text: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write_u64(label);
    hasher.write(text);
    hasher.finish128().as_u128()
}

/// A login, either side of it.
///
/// Drive it with [`step`](Self::step) until it is [`Step::Done`]; write `out` to the peer after every call, also
/// after one that failed.
pub trait Handshake {
    /// What a finished login gives.
    type Output;

    /// Takes what it understands from the front of `input` and returns how many bytes that was, and what it wants.
    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Step<Self::Output>), HandshakeError>;

    /// How many bytes more may be read for the next [`step`](Self::step), at least one. Where TLS may begin right behind what is
    /// wanted, what is behind that is not this machine's.
    fn wanted(&self, _input: &[u8]) -> usize {
        usize::MAX
    }

    /// A proof was wrong, and the peer may still show the password itself: for whom. That was a guess, whether or not it goes on.
    fn doubts(&self) -> Option<&str> {
        None
    }

    /// Answers the last [`Step::Ask`] or confirms [`Step::StartTls`]; then call `step` again.
    fn answer(&mut self, answer: Answer);

    /// The peer has said this, and nobody will look at it: what it is told next, by [`refuse`](Self::refuse), comes behind it.
    fn pass_over(&mut self, _input: &[u8]) {}

    /// Ends the login with an error in the peer's own words (a client's login only; does nothing at a database).
    fn refuse(&mut self, error: &ClientError, out: &mut Vec<u8>);
}

/// What a login wants next.
#[derive(Debug)]
pub enum Step<T> {
    /// More bytes from the peer.
    NeedInput,
    /// Write `out`, then turn the stream into TLS, then `answer(Answer::TlsStarted(..))`. No byte of input is left.
    StartTls,
    /// An answer.
    Ask(Question),
    /// Finished; the rest of the input belongs to what follows.
    Done(T),
}

impl<T> Step<T> {
    /// Makes something else of what a finished login gives.
    pub fn map<U>(self, made: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Self::NeedInput => Step::NeedInput,
            Self::StartTls => Step::StartTls,
            Self::Ask(question) => Step::Ask(question),
            Self::Done(done) => Step::Done(made(done)),
        }
    }
}

/// What a client's login asks the core.
#[derive(Debug, Clone)]
pub enum Question {
    /// Who is this, and what must they prove? Answer: [`Answer::Credentials`].
    Credentials {
        /// The user name as the client sent it.
        user: String,
        /// The database as the client sent it.
        database: String,
        /// What the login machine can check an answer against.
        knowledge: Knowledge,
    },
    /// Does this password, or token, let the user in? Answer: [`Answer::Judged`]. Asked for unknown users, too.
    Password {
        /// The user name as the client sent it.
        user: String,
        /// What the client sent, up to 64 KiB.
        password: Password,
    },
    /// The proof holds. What is this client told, and by which key can it cancel? Answer: [`Answer::Welcome`].
    Welcome(Login),
}

/// What an answer to a challenge is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// What is kept of a password (SCRAM, MD5).
    Verifier,
    /// The password itself.
    Password,
}

/// What the core says to a login.
#[derive(Debug)]
pub enum Answer {
    /// The stream is TLS now.
    TlsStarted(Secured),
    /// What the client must prove.
    Credentials(Credentials),
    /// Whether the password holds, or what the client is told.
    Judged(Result<(), ClientError>),
    /// What the client is told after its proof.
    Welcome(Welcome),
}

/// What a client must prove. An unknown user gets a mock secret, so that its login takes the same path and time.
#[derive(Clone)]
pub struct Credentials {
    /// How, and against what it is checked.
    pub proof: Proof,
    /// False for a mock: even a proof that holds is refused.
    pub known: bool,
}

/// How a client proves who it is.
#[derive(Clone)]
pub enum Proof {
    /// SCRAM-SHA-256; bound to the TLS connection where both sides can.
    Scram(ScramSecret),
    /// The old challenge: the hexadecimal MD5 of password and user name, to be salted and hashed again.
    Md5([u8; 32]),
    /// The whole password (or a token), which the core judges: [`Question::Password`]. Never without TLS, but for a local
    /// socket.
    Password,
    /// The answer to a challenge by who knows a password.
    Challenge(Challenge),
    /// A client certificate for one of these names.
    Certificate(Arc<[String]>),
}

/// A password that is shown by answers to challenges.
#[derive(Clone)]
pub struct Challenge {
    /// The password.
    pub password: Password,
    /// The weaker of two ways to answer, if the endpoint takes that of anybody: whether it takes it of this user.
    pub weaker: Option<bool>,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(***)")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

/// What a client that proved itself asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user name on the wire.
    pub user: String,
    /// The database asked for.
    pub database: String,
    /// The session's baseline: startup parameters and `options`, replayed by difference at hand-out.
    pub baseline: Arc<Settings>,
    /// What can only be given at a database login; part of the pool's key.
    pub fixed: Vec<(String, String)>,
    /// What its SCRAM proof has shown, if that was its proof.
    pub keys: Option<ScramKeys>,
}

/// What a client is told after its proof.
#[derive(Clone)]
pub struct Welcome {
    /// What the server reports (ParameterStatus), baseline applied.
    pub parameters: Arc<Parameters>,
    /// By which it can cancel; a protocol that has room for less than the whole secret sends its first bytes.
    pub cancel_key: CancelKey,
    /// Tells this client from any other of the process.
    pub client_id: u64,
    /// Secret key for the hash that names prepared statements; the same as in [`ConnectOptions`].
    pub statement_key: [u8; 16],
}

impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Welcome({:?}, client {})", self.cancel_key, self.client_id)
    }
}

/// How a client's login ended.
#[derive(Debug)]
pub enum Accepted<C> {
    /// A session begins.
    Client(C),
    /// It was a request to cancel another client's query; there is no session and no answer.
    Cancel(CancelKey),
}

/// One client after its login: its state, and what it says while it holds no server connection.
pub trait ClientSide {
    /// Looks at the next bytes of a client that holds no server connection; answers what needs none.
    /// Returns the bytes it took and what must happen for the rest.
    fn detached(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Detached), Violation>;

    /// Answers the request at the head of the input with an error after which the session goes on; the request
    /// itself is dropped by the calls of [`detached`](Self::detached) that follow.
    fn refuse(&mut self, error: &ClientError, out: &mut Vec<u8>);

    /// Ends the session with an error.
    fn end(&mut self, error: &ClientError, out: &mut Vec<u8>);

    /// It has just begun; this is what it may be pinned for.
    fn set_pin_rules(&mut self, rules: PinRules);

    /// Why the client must keep its server connection.
    fn pins(&self) -> Pins;

    /// What of it is on its connection, as far as is known, that it does not keep that for ([`PinPolicy::allowed`]).
    fn leaves(&self) -> Pins;

    /// No transaction is open, and [`pins`](Self::pins) are right: a client that has some counts as pinned, another does not.
    fn settle_pins(&mut self);

    /// It gives its connection back, and nothing of it is left there that it will find again.
    fn let_go(&mut self);

    /// The statement that pinned it for this reason, if that is known.
    fn pin_cause(&self, reason: PinReason) -> Option<PinCause>;

    /// The settings a server connection must have for this client.
    fn settings(&self) -> &Arc<Settings>;

    /// As in [`Welcome::client_id`].
    fn id(&self) -> u64;

    /// What it says that its program is; may be empty.
    fn application(&self) -> &str;

    /// It asks for last values that its connection has (of sequences, say): it has done so, or [is expected
    /// to](Self::expect_to_ask).
    fn asks_last_values(&self) -> bool;

    /// Other clients of its program ask for last values: it keeps its connection behind what may make some.
    fn expect_to_ask(&mut self);

    /// It keeps its connection for last values alone, or beside them for what [goes away](ServerSide::verify) as soon as the server is
    /// asked, which would spoil them.
    fn is_kept_for_a_moment(&self) -> bool {
        self.pins().are_for_a_moment()
    }

    /// Its reasons, as they are counted and told: what the server will be asked of in a moment is none of its own.
    fn counted_pins(&self) -> Pins {
        if self.is_kept_for_a_moment() { Pins::of(PinReason::Sequence) } else { self.pins() }
    }

    /// It does not keep its connection for last values any longer.
    fn let_go_of_last_values(&mut self);

    /// Its connection is gone: it does not miss what it was kept for a moment for.
    fn loses_connection(&mut self) {
        if self.pins().are_for_a_moment() {
            self.let_go_of_last_values();
        }
    }

    /// It said goodbye, or was told so.
    fn has_ended(&self) -> bool;

    /// What it must show to cancel: the part of [`Welcome::cancel_key`]'s secret that it was told.
    fn cancel_secret(&self) -> &[u8];

    /// How its bytes are packed from here on, both ways, if they are; told once, when it has just logged in. What it is told of its
    /// login is not packed yet.
    fn codec(&mut self) -> Option<Box<dyn Codec>> {
        None
    }

    /// What is at the head of its input begins another login, maybe as somebody else: this session is over, and its stream stays.
    fn logs_in_again(&self) -> bool {
        false
    }

    /// Another client that it wants stopped; told once. Until it has [been told what came of that](Self::killed), nothing of its is
    /// taken.
    fn kill(&mut self) -> Option<Kill> {
        None
    }

    /// What came of it.
    fn killed(&mut self, _: Killed) {}
}

/// A client that another one wants stopped, in the same protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// As in [`CancelKey::process_id`].
    pub process_id: u32,
    /// Its session ends; otherwise only what it does at the moment.
    pub ends_session: bool,
}

/// What came of a [`Kill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killed {
    /// It was told, and has acted upon it.
    Done,
    /// There is no such client.
    NoSuchClient,
    /// It is another user's.
    NotOwned,
}

/// What a client without a server connection needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    /// More bytes.
    NeedInput,
    /// A server connection; the rest of the input is for it.
    NeedServer(Intent),
    /// It said goodbye.
    Ended,
}

/// One server connection after its login. Its heart is the queue of replies owed.
pub trait ServerSide {
    /// The other side's machine.
    type Client: ClientSide;
    /// As in [`Protocol::Cancel`].
    type Cancel;

    /// Hand-out: writes what the connection lacks of the client's settings, and tells the client what differs from
    /// what it has been told. [`send`](Self::send) takes nothing before the server has answered. Only called when
    /// [`Status::Idle`]; does nothing where nothing differs.
    fn attach(&mut self, client: &mut Self::Client, sides: Sides<'_>);

    /// The settings' part of [`attach`](Self::attach), for a client that is still logging in.
    fn prepare(&mut self, settings: &Arc<Settings>, out: &mut Vec<u8>);

    /// Translates the client's bytes. Returns how many it took; the rest is shown again with more behind it, once a
    /// reply has lifted what holds it back, or, if `out` [is full](Out::is_full), once that has been written.
    fn send(&mut self, input: &[u8], client: &mut Self::Client, out: &mut Out) -> Result<usize, Violation>;

    /// Translates the server's bytes for the client (`None`: nobody holds the connection, nothing may be passed
    /// on). Returns how many it took; the rest is shown again with more behind it.
    fn receive(&mut self, input: &[u8], client: Option<&mut Self::Client>, out: &mut Out) -> Result<usize, Violation>;

    /// What the connection is doing.
    fn status(&self) -> Status;

    /// A connection that has just logged in; writes the query that makes it what clients are to find. It is written again
    /// whenever something has undone what it did. Ready once nothing is owed and nothing [has
    /// failed](Self::attach_failure).
    fn initialize(&mut self, query: &Arc<str>, out: &mut Vec<u8>);

    /// The client keeps its connection for reasons that may not hold, or no longer: writes what asks the server, and says
    /// whether anything was written. Only called when [`Status::Idle`]; the client's pins are right when it is idle again.
    fn verify(&mut self, client: &Self::Client, out: &mut Vec<u8>) -> bool;

    /// An error has left open whether there is still a transaction: writes what asks the server, and says whether anything was
    /// written. Only called when nothing is owed.
    fn probe(&mut self, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// The client is gone or gives the connection back; writes what makes the connection clean for the next
    /// one. Only called when [`Status::Idle`]; the connection is clean when it is idle again.
    fn reset(&mut self, out: &mut Vec<u8>);

    /// What the server has reported so far (ParameterStatus).
    fn parameters(&self) -> Arc<Parameters>;

    /// The settings the proxy has put on the connection.
    fn settings(&self) -> &Arc<Settings>;

    /// The client that last held the connection, if it may want it back for a last value that it has left there.
    fn wanted_by(&self) -> Option<u64>;

    /// Why the connection could not be made what its client, or the next one, must find: it must be closed.
    fn attach_failure(&mut self) -> Option<AttachFailure>;

    /// A transaction is open, as far as the server has said; or an exchange without its Sync, which is one.
    fn is_in_transaction(&self) -> bool;

    /// [`send`](Self::send) takes nothing for now, until replies have come.
    fn is_holding(&self) -> bool;

    /// Everything that is owed is the proxy's own: nothing of the client's has been sent since the connection was
    /// last idle. (A machine that holds may have sent some: it also waits in the middle of a pipeline.)
    fn has_sent_nothing(&self) -> bool;

    /// The client has the beginning of a frame whose rest has not come: nothing else can be said to it.
    fn is_midway(&self) -> bool;

    /// The server waits for more of the client before it has answered everything: a half sent frame, a missing Sync,
    /// the rest of a COPY.
    fn needs_client(&self) -> bool;

    /// The next step is the client's: nothing can be expected of the server before it has sent more (the rest of a frame,
    /// COPY data, a Sync or Flush).
    fn awaits_client(&self) -> bool;

    /// Makes the server send what it may keep back until the client asks for it. Not in the middle of a frame.
    fn flush(&mut self, out: &mut Vec<u8>);

    /// Cancels what it is doing, from another connection; over TLS if `tls`. `None`: the database gave no key.
    fn cancel(&self, tls: bool) -> Option<Self::Cancel>;

    /// The request that is being cancelled was taken for too long by the proxy: the database's error for it gets these
    /// words, if it comes before the connection is idle.
    fn explain_cancel(&mut self, why: ClientError);

    /// Ends the open transaction of a client that has nothing under way, and leaves the client in a failed one: its next
    /// request gets these words, unless it had them in place of a cancel's; then it is as behind any error. Does nothing (false)
    /// unless that can be done now.
    fn fail_transaction(&mut self, why: ClientError, out: &mut Vec<u8>) -> bool;

    /// The connection is gone, and its client, which is not pinned, has something under way. Says to the client what became of that,
    /// in the places of the answers that will not come, and leaves it as one without a connection. `has_more`: the client has sent
    /// more than was taken. The connection is of no use afterwards.
    fn lose(&mut self, _client: &mut Self::Client, _has_more: bool, _out: &mut Vec<u8>) -> Loss {
        Loss::Session
    }

    /// What has been counted since the last call.
    fn tally(&mut self) -> Tally;

    /// A request of the client's that the machine has refused and that has been answered so since; each is told once.
    fn refused(&mut self) -> Option<ClientError>;

    /// A polite goodbye, if the connection is in a state to take one.
    fn terminate(&self, out: &mut Vec<u8>);
}

/// What goes with a connection that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: all that the client has asked for on it has been answered.
    Nothing,
    /// What was under way. The client has been told, or will be when it asks for something next, and goes on.
    Work,
    /// The client can't go on, and nothing has been said to it.
    Session,
}

/// Why a connection can't be used by a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachFailure {
    /// The client's settings could not be put on it, or it could not be reset.
    Settings(ServerError),
    /// The query of [`ServerSide::initialize`] failed.
    InitQuery(ServerError),
}

/// Counts of a server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Requests that the client has sent (simple queries, function calls, and what stands before a Sync).
    pub requests: u64,
    /// Requests of the client's that were answered to the end (simple queries, Syncs, function calls).
    pub queries: u64,
    /// Times that text and server disagreed about state: stays 0 unless a text was misread.
    pub disagreements: u64,
    /// Times that the connection was given other settings, or what every client is to find done was done again.
    pub replays: u64,
    /// Times that the server was asked what its client has left there.
    pub questions: u64,
}

/// What a server connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Owes nothing, no transaction, no COPY, nothing half sent: may change hands.
    Idle,
    /// Waits for the client inside a transaction (or an exchange without its Sync); nothing is owed.
    InTransaction,
    /// Replies are owed.
    Owing,
    /// The server said it ends this connection; its words were passed on.
    Ended,
}
