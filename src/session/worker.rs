//! What the sessions of one worker share: a buffer to read into, counters, and a clock that looks after them.
//!
//! Everything here belongs to one thread. A session sets no timer of its own: the worker looks at all of them a few
//! times a second and wakes those whose time is up.

use super::Rules;
use super::cancel::{Asker, Order, Orders};
use super::tally::PinsTold;
use crate::metrics::{EndpointMetrics, GroupMetrics, Metrics, ThreadMetrics};
use crate::net::Stream;
use crate::protocol::Out;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// Between two looks at the sessions; timeouts are this much late at most.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// What was asked for by a client that has left may take so long: it may have closed one direction only, and a short
/// statement has the same end as on a direct connection.
const ABANDONED: Duration = Duration::from_secs(5);
/// Who asks for a last value does so at once. Afterwards the connection is still the client's, if nobody else needs it.
const LINGERING: Duration = Duration::from_secs(1);
/// What is over its time may take so long to stop: a cancel, and the error it causes, need a moment.
pub(super) const OVERTIME: Duration = Duration::from_secs(5);
/// Cancels of one session that may be waited for at a time.
const ASKERS_MAX: usize = 16;

/// One worker thread's share of things.
pub struct Worker {
    number: usize,
    metrics: Arc<Metrics>,
    scratch: RefCell<Scratch>,
    sessions: RefCell<BTreeMap<u64, Watched>>,
    draining: Cell<bool>,
    pub(super) pins_told: PinsTold,
}

struct Watched {
    handle: Rc<Handle>,
    rules: Rules,
    /// The phase, with what the client has sent in it, and for how long that has been so.
    idle: Unchanged<(Phase, u64)>,
    /// The query that is being answered, by number.
    query: Unchanged<Option<u64>>,
    /// The transaction that is open, by number.
    transaction: Unchanged<Option<u64>>,
}

/// For how long something has been the same, as far as looks now and then can tell.
struct Unchanged<T> {
    seen: T,
    since: Duration,
    is_over: bool,
}

impl<T: PartialEq> Unchanged<T> {
    fn new(seen: T) -> Self {
        Self { seen, since: Duration::ZERO, is_over: false }
    }

    /// Looks again. True when it has been the same for as long as the limit, and each [`OVERTIME`] from then on.
    fn has_lasted(&mut self, now: T, limit: Option<Duration>) -> bool {
        if now != self.seen {
            *self = Self::new(now);
            return false;
        }
        self.since += LOOK_INTERVAL;
        let is_due = limit.is_some_and(|limit| self.since >= if self.is_over { OVERTIME } else { limit });
        if is_due {
            (self.since, self.is_over) = (Duration::ZERO, true);
        }
        is_due
    }
}

/// Buffers that any session of the worker uses while it is polled, and none keeps.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) input: Input,
    pub(super) out: Out,
}

/// A buffer to read into, behind what was left of the last read.
#[derive(Default)]
pub(super) struct Input {
    buf: Vec<u8>,
    len: usize,
}

impl Input {
    /// Begins with the bytes that were left.
    pub(super) fn start(&mut self, tail: &[u8]) {
        let wanted = tail.len() + READ_BYTES;
        if self.buf.len() < wanted {
            self.buf.resize(wanted, 0);
        } else if self.buf.len() > 8 * READ_BYTES && wanted < 2 * READ_BYTES {
            self.buf.truncate(wanted);
            self.buf.shrink_to_fit();
        }
        if let Some(head) = self.buf.get_mut(..tail.len()) {
            head.copy_from_slice(tail);
        }
        self.len = tail.len();
    }

    /// Reads once.
    pub(super) fn read(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let space = self.buf.get_mut(self.len..).unwrap_or_default();
        let read = stream.poll_read(cx, space);
        if let Poll::Ready(Ok(read)) = &read {
            self.len += read;
        }
        read
    }

    /// What was left, and what was read.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }
}

/// What a session is doing while it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client has nothing for us.
    Idle,
    /// The client has nothing for us, and keeps its connection for a value that it may ask for.
    Lingering,
    /// The client has nothing for us, and is pinned.
    Pinned,
    /// The client has nothing for us, and a transaction open.
    InTransaction,
    /// It stands in line.
    Waiting,
    /// A server owes it something.
    Busy,
    /// A server owes it something, and it is no longer there to take it.
    Abandoned,
}

/// A reason to disturb a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kick {
    /// Its client was idle for too long.
    Idle,
    /// Its client was idle for too long while it was pinned.
    PinIdle,
    /// Its client was idle inside a transaction for too long.
    TransactionIdle,
    /// Its client has not asked for the value that it keeps its connection for.
    Linger,
    /// Its query runs for too long.
    QueryTooLong,
    /// Its transaction is open for too long.
    TransactionTooLong,
    /// Its client has left in the middle of a query, and the query goes on.
    Abandoned,
    /// Somebody with its key wants what it does cancelled.
    Cancel,
    /// Another client has asked for its end.
    Killed,
    /// The proxy goes down: end at the next transaction's end.
    Drain,
    /// The proxy goes down: end now.
    Cut,
}

/// Reasons that have not been looked at yet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kicks(u16);

impl Kicks {
    fn with(self, kick: Kick) -> Self {
        Self(self.0 | 1 << kick as u8)
    }

    pub(super) fn has(self, kick: Kick) -> bool {
        self.0 & (1 << kick as u8) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How the worker reaches a session.
pub(super) struct Handle {
    waker: RefCell<Option<Waker>>,
    kicks: Cell<Kicks>,
    /// Those who wait for a cancel.
    askers: RefCell<Vec<Asker>>,
    phase: Cell<Phase>,
    activity: Cell<u64>,
    /// Queries that were answered, and transactions that have ended.
    answered: Cell<u64>,
    ended: Cell<u64>,
    /// Since when its client is pinned.
    pinned: Cell<Option<Instant>>,
    /// The place of its target group in the configuration.
    group: Cell<usize>,
}

impl Handle {
    fn new() -> Self {
        Self {
            waker: RefCell::default(),
            kicks: Cell::default(),
            askers: RefCell::default(),
            phase: Cell::new(Phase::Busy),
            activity: Cell::default(),
            answered: Cell::default(),
            ended: Cell::default(),
            pinned: Cell::default(),
            group: Cell::default(),
        }
    }

    /// The session's task can be woken so. A task's waker stays the same, so this is a comparison.
    pub(super) fn wake_with(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    pub(super) fn take_kicks(&self) -> Kicks {
        self.kicks.take()
    }

    /// Those who wait for a cancel; they are let go when dropped.
    pub(super) fn take_askers(&self) -> Vec<Asker> {
        self.askers.take()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
    }

    pub(super) fn note_activity(&self) {
        self.activity.set(self.activity.get().wrapping_add(1));
    }

    /// Tells the query that is being answered from those before it.
    pub(super) fn query(&self) -> u64 {
        self.answered.get()
    }

    /// The same of the transaction.
    pub(super) fn transaction(&self) -> u64 {
        self.ended.get()
    }

    pub(super) fn note_answers(&self, queries: u64) {
        self.answered.set(self.answered.get().wrapping_add(queries));
    }

    pub(super) fn note_transaction_end(&self) {
        self.ended.set(self.ended.get().wrapping_add(1));
    }

    /// Since when its client is pinned.
    pub(super) fn note_pinned(&self, since: Option<Instant>) {
        self.pinned.set(since);
    }

    /// Its target group's place in the configuration.
    pub(super) fn note_group(&self, place: usize) {
        self.group.set(place);
    }

    fn ask_to_cancel(&self, asker: Asker, ends_session: bool) {
        let mut askers = self.askers.borrow_mut();
        // One more is let go at once; what is asked for is the same.
        if askers.len() < ASKERS_MAX {
            askers.push(asker);
        }
        drop(askers);
        self.kick(if ends_session { Kick::Killed } else { Kick::Cancel });
    }

    fn kick(&self, kick: Kick) {
        self.kicks.set(self.kicks.get().with(kick));
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl Worker {
    /// The worker of this number.
    pub fn new(number: usize, metrics: Arc<Metrics>) -> Rc<Self> {
        Rc::new(Self {
            number,
            metrics,
            scratch: RefCell::default(),
            sessions: RefCell::default(),
            draining: Cell::new(false),
            pins_told: PinsTold::default(),
        })
    }

    /// From 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// This thread's counters of an endpoint and of a target group, by their places in the configuration. A place
    /// that does not exist counts where nobody looks.
    pub(super) fn counters(&self, endpoint: usize, group: usize) -> (Arc<EndpointMetrics>, Arc<GroupMetrics>) {
        let slots = self.metrics.thread(self.number);
        let endpoint = slots.and_then(|slots| slots.endpoint(endpoint)).unwrap_or_default();
        (endpoint, slots.and_then(|slots| slots.group(group)).unwrap_or_default())
    }

    pub(super) fn scratch(&self) -> RefMut<'_, Scratch> {
        self.scratch.borrow_mut()
    }

    /// Sessions that are logged in here.
    pub fn sessions(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// Watches a new session until its end; `None` while the proxy goes down.
    pub(super) fn watch(self: &Rc<Self>, client_id: u64, rules: &super::Rules) -> Watch {
        let handle = Rc::new(Handle::new());
        if self.draining.get() {
            handle.kick(Kick::Drain);
        }
        let watched = Watched {
            handle: Rc::clone(&handle),
            rules: rules.clone(),
            idle: Unchanged::new((Phase::Busy, 0)),
            query: Unchanged::new(None),
            transaction: Unchanged::new(None),
        };
        self.sessions.borrow_mut().insert(client_id, watched);
        Watch { worker: Rc::clone(self), client_id, handle }
    }

    /// All sessions end at their next transaction's end, those to come as well.
    pub fn drain(&self) {
        self.draining.set(true);
        for watched in self.sessions.borrow().values() {
            watched.handle.kick(Kick::Drain);
        }
    }

    /// Sessions that are left end now, as far as they can be told.
    pub fn cut(&self) {
        for watched in self.sessions.borrow().values() {
            watched.handle.kick(Kick::Cut);
        }
    }

    /// The oldest pin of each target group, as far as it is this worker's.
    fn measure_pins(&self, now: Instant) {
        let groups = self.metrics.thread(self.number).map(ThreadMetrics::groups).unwrap_or_default();
        let mut oldest = vec![0; groups.len()];
        for watched in self.sessions.borrow().values() {
            let age = watched.handle.pinned.get().map(|since| now.saturating_duration_since(since));
            if let (Some(age), Some(oldest)) = (age, oldest.get_mut(watched.handle.group.get())) {
                *oldest = u64::try_from(age.as_micros()).unwrap_or(u64::MAX).max(*oldest);
            }
        }
        for (group, oldest) in groups.iter().zip(oldest) {
            group.oldest_pin_us.set(oldest);
        }
    }

    /// Looks after the sessions, and takes orders to cancel, for ever.
    pub async fn look_after(self: Rc<Self>, mut orders: Orders) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    for watched in self.sessions.borrow_mut().values_mut() {
                        watched.look();
                    }
                    self.measure_pins(Instant::now());
                }
                Some(Order { client_id, ends_session, asker }) = orders.next() => {
                    // A session that has just ended has nothing to cancel.
                    if let Some(watched) = self.sessions.borrow().get(&client_id) {
                        watched.handle.ask_to_cancel(asker, ends_session);
                    }
                }
            }
        }
    }
}

impl Watched {
    fn look(&mut self) {
        let Self { handle, rules, .. } = self;
        let phase = handle.phase.get();
        let (idle, limit) = match phase {
            Phase::Idle => (Some(Kick::Idle), rules.idle_client_timeout),
            Phase::Pinned => match (rules.pin_idle_timeout, rules.idle_client_timeout) {
                (Some(pinned), Some(idle)) if idle < pinned => (Some(Kick::Idle), Some(idle)),
                (Some(pinned), _) => (Some(Kick::PinIdle), Some(pinned)),
                (None, idle) => (Some(Kick::Idle), idle),
            },
            Phase::InTransaction => (Some(Kick::TransactionIdle), rules.transaction_idle_timeout),
            Phase::Lingering => (Some(Kick::Linger), Some(LINGERING)),
            Phase::Abandoned => (Some(Kick::Abandoned), Some(ABANDONED)),
            Phase::Waiting | Phase::Busy => (None, None),
        };
        if self.idle.has_lasted((phase, handle.activity.get()), limit)
            && let Some(kick) = idle
        {
            handle.kick(kick);
        }
        let is_busy = matches!(phase, Phase::Busy | Phase::Abandoned);
        let query = is_busy.then_some(handle.answered.get());
        if self.query.has_lasted(query, rules.query_timeout) && is_busy {
            handle.kick(Kick::QueryTooLong);
        }
        let is_in_transaction = is_busy || phase == Phase::InTransaction;
        let transaction = is_in_transaction.then_some(handle.ended.get());
        if self.transaction.has_lasted(transaction, rules.transaction_max) && is_in_transaction {
            handle.kick(Kick::TransactionTooLong);
        }
    }
}

/// Keeps a session in its worker's sight.
pub(super) struct Watch {
    pub(super) worker: Rc<Worker>,
    client_id: u64,
    pub(super) handle: Rc<Handle>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.worker.sessions.borrow_mut().remove(&self.client_id);
    }
}
