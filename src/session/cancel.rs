//! Cancel keys: what a client is given at its login, and what becomes of it when somebody shows it.
//!
//! A request to cancel comes over a connection of its own, to whichever worker. The key says which session it is for and
//! where that lives; the session itself, on its own worker, knows what there is to cancel. So nothing is shared on
//! the way of a query. Whoever asked is held until the database has acted: as on a direct connection, a cancel that
//! has returned hits nothing that is sent afterwards.

use super::relay::clean;
use super::{Cancelling, FAREWELL, Holding, Session};
use crate::config::PoolMode;
use crate::pool::{Cancelled, Lease, Pools, ServerConn};
use crate::protocol::{CancelKey, ClientError, ClientSide, Kill, Killed, Protocol, ServerSide, Status};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};

/// Bits of a virtual process id, since drivers take it for a signed number.
const ID_BITS: u32 = 31;
/// Those that number the session.
const NUMBER_BITS: u32 = 21;
/// Bytes of a secret, as many as PostgreSQL's own on protocol 3.2.
const SECRET_BYTES: usize = 32;
/// Orders that may wait for one worker; one more is dropped, as if it had come too late.
const ORDERS_MAX: usize = 1024;

/// A session should cancel what it does. Dropping `asker` lets the one who asked go.
pub(super) struct Order {
    pub(super) client_id: u64,
    /// And end.
    pub(super) ends_session: bool,
    pub(super) asker: Asker,
}

/// Somebody who waits for a cancel to be acted upon.
pub(super) type Asker = oneshot::Sender<()>;

/// The keys of all clients of this process.
pub struct CancelKeys {
    /// Tells this process from others behind the same balancer: the upper bits of its virtual process ids.
    instance: u32,
    known: Mutex<HashMap<u32, Known>>,
    workers: Vec<mpsc::Sender<Order>>,
}

struct Known {
    /// As much as the client was told; empty until then, and nothing matches it.
    secret: Box<[u8]>,
    /// `None` until then.
    owner: Option<Owner>,
    client_id: u64,
    worker: usize,
}

/// Whose clients may stop one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) protocol: &'static str,
    /// As at the login.
    pub(super) user: Box<str>,
}

/// The orders that come for one worker.
pub struct Orders(mpsc::Receiver<Order>);

impl Orders {
    pub(super) async fn next(&mut self) -> Option<Order> {
        self.0.recv().await
    }
}

/// A key that was issued; it is forgotten when this is dropped.
pub(super) struct IssuedKey {
    keys: Arc<CancelKeys>,
    process_id: u32,
}

impl CancelKeys {
    /// For so many workers; each gets the orders for its sessions. `instance`: 0 to 1023.
    pub fn new(instance: u32, workers: usize) -> (Arc<Self>, Vec<Orders>) {
        let (workers, orders) = (0..workers)
            .map(|_| {
                let (sender, receiver) = mpsc::channel(ORDERS_MAX);
                (sender, Orders(receiver))
            })
            .unzip();
        (Arc::new(Self { instance, known: Mutex::default(), workers }), orders)
    }

    /// A new key for a client of this worker. It cancels nothing before [`IssuedKey::told`]. `None`: there are as many
    /// clients as there are numbers. `lot`: drawn by lot, it is what the process id begins from, and shall be nobody's behind another
    /// proxy either, where it would be taken for that one's own client: no secret tells them apart. Of 10,000 clients there, that one of
    /// them has just this number is as likely as 1 in 200,000.
    pub(super) fn issue(
        self: &Arc<Self>,
        client_id: u64,
        worker: usize,
        lot: Option<u32>,
    ) -> Option<(IssuedKey, CancelKey)> {
        let secret: [u8; SECRET_BYTES] = rand::random();
        let mut known = self.lock();
        if known.len() >= (1 << NUMBER_BITS) / 2 {
            return None;
        }
        // The client's own number, where it is free, so that logs and process ids agree.
        let own = || u32::try_from(client_id % (1 << NUMBER_BITS)).unwrap_or_default();
        let (instance, bits) = if lot.is_some() { (0, ID_BITS) } else { (self.instance << NUMBER_BITS, NUMBER_BITS) };
        let mut number = lot.unwrap_or_else(own);
        let process_id = loop {
            let process_id = instance | (number % (1 << bits));
            if process_id != 0 && !known.contains_key(&process_id) {
                break process_id;
            }
            number = number.wrapping_add(1);
        };
        known.insert(process_id, Known { secret: Box::default(), owner: None, client_id, worker });
        drop(known);
        let key = CancelKey { process_id, secret: secret.into() };
        Some((IssuedKey { keys: Arc::clone(self), process_id }, key))
    }

    /// Whether somebody was given this key.
    pub(super) fn knows(&self, shown: &CancelKey) -> bool {
        self.find(shown).is_some()
    }

    /// Cancels what the session of this key does. Returns once that has been acted upon, or if there is no such key.
    ///
    /// Cancel safe: who goes away does not take the cancel back.
    pub(super) async fn cancel(&self, shown: &CancelKey) {
        if let Some(place) = self.find(shown) {
            self.order(place, false).await;
        }
    }

    /// Stops another client for the one of this number. As [`cancel`](Self::cancel).
    async fn kill(&self, kill: Kill, own: u32) -> Killed {
        match self.find_owned(kill.process_id, own) {
            Ok(place) => self.order(place, kill.ends_session).await,
            Err(why) => return why,
        }
        Killed::Done
    }

    /// To a client on a worker.
    async fn order(&self, (client_id, worker): (u64, usize), ends_session: bool) {
        let (asker, acted) = oneshot::channel();
        if let Some(worker) = self.workers.get(worker) {
            // A worker with so many orders before it, or one that is gone, comes too late for this one.
            let _ = worker.try_send(Order { client_id, ends_session, asker });
        }
        // Dropped, whatever came of it.
        let _ = acted.await;
    }

    fn find_owned(&self, process_id: u32, own: u32) -> Result<(u64, usize), Killed> {
        let known = self.lock();
        let (Some(Known { owner: Some(owner), client_id, worker, .. }), Some(Known { owner: Some(asking), .. })) =
            (known.get(&process_id), known.get(&own))
        else {
            return Err(Killed::NoSuchClient);
        };
        match (owner.protocol == asking.protocol, owner.user == asking.user) {
            (true, true) => Ok((*client_id, *worker)),
            (true, false) => Err(Killed::NotOwned),
            (false, _) => Err(Killed::NoSuchClient),
        }
    }

    fn find(&self, shown: &CancelKey) -> Option<(u64, usize)> {
        let known = self.lock();
        let known = known.get(&shown.process_id)?;
        let holds = !known.secret.is_empty()
            && aws_lc_rs::constant_time::verify_slices_are_equal(&known.secret, &shown.secret).is_ok();
        holds.then_some((known.client_id, known.worker))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IssuedKey {
    /// As much of it as the client was told.
    pub(super) fn key(&self) -> CancelKey {
        let secret = self.keys.lock().get(&self.process_id).map(|known| known.secret.clone());
        CancelKey { process_id: self.process_id, secret: secret.unwrap_or_default() }
    }

    /// The client was told so much of the secret: that is what it must show.
    pub(super) fn told(&self, secret: &[u8], owner: Owner) {
        if let Some(known) = self.keys.lock().get_mut(&self.process_id) {
            known.secret = secret.into();
            known.owner = Some(owner);
        }
    }

    /// Stops another client for this one.
    ///
    /// Cancel safe: who goes away does not take it back.
    pub(super) fn kill(&self, kill: Kill) -> impl Future<Output = Killed> + use<> {
        let (keys, own) = (Arc::clone(&self.keys), self.process_id);
        async move { keys.kill(kill, own).await }
    }
}

impl Drop for IssuedKey {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.process_id);
    }
}

impl<P: Protocol> Session<P> {
    /// Stops what the client waits for. Where there is nothing, nothing happens, as on a direct connection.
    pub(super) fn cancel(&mut self, mut askers: Vec<Asker>) {
        tracing::debug!("asked to cancel");
        match &mut self.holding {
            Holding::Nothing => {}
            Holding::Waiting(_) => {
                // Its place in the line goes with it.
                self.holding = Holding::Nothing;
                self.refuse(&ClientError::Cancelled);
            }
            Holding::Lease(_) if self.cancelling.is_some() => {
                if let Some(cancelling) = &mut self.cancelling {
                    cancelling.askers.append(&mut askers);
                }
            }
            // It has all its answers.
            Holding::Lease(_) if self.resetting => {}
            Holding::Lease(lease) => {
                let machine = &lease.connection.machine;
                if machine.status() != Status::Owing {
                    return;
                }
                if machine.has_sent_nothing() {
                    // The proxy's own words are under way, which a cancel must not hit. Without a request behind them there is
                    // nothing to cancel.
                    if !self.tail.is_empty() {
                        self.cancel_due.append(&mut askers);
                    }
                } else {
                    self.send_cancel(askers);
                }
            }
        }
    }

    /// The proxy's own words have been answered, and the client has asked meanwhile to cancel what stands behind them: that
    /// is refused. Sent first and cancelled then, it could be met by the cancel before the database has begun with it, and
    /// run on. False: there is nothing to refuse.
    pub(super) fn refuse_cancelled(&mut self) -> bool {
        let Holding::Lease(lease) = &self.holding else { return false };
        let ServerConn { machine, pending, .. } = &*lease.connection;
        let is_at_rest = machine.status() == Status::Idle && pending.is_empty();
        let keeps = self.rules.pool_mode == PoolMode::Session || !self.client.pins().is_empty();
        if self.cancel_due.is_empty() || !is_at_rest || keeps {
            return false;
        }
        let must_reset = self.pools.resets_always() || self.client.leaves().need_reset();
        if let Holding::Lease(lease) = std::mem::replace(&mut self.holding, Holding::Nothing) {
            // Its client is answered at once, and does not wait for a reset.
            if must_reset { lease.discard() } else { lease.release() }
        }
        self.client.let_go();
        self.refuse(&ClientError::Cancelled);
        true
    }

    fn send_cancel(&mut self, askers: Vec<Asker>) {
        let Holding::Lease(lease) = &self.holding else { return };
        let Some(canceller) = lease.connection.machine.cancel(self.pools.dial().way().has_tls()) else { return };
        let (ended, outcome) = oneshot::channel();
        let pools = Arc::clone(&self.pools);
        tokio::task::spawn_local(async move {
            // A session that has ended closes its connection, so that nobody need know.
            let _ = ended.send(pools.dial().cancel(canceller).await);
        });
        self.cancelling = Some(Cancelling { outcome, askers });
    }

    /// The client may have asked for another one to be stopped.
    pub(super) fn begin_errand(&mut self) {
        if let Some(kill) = self.client.kill() {
            self.errand = Some(Box::pin(self.cancel_key.kill(kill)));
        }
    }

    /// That may have been done; true if it has.
    pub(super) fn look_at_errand(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(errand) = &mut self.errand else { return false };
        let Poll::Ready(killed) = errand.as_mut().poll(cx) else { return false };
        self.errand = None;
        self.client.killed(killed);
        self.look_again = true;
        true
    }

    /// Takes note of a cancel that was acted upon; true if there was one.
    pub(super) fn look_at_cancel(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(cancelling) = &mut self.cancelling else { return false };
        let Poll::Ready(outcome) = Pin::new(&mut cancelling.outcome).poll(cx) else { return false };
        self.cancelling = None;
        if outcome.unwrap_or(Cancelled::Unsure) == Cancelled::Unsure
            && let Holding::Lease(lease) = &mut self.holding
        {
            lease.spoil();
        }
        true
    }
}

/// What a client that goes may have left on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// What a reset undoes.
    Resettable,
    /// What nothing undoes.
    Lasting,
}

/// Makes the connection of a client that has gone clean and gives it back, or closes it. What the client left
/// running is cancelled first: until it has stopped, the place in the budget is taken. `left`: what may be left of it.
pub(super) async fn give_back<P: Protocol>(
    mut lease: Lease<P>,
    cancelling: Option<Cancelling>,
    left: Left,
    pools: &Pools<P>,
) {
    let machine = &lease.connection.machine;
    let owes_own = machine.status() == Status::Owing && machine.has_sent_nothing();
    let is_running = machine.status() == Status::Owing && !owes_own;
    let canceller = machine.cancel(pools.dial().way().has_tls()).filter(|_| is_running);
    let cancelled = match (cancelling, canceller) {
        (Some(cancelling), _) => cancelling.outcome.await.unwrap_or(Cancelled::Unsure),
        (None, Some(canceller)) => pools.dial().cancel(canceller).await,
        (None, None) => Cancelled::NotSent,
    };
    if cancelled == Cancelled::Unsure {
        return lease.discard();
    }
    let connection = &mut lease.connection;
    if owes_own || is_running && !connection.machine.needs_client() {
        // What is left of its replies is for nobody.
        let settled = tokio::time::timeout(FAREWELL, connection.settle()).await;
        if !matches!(settled, Ok(Ok(()))) {
            return lease.discard();
        }
    }
    let is_idle = connection.machine.status() == Status::Idle && connection.pending.is_empty();
    // Settings that could not all be put on it: what it has is not known.
    let has_failed = lease.attach_failure().is_some();
    if !is_idle || has_failed || left == Left::Lasting {
        lease.discard();
    } else if left == Left::Resettable || is_running {
        // The effects of what ran to its end unseen are not known.
        clean(lease).await;
    } else {
        lease.release();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown(process_id: u32, secret: &[u8]) -> CancelKey {
        CancelKey { process_id, secret: secret.into() }
    }

    #[test]
    fn a_key_is_good_for_as_much_as_was_told_and_as_long_as_its_client_is_here() {
        let (keys, _orders) = CancelKeys::new(0, 2);
        let (issued, key) = keys.issue(7, 1, None).unwrap();
        assert_eq!((key.process_id, key.secret.len()), (7, SECRET_BYTES));
        // Not told yet: nothing matches, not even nothing.
        assert_eq!(keys.find(&key), None);
        assert_eq!(keys.find(&shown(7, b"")), None);
        issued.told(&key.secret, owner("app"));
        assert_eq!(keys.find(&key), Some((7, 1)));
        // Protocol 3.2 has the whole secret; its first bytes are not enough.
        assert_eq!(keys.find(&shown(7, &key.secret[..4])), None);
        assert_eq!(keys.find(&shown(8, &key.secret)), None);
        issued.told(&key.secret[..4], owner("app"));
        assert_eq!(keys.find(&key), None);
        assert_eq!(keys.find(&shown(7, &key.secret[..4])), Some((7, 1)));
        drop(issued);
        assert_eq!(keys.find(&shown(7, &key.secret[..4])), None);
        assert!(keys.lock().is_empty());
    }

    fn owner(user: &str) -> Owner {
        Owner { protocol: "mysql", user: user.into() }
    }

    #[test]
    fn who_may_stop_whom() {
        let (keys, _orders) = CancelKeys::new(0, 2);
        let clients = [1, 2, 3, 4].map(|id| keys.issue(id, 1, None).unwrap());
        assert_eq!(keys.find_owned(2, 1), Err(Killed::NoSuchClient));
        clients[0].0.told(b"", owner("app"));
        assert_eq!(keys.find_owned(2, 1), Err(Killed::NoSuchClient));
        clients[1].0.told(b"", owner("app"));
        clients[2].0.told(b"", owner("other"));
        clients[3].0.told(b"secret", Owner { protocol: "postgres", ..owner("app") });
        assert_eq!(keys.find_owned(2, 1), Ok((2, 1)));
        assert_eq!(keys.find_owned(3, 1), Err(Killed::NotOwned));
        assert_eq!(keys.find_owned(4, 1), Err(Killed::NoSuchClient));
        assert_eq!(keys.find_owned(9, 1), Err(Killed::NoSuchClient));
        // There is no secret by which one could be cancelled.
        assert_eq!(keys.find(&shown(1, b"")), None);
    }

    #[test]
    fn process_ids_are_positive_never_taken_twice_and_carry_the_instance() {
        let (keys, _orders) = CancelKeys::new(1023, 1);
        let top = u64::from((1_u32 << NUMBER_BITS) - 1);
        let issued: Vec<_> = [1, 1, top, top, 2].iter().map(|id| keys.issue(*id, 0, None).unwrap()).collect();
        let ids: Vec<u32> = issued.iter().map(|(_, key)| key.process_id).collect();
        let base = 1023 << NUMBER_BITS;
        assert_eq!(ids, [base | 1, base | 2, base | u32::try_from(top).unwrap(), base, base | 3]);
        assert!(ids.iter().all(|id| i32::try_from(*id).is_ok()));
        // By lot.
        let (keys, _orders) = CancelKeys::new(0, 1);
        let top = (1 << ID_BITS) - 1;
        let issued: Vec<_> =
            [77, top, u32::MAX, 77, 1 << ID_BITS].iter().map(|lot| keys.issue(1, 0, Some(*lot)).unwrap()).collect();
        let ids: Vec<u32> = issued.iter().map(|(_, key)| key.process_id).collect();
        assert_eq!(ids, [77, top, 1, 78, 2]);
        // Process id 0 means none.
        let (keys, _orders) = CancelKeys::new(0, 1);
        assert_eq!(keys.issue(u64::from(1_u32 << NUMBER_BITS), 0, None).unwrap().1.process_id, 1);
    }
}
