//! What the sessions of one worker share: a buffer to read into, counters, and a clock that looks after them.
//!
//! Everything here belongs to one thread. A session sets no timer of its own: the worker looks at all of them a few
//! times a second and wakes those whose time is up.

use crate::metrics::{EndpointMetrics, GroupMetrics, Metrics};
use crate::net::Stream;
use crate::protocol::Out;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// Between two looks at the sessions; timeouts are this much late at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// One worker thread's share of things.
pub struct Worker {
    number: usize,
    metrics: Arc<Metrics>,
    scratch: RefCell<Scratch>,
    sessions: RefCell<BTreeMap<u64, Watched>>,
    draining: Cell<bool>,
}

struct Watched {
    handle: Rc<Handle>,
    idle_timeout: Option<Duration>,
    transaction_idle_timeout: Option<Duration>,
    /// Phase and activity when last looked at, and for how long they have been the same.
    seen: (Phase, u64),
    unchanged: Duration,
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
    /// The client has nothing for us, and a transaction open.
    InTransaction,
    /// It stands in line.
    Waiting,
    /// A server owes it something.
    Busy,
}

/// A reason to disturb a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kick {
    /// Its client was idle for too long.
    Idle,
    /// Its client was idle inside a transaction for too long.
    TransactionIdle,
    /// The proxy goes down: end at the next transaction's end.
    Drain,
}

/// How the worker reaches a session.
pub(super) struct Handle {
    waker: RefCell<Option<Waker>>,
    kick: Cell<Option<Kick>>,
    phase: Cell<Phase>,
    activity: Cell<u64>,
}

impl Handle {
    fn new() -> Self {
        Self { waker: RefCell::new(None), kick: Cell::new(None), phase: Cell::new(Phase::Busy), activity: Cell::new(0) }
    }

    /// The session's task can be woken so. A task's waker stays the same, so this is a comparison.
    pub(super) fn wake_with(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    pub(super) fn take_kick(&self) -> Option<Kick> {
        self.kick.take()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
    }

    pub(super) fn note_activity(&self) {
        self.activity.set(self.activity.get().wrapping_add(1));
    }

    fn kick(&self, kick: Kick) {
        self.kick.set(Some(kick));
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
            idle_timeout: rules.idle_client_timeout,
            transaction_idle_timeout: rules.transaction_idle_timeout,
            seen: (Phase::Busy, 0),
            unchanged: Duration::ZERO,
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

    /// Looks after the sessions, for ever.
    pub async fn look_after(self: Rc<Self>) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            for watched in self.sessions.borrow_mut().values_mut() {
                watched.look();
            }
        }
    }
}

impl Watched {
    fn look(&mut self) {
        let now = (self.handle.phase.get(), self.handle.activity.get());
        if now != self.seen {
            self.seen = now;
            self.unchanged = Duration::ZERO;
            return;
        }
        self.unchanged += LOOK_INTERVAL;
        let is_over = |limit: Option<Duration>| limit.is_some_and(|limit| self.unchanged >= limit);
        match now.0 {
            Phase::Idle if is_over(self.idle_timeout) => self.handle.kick(Kick::Idle),
            Phase::InTransaction if is_over(self.transaction_idle_timeout) => self.handle.kick(Kick::TransactionIdle),
            Phase::Idle | Phase::InTransaction | Phase::Waiting | Phase::Busy => {}
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
