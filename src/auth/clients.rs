//! How many clients are logged in as each user, over all endpoints.
//!
//! Every client counts, whether its user has a limit or not: a reload may bring one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counts; there is an entry for each user that somebody is logged in as.
#[derive(Debug, Default)]
pub struct Clients(Mutex<HashMap<String, usize>>);

/// A client that is logged in. It counts until this is dropped.
#[derive(Debug)]
pub struct LoggedIn {
    clients: Arc<Clients>,
    user: String,
}

impl Clients {
    /// One more client of this user's; `None`: there are as many as `limit` says.
    pub fn admit(self: &Arc<Self>, user: &str, limit: Option<usize>) -> Option<LoggedIn> {
        let mut counts = self.lock();
        let count = counts.get(user).copied().unwrap_or(0);
        if limit.is_some_and(|limit| count >= limit) {
            return None;
        }
        counts.insert(user.to_owned(), count + 1);
        Some(LoggedIn { clients: Arc::clone(self), user: user.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LoggedIn {
    fn drop(&mut self) {
        let mut counts = self.clients.lock();
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_count_of_its_own() {
        let clients = Arc::new(Clients::default());
        let one = clients.admit("a", Some(2)).unwrap();
        let two = clients.admit("a", None).unwrap();
        assert!(clients.admit("a", Some(2)).is_none());
        let other = clients.admit("b", Some(1)).unwrap();
        // A limit that was lowered lets nobody in until there are fewer.
        drop(one);
        assert!(clients.admit("a", Some(1)).is_none());
        assert!(clients.admit("a", Some(2)).is_some());
        drop((two, other));
        assert!(clients.lock().is_empty());
    }
}
