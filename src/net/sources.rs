//! What one address may do before it has shown who it is: hold places, and try passwords. Over a unix socket, which has no
//! addresses, it is the system's user who may try so much; places are nothing that the machine's own users are held to.
//!
//! No address takes all of an endpoint's places with logins that are not done, and none that has had a hundred tries
//! come to nothing gets more than ten a second. A try is taken before a proof is judged, a cancel key looked up or the
//! database asked about a user, and given back when that was right: however many come at the same time, no more are
//! judged. A TLS handshake that fails costs one as well. Nothing is owed beyond that: a tenth of a second after the last one the next is heard, for behind one address
//! there may be many. Who goes on failing ten times a second does shut out the others there: nobody can tell them apart.
//! Of IPv6 the first 64 bits count, which is what one customer gets.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Tries that an address may have in hand.
const TRIES: f64 = 100.0;
/// How fast they come back.
const TRIES_PER_SECOND: f64 = 10.0;
/// Addresses that are remembered for their tries; one more forgets the others, but not the places they hold.
const SOURCES_MAX: usize = 100_000;

/// The addresses that come to one endpoint.
#[derive(Debug)]
pub struct Sources {
    logins_max: usize,
    known: Mutex<HashMap<Source, Account>>,
}

/// Where a client comes from, as far as that tells it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Of IPv6 the network.
    Address(IpAddr),
    /// The user, by number, who has opened the unix socket.
    User(u32),
}

impl Source {
    /// The source of who comes from this address.
    pub fn of(address: IpAddr) -> Self {
        Self::Address(network(address))
    }
}

/// What is known of one.
#[derive(Debug)]
struct Account {
    /// Logins that are not done.
    logins: usize,
    /// Those, and the ones that have no place.
    accounts: usize,
    /// Tries that it has left; never below none.
    tries: f64,
    at: Instant,
}

/// Why an address gets no place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooMuch {
    /// It has so many logins that are not done.
    Logins(usize),
    /// Too many of its tries came to nothing.
    Tries,
}

/// A login that is not done. Dropped when it is, however it has ended.
#[derive(Debug)]
pub struct PendingLogin {
    sources: Arc<Sources>,
    key: Source,
    has_place: bool,
}

impl Sources {
    /// For an endpoint with so many places: an address may fill three quarters of them with logins that are not done.
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { logins_max: (places - places / 4).max(1), known: Mutex::default() })
    }

    /// A login from there begins.
    pub fn admit(self: &Arc<Self>, key: Source, now: Instant) -> Result<PendingLogin, TooMuch> {
        self.open(key, now, true)
    }

    /// There is no place for a login from there: whatever else it asks for goes on its account.
    pub fn admit_without_place(self: &Arc<Self>, key: Source, now: Instant) -> Result<PendingLogin, TooMuch> {
        self.open(key, now, false)
    }

    fn open(self: &Arc<Self>, key: Source, now: Instant, has_place: bool) -> Result<PendingLogin, TooMuch> {
        let mut known = self.known();
        let source = known.entry(key).or_insert(Account { logins: 0, accounts: 0, tries: TRIES, at: now });
        source.recover(now);
        if source.tries < 1.0 {
            return Err(TooMuch::Tries);
        }
        if has_place && source.logins >= self.logins_max && matches!(key, Source::Address(_)) {
            return Err(TooMuch::Logins(self.logins_max));
        }
        source.logins += usize::from(has_place);
        source.accounts += 1;
        drop(known);
        Ok(PendingLogin { sources: Arc::clone(self), key, has_place })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Source, Account>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn recover(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * TRIES_PER_SECOND;
        self.tries = (self.tries + gained).min(TRIES);
        self.at = now;
    }
}

impl PendingLogin {
    /// Where it comes from.
    pub fn source(&self) -> (Arc<Sources>, Source) {
        (Arc::clone(&self.sources), self.key)
    }

    /// Takes a try. False: there is none; what it was for must not be done.
    #[must_use]
    pub fn take(&self, now: Instant) -> bool {
        let mut known = self.sources.known();
        let Some(source) = known.get_mut(&self.key) else { return true };
        source.recover(now);
        let has_one = source.tries >= 1.0;
        if has_one {
            source.tries -= 1.0;
        }
        has_one
    }

    /// What a try was taken for was right.
    pub fn give_back(&self) {
        if let Some(source) = self.sources.known().get_mut(&self.key) {
            source.tries = (source.tries + 1.0).min(TRIES);
        }
    }
}

impl Drop for PendingLogin {
    fn drop(&mut self) {
        let mut known = self.sources.known();
        let Some(source) = known.get_mut(&self.key) else { return };
        source.logins -= usize::from(self.has_place);
        source.accounts -= 1;
        // Nothing to remember: most addresses never do anything wrong.
        if source.accounts == 0 && source.tries >= TRIES {
            known.remove(&self.key);
        } else if known.len() > SOURCES_MAX {
            known.retain(|_, source| source.accounts > 0);
        }
    }
}

/// What of an address counts.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn address(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn a_user_of_the_machine_has_as_many_tries_and_all_places() {
        let (sources, now) = (Sources::new(8), Instant::now());
        let logins: Vec<_> = (0..200).map(|_| sources.admit(Source::User(1000), now).unwrap()).collect();
        assert_eq!(logins.iter().filter(|login| login.take(now)).count(), 100);
        assert_eq!(sources.admit(Source::User(1000), now).unwrap_err(), TooMuch::Tries);
        assert!(sources.admit(Source::User(0), now).is_ok());
    }

    #[test]
    fn nobody_takes_all_places_with_logins_that_are_not_done() {
        let (sources, now) = (Sources::new(8), Instant::now());
        let mut held: Vec<_> = (0..6).map(|_| sources.admit(address("10.0.0.1"), now).unwrap()).collect();
        assert_eq!(sources.admit(address("10.0.0.1"), now).unwrap_err(), TooMuch::Logins(6));
        assert_eq!(sources.admit(address("::ffff:10.0.0.1"), now).unwrap_err(), TooMuch::Logins(6));
        assert!(sources.admit(address("10.0.0.2"), now).is_ok());
        // Who gets no place takes none.
        let refused = sources.admit_without_place(address("10.0.0.1"), now).unwrap();
        held.pop();
        held.push(sources.admit(address("10.0.0.1"), now).unwrap());
        assert_eq!(sources.admit(address("10.0.0.1"), now).unwrap_err(), TooMuch::Logins(6));
        drop(held);
        assert!(refused.take(now));
        refused.give_back();
        drop(refused);
        assert!(sources.known().is_empty(), "nothing is remembered of who has done nothing wrong");
        // The smallest endpoint can be used, too.
        assert!(Sources::new(1).admit(address("10.0.0.1"), now).is_ok());
    }

    #[test]
    fn so_many_at_once_are_no_more_tries_and_owe_nothing() {
        let (sources, start) = (Sources::new(10_000), Instant::now());
        let logins: Vec<_> = (0..7500).map(|_| sources.admit(address("10.0.0.1"), start).unwrap()).collect();
        assert_eq!(logins.iter().filter(|login| login.take(start)).count(), 100);
        drop(logins);
        // A tenth of a second later the next one is heard.
        let now = start + Duration::from_millis(101);
        let login = sources.admit(address("10.0.0.1"), now).unwrap();
        assert!(login.take(now) && !login.take(now));
        assert_eq!(sources.admit(address("10.0.0.1"), now).unwrap_err(), TooMuch::Tries);
        assert_eq!(sources.admit_without_place(address("10.0.0.1"), now).unwrap_err(), TooMuch::Tries);
        // Right ones cost nothing, and give no more than there was.
        login.give_back();
        for _ in 0..1000 {
            assert!(login.take(now));
            login.give_back();
        }
        let later = start + Duration::from_secs(60);
        assert!(login.take(later));
        login.give_back();
        login.give_back();
        assert_eq!((0..200).filter(|_| login.take(later)).count(), 100);
    }

    #[test]
    fn refused_proofs_are_so_many_a_second() {
        let (sources, start) = (Sources::new(1000), Instant::now());
        let tries = |milliseconds: u64, address: &str| {
            let now = start + Duration::from_millis(milliseconds);
            let login = |_: &i32| match sources.admit(self::address(address), now) {
                Ok(login) => {
                    assert!(login.take(now));
                    true
                }
                Err(too_much) => {
                    assert_eq!(too_much, TooMuch::Tries);
                    false
                }
            };
            (0..200).take_while(login).count()
        };
        assert_eq!(tries(0, "2001:db8::1"), 100);
        // A neighbour in the same network, and one in another.
        assert_eq!(tries(0, "2001:db8::2"), 0);
        assert_eq!(tries(0, "2001:db8:0:1::1"), 100);
        assert_eq!(tries(99, "2001:db8::1"), 0);
        assert_eq!(tries(1099, "2001:db8::1"), 10);
        assert_eq!(tries(60_000, "2001:db8::1"), 100);
    }
}
