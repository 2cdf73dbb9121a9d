//! From a client's first byte to its session: drives the login machine, answers its questions.
//!
//! Clients are authenticated before any database is asked. What a client is then told of the server comes from what an
//! earlier client with the same baseline was told; the first one borrows a connection for it, in the line like
//! everybody, and gets the server's own error if its database or one of its settings does not exist.

use super::cancel::{IssuedKey, Owner};
use super::tally::{Presence, Tally};
use super::{Access, Again, CancelKeys, Rules, Session, Worker};
use crate::auth::{Clients, LoggedIn};
use crate::metrics::{EndpointMetrics, LoginRefusal};
use crate::net::certificate;
use crate::net::quiet::Quiet;
use crate::net::rate::Rate;
use crate::net::sources::{PendingLogin, Source, Sources, network};
use crate::net::{Peer, Stream};
use crate::pool::line::Ask;
use crate::pool::{Borrow, Lease, PoolKey, PoolUse, Pools};
use crate::protocol::{
    AcceptOptions, Accepted, Answer, CancelKey, ClientError, ClientSide, Credentials, Greeting, Handshake,
    HandshakeError, Knowledge, Login, LoginSecret, Parameters, PasswordKey, Protocol, Question, Secured, ServerSide,
    Settings, Status, Step, TlsOffer, Violation, Welcome,
};
use crate::topology::{FoundUser, Lookup, LookupError};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tracing::{Instrument, debug, info};

/// Bytes of a login that may wait for the rest of their message: a password message of 64 KiB, and one read.
const LOGIN_BYTES_MAX: usize = 72 << 10;
/// The first byte of a TLS record that holds a handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Greetings that are remembered; one more forgets all of them.
const GREETINGS_MAX: usize = 1024;
/// Connections that may be lost during a login before it fails.
const ATTEMPTS_MAX: usize = 3;

/// What every client of an endpoint is served by.
pub struct Endpoint<P: Protocol> {
    /// As configured.
    pub name: String,
    /// Its place in the configuration, and its target group's.
    pub places: (usize, usize),
    /// TLS towards clients.
    pub tls: TlsOffer,
    /// Who may come in, and with what certificate they are met. A login holds on to what it has begun with.
    pub access: Arc<ArcSwap<Access>>,
    /// Who is logged in, here and at the other endpoints.
    pub clients: Arc<Clients>,
    /// From the first byte to the proof of identity.
    pub login_timeout: Duration,
    /// How fast clients may come: counted as they say who they are, so that those who only look whether somebody is there,
    /// who cancel, or who are refused anyway take nothing from the others.
    pub rate: Option<Rate>,
    /// Refused and broken logins in the log.
    pub quiet: Quiet<Refusal>,
    /// What sessions may do.
    pub rules: Rules,
    /// The target group's connections.
    pub pools: Arc<Pools<P>>,
    /// Users that stand in the database alone.
    pub lookup: Option<Arc<Lookup>>,
    /// What clients are told after their login.
    pub greetings: Greetings,
    /// By which clients cancel.
    pub cancel_keys: Arc<CancelKeys>,
    /// The target's version, in its own words, once it has said it.
    pub version: Arc<ArcSwapOption<Arc<str>>>,
    /// See [`Welcome::statement_key`].
    pub statement_key: [u8; 16],
    /// See [`AcceptOptions::password_key`].
    pub password_key: Option<Arc<PasswordKey>>,
}

impl<P: Protocol> Endpoint<P> {
    fn tls_for(&self, stream: &Stream) -> TlsOffer {
        if stream.peer() == Peer::Unix { TlsOffer::LocalSocket } else { self.tls }
    }

    fn hello(&self, cancel_key: &CancelKey) -> Greeting {
        Greeting {
            version: self.version.load_full().as_deref().map(Arc::clone),
            connection_id: cancel_key.process_id,
            challenges: rand::random(),
        }
    }

    /// One more begins to log in: why it may not.
    fn too_fast(&self) -> Option<ClientError> {
        let limit = self.rate.as_ref()?.exceeded(Instant::now())?;
        Some(ClientError::TooManyLogins { endpoint: self.name.clone(), limit })
    }
}

/// Logins from one network (`None`: a unix socket) that are refused for one reason.
pub type Refusal = (Option<IpAddr>, LoginRefusal);

/// What clients of a pool with a certain baseline are told of the server.
#[derive(Default)]
pub struct Greetings(Mutex<HashMap<Baseline, Arc<Parameters>>>);

/// What decides what a client is told: its pool and its settings.
type Baseline = (Arc<PoolKey>, Arc<Settings>);

/// A client that has just connected.
pub struct Visitor {
    /// Its connection, on this worker's runtime.
    pub stream: Stream,
    /// Tells it from every other client of this process.
    pub client_id: u64,
    /// It can't be served; it is told so once it has said who it is.
    pub refusal: Option<ClientError>,
    /// Its address's account; closed once it has shown who it is.
    pub pending: Option<PendingLogin>,
}

/// Why a login ended without a session.
enum Stop {
    /// The client left, or was cut off; nobody need be told.
    Quiet,
    /// It has shown a wrong proof, and left before it was told so.
    Doubted(ClientError),
    /// It asked to cancel a query, and that was done, or there was none.
    Cancel,
    /// It asked to cancel a query with a key that nobody has.
    UnknownKey,
    /// It was refused, and has been told.
    Refused(ClientError),
    /// It broke the rules.
    Broken(HandshakeError),
    /// TLS could not be agreed on.
    Tls(io::Error),
    Network(io::Error),
}

impl From<HandshakeError> for Stop {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Refused(error) => Self::Refused(error),
            error @ (HandshakeError::Violation(_)
            | HandshakeError::Server(_)
            | HandshakeError::TlsDeclined
            | HandshakeError::UnsupportedMethod(_)
            | HandshakeError::NoPassword(_)
            | HandshakeError::Challenge(_)
            | HandshakeError::ServerNotProven
            | HandshakeError::Standby) => Self::Broken(error),
        }
    }
}

impl Stop {
    /// The same, if the client has shown something wrong by then and is asked for more.
    fn of_one_who(self, machine: &impl Handshake) -> Self {
        match (self, machine.doubts()) {
            (Self::Quiet | Self::Network(_), Some(user)) => {
                Self::Doubted(ClientError::LoginRefused { user: user.to_owned() })
            }
            (stop, _) => stop,
        }
    }

    /// What is counted; nothing for a cancel request.
    fn reason(&self) -> Option<LoginRefusal> {
        Some(match self {
            Self::Cancel | Self::UnknownKey => return None,
            Self::Quiet | Self::Network(_) => LoginRefusal::Left,
            Self::Tls(_) => LoginRefusal::Tls,
            Self::Broken(_) | Self::Refused(ClientError::NoUserName) => LoginRefusal::Protocol,
            Self::Refused(ClientError::TlsRequired | ClientError::PasswordInClear) => LoginRefusal::TlsRequired,
            Self::Refused(ClientError::Replication) => LoginRefusal::Replication,
            Self::Refused(ClientError::LoginRefused { .. }) | Self::Doubted(_) => LoginRefusal::Password,
            Self::Refused(ClientError::TokenRefused { .. }) => LoginRefusal::Token,
            Self::Refused(ClientError::CertificateRefused { .. }) => LoginRefusal::Certificate,
            Self::Refused(
                ClientError::TooManyClients { .. }
                | ClientError::TooManyUserClients { .. }
                | ClientError::TooManyLogins { .. }
                | ClientError::TooManyLoginsAtOnce { .. }
                | ClientError::TooManyFailedLogins,
            ) => LoginRefusal::TooManyClients,
            Self::Refused(ClientError::AddressNotAllowed { .. }) => LoginRefusal::Address,
            Self::Refused(ClientError::LoginTimeout) => LoginRefusal::Timeout,
            Self::Refused(ClientError::GoingDown) => LoginRefusal::GoingDown,
            Self::Refused(_) => LoginRefusal::Database,
        })
    }

    /// Says it in the log. What a stranger can repeat as fast as it likes is said now and then.
    fn log(&self, quiet: &Quiet<Refusal>, peer: Peer) {
        let left_out = match self.reason().filter(|_| self.is_cheap()) {
            None => Some(0),
            Some(reason) => {
                let source = if let Peer::Address(address) = peer { Some(network(address.ip())) } else { None };
                quiet.is_due((source, reason), Instant::now())
            }
        };
        let Some(left_out) = left_out else { return };
        let left_out = (left_out > 0).then_some(left_out);
        match self {
            Self::Quiet => debug!("left before logging in"),
            Self::Doubted(error) => info!(kind = error.kind().name(), %error, "a wrong password, and left"),
            Self::Cancel => debug!("cancel request"),
            Self::UnknownKey => debug!("cancel request with a key that nobody has"),
            Self::Refused(error) => info!(kind = error.kind().name(), %error, left_out, "login refused"),
            Self::Broken(error) => info!(%error, left_out, "login failed"),
            Self::Tls(error) => info!(%error, left_out, "TLS failed"),
            Self::Network(error) => debug!(%error, "connection lost during login"),
        }
    }

    /// It cost who brought it about neither a try for a proof nor a proof.
    fn is_cheap(&self) -> bool {
        match self.reason() {
            // Nobody can say whether there is such a user.
            Some(LoginRefusal::Database) => matches!(self, Self::Refused(ClientError::LookupFailed { .. })),
            Some(LoginRefusal::Password | LoginRefusal::Token | LoginRefusal::Certificate) => false,
            // Said at `debug`.
            Some(LoginRefusal::Left) | None => false,
            Some(_) => true,
        }
    }
}

/// Serves a client from its first byte to its last; `place` is dropped behind it.
///
/// Not an async function, as it would keep room for what it is given, twice, for as long as the client stays.
pub fn serve<P: Protocol>(
    worker: Rc<Worker>,
    endpoint: Arc<Endpoint<P>>,
    visitor: Visitor,
    place: impl Sized,
) -> impl Future<Output = ()> {
    let (counts, _) = worker.counters(endpoint.places.0, endpoint.places.1);
    let presence = Rc::new(Presence::new(Arc::clone(&counts)));
    let (peer, client_id) = (visitor.stream.peer(), visitor.client_id);
    let source = visitor.pending.as_ref().map(PendingLogin::source);
    // Boxed, because a login needs kilobytes, and a task keeps room for the largest of its parts as long as it lives: an
    // idle client should not own that.
    let first = Box::pin({
        let (worker, endpoint, presence) = (Rc::clone(&worker), Arc::clone(&endpoint), Rc::clone(&presence));
        async move { arrive(&worker, &endpoint, visitor, &presence).await }
    });
    async move {
        let mut span = span_of(client_id, peer, &endpoint.name);
        let login = first.instrument(span.clone()).await;
        let mut login = span.in_scope(|| counted(login, &endpoint, &counts, peer));
        let mut logins = 1;
        while let Some((session, logged_in)) = login {
            counts.client_connections_setup_succeeded.add(1);
            span.in_scope(|| info!("logged in"));
            let (end, again) = session.run().instrument(span.clone()).await;
            drop(logged_in);
            span.in_scope(|| info!(?end, "left"));
            let Some(again) = again else { break };
            let from = (ClientId { number: client_id, logins }, source.as_ref());
            logins += 1;
            // What is said of a span twice is shown twice.
            span = span_of(client_id, peer, &endpoint.name);
            let come = Box::pin(come_again(&worker, &endpoint, again, from, &presence)).instrument(span.clone()).await;
            login = span.in_scope(|| counted(come, &endpoint, &counts, peer));
        }
        drop((presence, place));
    }
}

/// What is said of a client in the log, from one login of its to the next.
fn span_of(client_id: u64, peer: Peer, endpoint: &str) -> tracing::Span {
    let (user, database) = (tracing::field::Empty, tracing::field::Empty);
    tracing::info_span!("client", client_id, %peer, endpoint, user, database)
}

/// A client whose login is done.
type Logged<P> = (Box<Session<P>>, LoggedIn);

/// Why a login has failed is counted and logged.
fn counted<P: Protocol>(
    login: Result<Logged<P>, Stop>,
    endpoint: &Endpoint<P>,
    counts: &EndpointMetrics,
    peer: Peer,
) -> Option<Logged<P>> {
    let stop = match login {
        Ok(logged) => return Some(logged),
        Err(stop) => stop,
    };
    if let Some(reason) = stop.reason() {
        counts.logins_refused.of(reason).add(1);
    }
    if let Stop::Refused(error) = &stop {
        counts.told(error);
    }
    stop.log(&endpoint.quiet, peer);
    None
}

/// The login of a client that has just connected.
async fn arrive<P: Protocol>(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint<P>>,
    visitor: Visitor,
    presence: &Presence,
) -> Result<Logged<P>, Stop> {
    let Visitor { mut stream, client_id, refusal, pending } = visitor;
    // A unix socket is as safe as TLS, whatever else the endpoint listens on.
    let tls = endpoint.tls_for(&stream);
    let access = endpoint.access.load_full();
    let deadline = tokio::time::Instant::now() + endpoint.login_timeout;
    let opening = async {
        if P::SERVER_SPEAKS_FIRST {
            return Ok(None);
        }
        let first = first_byte(&mut stream).await?;
        direct_tls::<P>(&access, tls, &mut stream, (first, &Tries(pending.as_ref()))).await
    };
    let Ok(direct_tls) = tokio::time::timeout_at(deadline, opening).await else {
        return Err(Stop::Refused(ClientError::LoginTimeout));
    };
    if stream.is_tls() {
        presence.encrypted();
    }
    // Until the client has proven itself the key cancels nothing.
    let lot = P::KILLS_BY_NUMBER.then(rand::random);
    let Some((issued, cancel_key)) = endpoint.cancel_keys.issue(client_id, worker.number(), lot) else {
        return Err(Stop::Refused(ClientError::Internal));
    };
    let greeting = endpoint.hello(&cancel_key);
    let machine = P::accept(AcceptOptions {
        tls,
        direct_tls: direct_tls?,
        nonce: rand::random(),
        greeting,
        password_key: endpoint.password_key.clone(),
    });
    let client_id = ClientId { number: client_id, logins: 0 };
    let entrance = Entrance { stream, machine, input: Vec::new(), out: Vec::new(), issued, cancel_key, client_id };
    log_in(worker, endpoint, (access, deadline), entrance, (refusal, pending), presence).await
}

/// The login of a client that was logged in, over the same connection and maybe as somebody else.
async fn come_again<P: Protocol>(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint<P>>,
    again: Again<P>,
    (client_id, source): (ClientId, Option<&(Arc<Sources>, Source)>),
    presence: &Presence,
) -> Result<Logged<P>, Stop> {
    let Again { client, stream, input, out, cancel_key: issued } = again;
    let access = endpoint.access.load_full();
    let deadline = tokio::time::Instant::now() + endpoint.login_timeout;
    // Its tries go on the account of its address, like anybody's.
    let pending = source.map(|(sources, source)| sources.admit_without_place(*source, Instant::now()));
    let (pending, refusal) = match pending.transpose() {
        Ok(pending) => (pending, None),
        Err(_) => (None, Some(ClientError::TooManyFailedLogins)),
    };
    let cancel_key = issued.key();
    let options = AcceptOptions {
        tls: endpoint.tls_for(&stream),
        direct_tls: stream.is_tls().then(|| secured(&access, &stream)),
        nonce: rand::random(),
        greeting: endpoint.hello(&cancel_key),
        password_key: endpoint.password_key.clone(),
    };
    let Some(machine) = P::accept_again(client, options) else { return Err(Stop::Quiet) };
    let entrance = Entrance { stream, machine, input, out, issued, cancel_key, client_id };
    log_in(worker, endpoint, (access, deadline), entrance, (refusal, pending), presence).await
}

/// A client that is about to say who it is.
struct Entrance<P: Protocol> {
    stream: Stream,
    machine: P::Accept,
    input: Vec<u8>,
    out: Vec<u8>,
    issued: IssuedKey,
    cancel_key: CancelKey,
    client_id: ClientId,
}

/// Tells a client from every other of this process.
#[derive(Clone, Copy)]
struct ClientId {
    /// Its connection.
    number: u64,
    /// How often it had logged in over that before.
    logins: u64,
}

impl ClientId {
    /// To its machines it is another one each time: nothing that is left of the last one is its own.
    const fn of_login(self) -> u64 {
        self.number | self.logins << 48
    }
}

async fn log_in<P: Protocol>(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint<P>>,
    (access, deadline): (Arc<Access>, tokio::time::Instant),
    entrance: Entrance<P>,
    (refusal, pending): (Option<ClientError>, Option<PendingLogin>),
    presence: &Presence,
) -> Result<Logged<P>, Stop> {
    let Entrance { mut stream, mut machine, mut input, mut out, issued, cancel_key, client_id } = entrance;
    let tries = Tries(pending.as_ref());
    let beside = (presence, refusal, &tries);
    let proving = prove::<P>(endpoint, &access, beside, &mut machine, &mut stream, &mut input, &mut out);
    let login = match tokio::time::timeout_at(deadline, proving).await {
        Ok(login) => login.map_err(|stop| stop.of_one_who(&machine))?,
        Err(_) => return Err(Stop::Refused(refuse::<P>(&mut machine, &mut stream, ClientError::LoginTimeout).await)),
    };
    drop(pending);
    let span = tracing::Span::current();
    span.record("user", &login.user);
    span.record("database", &login.database);
    let limit = endpoint.access.load().authenticator.max_clients(&login.user);
    let Some(logged_in) = endpoint.clients.admit(&login.user, limit) else {
        let error = ClientError::TooManyUserClients { user: login.user, limit: limit.unwrap_or_default() };
        return Err(Stop::Refused(refuse::<P>(&mut machine, &mut stream, error).await));
    };
    let greeting = unless_gone(&mut stream, &mut input, greeting(worker, endpoint, &access, &login)).await?;
    let (pool, parameters) = match greeting {
        Ok(greeting) => greeting,
        Err(error) => return Err(Stop::Refused(refuse::<P>(&mut machine, &mut stream, error).await)),
    };
    machine.answer(Answer::Welcome(Welcome {
        parameters,
        cancel_key,
        client_id: client_id.of_login(),
        statement_key: endpoint.statement_key,
    }));
    let (taken, step) = machine.step(&input, &mut out)?;
    let Step::Done(Accepted::Client(mut client)) = step else { return Err(Stop::Quiet) };
    input.drain(..taken);
    if let Some(codec) = client.codec() {
        // The last words of the login go as they are.
        let told = tokio::time::timeout_at(deadline, stream.write_whole(&mut out)).await;
        told.map_err(|_| Stop::Quiet)?.map_err(Stop::Network)?;
        stream.pack(codec, std::mem::take(&mut input));
    }
    issued.told(client.cancel_secret(), Owner { protocol: P::NAME, user: login.user.as_str().into() });
    let watch = worker.watch(client_id.number, &endpoint.rules);
    Ok((Box::new(Session::new(watch, endpoint, pool, stream, client, issued, (input, out))), logged_in))
}

/// Waits for the client to say something; its first byte, which stays to be read. `None`: only of TCP can that be known.
async fn first_byte(stream: &mut Stream) -> Result<Option<u8>, Stop> {
    if stream.peer() == Peer::Unix || stream.peer() == Peer::Memory {
        return Ok(None);
    }
    stream.peek().await.map_err(Stop::Network)?.map(Some).ok_or(Stop::Quiet)
}

/// Starts TLS for a client that begins with it at once, where its protocol allows that. `None`: it does not.
///
/// Such a client must say what it wants to speak, so that nobody talks it into speaking to another kind of server
/// (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>).
async fn direct_tls<P: Protocol>(
    access: &Access,
    tls: TlsOffer,
    stream: &mut Stream,
    (first, tries): (Option<u8>, &Tries<'_>),
) -> Result<Option<Secured>, Stop> {
    let (Some(alpn), TlsOffer::Required | TlsOffer::Optional) = (P::DIRECT_TLS, tls) else { return Ok(None) };
    if first != Some(TLS_HANDSHAKE) {
        return Ok(None);
    }
    let secured = start_tls(access, stream, tries).await?;
    if stream.alpn() != Some(alpn) {
        _ = tries.take();
        return Err(Stop::Broken(Violation::NoProtocolNamed.into()));
    }
    Ok(Some(secured))
}

/// A handshake that fails costs a try: it has cost us a signature. One that succeeds costs none, or many clients behind one
/// address could not come at the same time.
async fn start_tls(access: &Access, stream: &mut Stream, tries: &Tries<'_>) -> Result<Secured, Stop> {
    let Some(tls) = &access.tls else { return Err(Stop::Quiet) };
    let started = stream.start_tls_server(Arc::clone(&tls.config)).await;
    // Else it has left in the middle.
    let is_about_tls = |error: &io::Error| error.get_ref().is_some_and(|source| source.is::<rustls::Error>());
    if let Err(error) = started {
        if !is_about_tls(&error) {
            return Err(Stop::Network(error));
        }
        _ = tries.take();
        return Err(Stop::Tls(error));
    }
    Ok(secured(access, stream))
}

/// What the stream's TLS has shown.
fn secured(access: &Access, stream: &Stream) -> Secured {
    let client_names = stream.peer_certificate().map(certificate::names).unwrap_or_default();
    Secured { end_point: access.tls.as_ref().and_then(|tls| tls.end_point.clone()), client_names }
}

/// The account of the client's address, where it has one ([`sources`](crate::net::sources)).
struct Tries<'a>(Option<&'a PendingLogin>);

impl Tries<'_> {
    fn take(&self) -> bool {
        self.0.is_none_or(|pending| pending.take(Instant::now()))
    }

    fn give_back(&self) {
        if let Some(pending) = self.0 {
            pending.give_back();
        }
    }
}

/// This is what somebody gets who guesses: a refused proof, or a broken rule.
fn is_guess(error: &HandshakeError) -> bool {
    match error {
        HandshakeError::Refused(error) => matches!(
            error,
            ClientError::LoginRefused { .. }
                | ClientError::TokenRefused { .. }
                | ClientError::CertificateRefused { .. }
        ),
        HandshakeError::Violation(_) => true,
        HandshakeError::Server(_)
        | HandshakeError::TlsDeclined
        | HandshakeError::UnsupportedMethod(_)
        | HandshakeError::NoPassword(_)
        | HandshakeError::Challenge(_)
        | HandshakeError::ServerNotProven
        | HandshakeError::Standby => false,
    }
}

/// Such a refusal holds for a request to cancel, too: it has no account for tries, or no business here. A full endpoint's
/// does not: those who take its places are the ones who may want to cancel.
fn is_about_the_address(refusal: &ClientError) -> bool {
    matches!(
        refusal,
        ClientError::AddressNotAllowed { .. }
            | ClientError::TooManyFailedLogins
            | ClientError::TooManyLoginsAtOnce { .. }
    )
}

/// Drives the login up to the client's proof.
#[allow(clippy::too_many_arguments)]
async fn prove<P: Protocol>(
    endpoint: &Endpoint<P>,
    access: &Access,
    (presence, mut refusal, tries): (&Presence, Option<ClientError>, &Tries<'_>),
    machine: &mut P::Accept,
    stream: &mut Stream,
    input: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<Login, Stop> {
    let mut looked_up = None;
    // Whether a proof may be what comes next; and whether a try is held for a question to the database.
    let (mut has_asked, mut holds_try) = (false, false);
    // Whether it has shown something wrong, and may still show something right.
    let mut is_doubted = false;
    loop {
        // Before the step, which judges: nobody learns whether a proof would have been good when no try is left.
        if has_asked && !tries.take() {
            machine.pass_over(input);
            return Err(tell::<P>(machine, stream, out, ClientError::TooManyFailedLogins).await);
        }
        let step = machine.step(input, out);
        let (was_doubted, doubts) = (is_doubted, machine.doubts());
        is_doubted |= doubts.is_some();
        match step.as_ref().err().is_some_and(is_guess) {
            // One is enough for both.
            true if has_asked && holds_try => tries.give_back(),
            true if has_asked => {}
            true => _ = tries.take(),
            // It has learnt whether its guess was right: if it goes now, that has cost it as much.
            false if has_asked && doubts.is_some() && !holds_try => holds_try = true,
            false if has_asked => tries.give_back(),
            false => {}
        }
        let refused = match &step {
            Err(HandshakeError::Refused(ClientError::LoginRefused { user })) => Some(user.as_str()),
            Ok(_) | Err(_) => doubts,
        };
        if let Some(user) = refused.filter(|_| !was_doubted) {
            Access::refused(&endpoint.access, user);
            if let Some(lookup) = &endpoint.lookup {
                lookup.proof_failed(user);
            }
        }
        stream.write_whole(out).await.map_err(Stop::Network)?;
        let (taken, step) = step?;
        input.drain(..taken);
        match step {
            Step::NeedInput => {
                let limit = machine.wanted(input);
                if input.len() > LOGIN_BYTES_MAX || stream.read_at_most(input, limit).await.map_err(Stop::Network)? == 0
                {
                    return Err(Stop::Quiet);
                }
            }
            Step::StartTls => {
                let secured = start_tls(access, stream, tries).await?;
                presence.encrypted();
                machine.answer(Answer::TlsStarted(secured));
            }
            Step::Ask(Question::Credentials { user, knowledge, .. }) => {
                if let Some(error) = refusal.take().or_else(|| endpoint.too_fast()) {
                    return Err(tell::<P>(machine, stream, out, error).await);
                }
                let credentials = match credentials(endpoint, access, (&user, knowledge), tries, &mut holds_try).await {
                    Ok((credentials, found)) => {
                        looked_up = found;
                        credentials
                    }
                    Err(error) => return Err(tell::<P>(machine, stream, out, error).await),
                };
                has_asked = true;
                machine.answer(Answer::Credentials(credentials));
            }
            Step::Ask(Question::Password { user, password }) => {
                let judged = access.authenticator.judge(&endpoint.name, &user, &password, SystemTime::now());
                if let Err(refused) = &judged {
                    info!(user, reason = %refused.reason, "password or token refused");
                    if refused.is_about_the_key() {
                        access.key_refused(&password);
                    }
                }
                machine.answer(Answer::Judged(judged.map_err(|refused| refused.told)));
            }
            Step::Ask(Question::Welcome(login)) => {
                if holds_try {
                    tries.give_back();
                }
                if let (Some(lookup), Some(found)) = (&endpoint.lookup, looked_up) {
                    let keys = login.keys.clone().map(LoginSecret::Scram);
                    if let Some(secret) = keys.or_else(|| found.md5().map(LoginSecret::Md5)) {
                        lookup.proven(&login.user, secret);
                    }
                }
                return Ok(login);
            }
            Step::Done(Accepted::Cancel(key)) => {
                // A cancel is not answered, whatever comes of it.
                if refusal.as_ref().is_some_and(is_about_the_address) || !tries.take() {
                    return Err(Stop::Quiet);
                }
                if !endpoint.cancel_keys.knows(&key) {
                    return Err(Stop::UnknownKey);
                }
                tries.give_back();
                endpoint.cancel_keys.cancel(&key).await;
                return Err(Stop::Cancel);
            }
            Step::Done(Accepted::Client(_)) => return Err(Stop::Quiet),
        }
    }
}

/// What this user must prove, and what the database keeps of it, if that is what was asked. A question to the database
/// takes a try, which is held from then on.
async fn credentials<P: Protocol>(
    endpoint: &Endpoint<P>,
    access: &Access,
    (user, knowledge): (&str, Knowledge),
    tries: &Tries<'_>,
    holds_try: &mut bool,
) -> Result<(Credentials, Option<Arc<FoundUser>>), ClientError> {
    if let Some(lookup) = endpoint.lookup.as_ref().filter(|_| !access.authenticator.is_listed(user)) {
        let may_ask = || {
            *holds_try = tries.take();
            *holds_try
        };
        let found = lookup.find(user, may_ask).await.map_err(|error| match error {
            LookupError::NotAllowed => ClientError::TooManyFailedLogins,
            LookupError::Failed => {
                // Not the client's fault.
                if std::mem::take(holds_try) {
                    tries.give_back();
                }
                ClientError::LookupFailed { group: lookup.group().to_owned() }
            }
        })?;
        // Made for everybody, so that it takes everybody the same time.
        let unknown = access.authenticator.unknown(user, &lookup.forms());
        return Ok(match found {
            Some(found) => (Credentials { proof: found.proof.clone(), known: true }, Some(found)),
            None => (unknown, None),
        });
    }
    Ok((access.authenticator.credentials(&endpoint.name, user, knowledge), None))
}

/// Tells a client that is still to prove itself.
async fn tell<P: Protocol>(
    machine: &mut P::Accept,
    stream: &mut Stream,
    out: &mut Vec<u8>,
    error: ClientError,
) -> Stop {
    machine.refuse(&error, out);
    match stream.write_whole(out).await {
        Ok(()) => Stop::Refused(error),
        Err(error) => Stop::Network(error),
    }
}

/// Tells the client, if it still listens.
async fn refuse<P: Protocol>(machine: &mut P::Accept, stream: &mut Stream, error: ClientError) -> ClientError {
    let mut out = Vec::new();
    machine.refuse(&error, &mut out);
    // One that does not take its refusal in time is cut off.
    let _ = tokio::time::timeout(super::FAREWELL, stream.write_whole(&mut out)).await;
    error
}

/// Waits for what a client waits for, as long as it does.
async fn unless_gone<T>(stream: &mut Stream, input: &mut Vec<u8>, work: impl Future<Output = T>) -> Result<T, Stop> {
    let mut work = pin!(work);
    loop {
        if input.len() > LOGIN_BYTES_MAX {
            return Ok(work.await);
        }
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            read = stream.read_more(input) => if read.map_err(Stop::Network)? == 0 {
                return Err(Stop::Quiet);
            },
        }
    }
}

/// The client's pool, and what the client is told of the server.
async fn greeting<P: Protocol>(
    worker: &Worker,
    endpoint: &Endpoint<P>,
    access: &Access,
    login: &Login,
) -> Result<(PoolUse<P>, Arc<Parameters>), ClientError> {
    let pools = &endpoint.pools;
    // Whom the configuration does not name, the database knows by the same name.
    let account = access.authenticator.database_user(&login.user).unwrap_or(&login.user).to_owned();
    let key =
        PoolKey { user: login.user.clone(), account, database: login.database.clone(), fixed: login.fixed.clone() };
    let pool = pools.pool(key)?;
    let known = (Arc::clone(pool.pool_key()), Arc::clone(&login.baseline));
    if let Some(parameters) = endpoint.greetings.find(&known) {
        return Ok((pool, parameters));
    }
    let (own, groups) = worker.counters(endpoint.places.0, endpoint.places.1);
    let mut tally = Tally::new(own, groups, false);
    let mut failed = ClientError::ConnectionsLost { group: pools.group().to_owned() };
    for _ in 0..ATTEMPTS_MAX {
        let ask = Ask { key: pool.key(), label: login.baseline.label(), worker: worker.number(), client: None };
        let Some(mut lease) = wait_for_lease(pools, ask, &mut tally).await? else { continue };
        // Of many that came at once with the same baseline, one has asked by now.
        if let Some(parameters) = endpoint.greetings.find(&known) {
            lease.release();
            return Ok((pool, parameters));
        }
        let connection = &mut lease.connection;
        connection.machine.prepare(&login.baseline, &mut connection.pending);
        let Ok(settled) = tokio::time::timeout(endpoint.login_timeout, connection.settle()).await else { break };
        match lease.attach_failure() {
            Some(error) => {
                lease.discard();
                // Of these another connection need know nothing.
                if !matches!(error, ClientError::ConnectionsLost { .. } | ClientError::InitQuery { .. }) {
                    return Err(error);
                }
                failed = error;
                continue;
            }
            None if settled.is_err() || lease.connection.machine.status() != Status::Idle => continue,
            None => {}
        }
        let parameters = lease.connection.machine.parameters();
        lease.release();
        endpoint.greetings.remember(known, &parameters);
        return Ok((pool, parameters));
    }
    Err(failed)
}

async fn wait_for_lease<P: Protocol>(
    pools: &Arc<Pools<P>>,
    ask: Ask,
    tally: &mut Tally,
) -> Result<Option<Lease<P>>, ClientError> {
    tally.asks();
    match pools.borrow(ask) {
        Borrow::Now(lease) => {
            tally.borrowed_at_once();
            Ok(Some(lease))
        }
        Borrow::Later(mut waiting) => {
            let outcome = (&mut waiting.outcome).await;
            tally.waited(waiting.since);
            let lease = outcome.unwrap_or(Err(ClientError::Internal))?.checked(ask.worker);
            if lease.is_some() {
                tally.borrowed();
            }
            Ok(lease)
        }
        Borrow::Refused(error) => Err(error),
    }
}

impl Greetings {
    fn find(&self, known: &Baseline) -> Option<Arc<Parameters>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(known).cloned()
    }

    fn remember(&self, known: Baseline, parameters: &Arc<Parameters>) {
        let mut greetings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if greetings.len() >= GREETINGS_MAX {
            greetings.clear();
        }
        greetings.insert(known, Arc::clone(parameters));
    }
}
