//! A password that may change while the proxy runs.
//!
//! It is read again where it came from when a database has refused it, or when `refresh` is over. However many have been
//! refused at once, it is read once; and where that gave nothing new, not again for a while. Who holds an older text keeps
//! it: nothing changes under a login that is under way.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::Secret;

/// After it was read, a refusal does not make it be read again for so long: a wrong password must not become a storm of
/// commands.
const PAUSE: Duration = Duration::from_secs(10);

/// The password, and when it was last read.
pub struct Rotating {
    current: ArcSwap<Secret>,
    read_at: Mutex<Instant>,
    /// Who reads it.
    turn: Semaphore,
}

impl Rotating {
    /// As it is now.
    pub fn new(secret: Secret) -> Self {
        let never = Instant::now().checked_sub(PAUSE).unwrap_or_else(Instant::now);
        Self { current: ArcSwap::from_pointee(secret), read_at: Mutex::new(never), turn: Semaphore::new(1) }
    }

    /// The password as it was last read.
    pub fn current(&self) -> Arc<Secret> {
        self.current.load_full()
    }

    /// Reading it again may give another, and is not under way nor was done a moment ago.
    pub fn may_be_read(&self) -> bool {
        self.current.load().can_change() && self.has_rested() && self.turn.available_permits() > 0
    }

    fn has_rested(&self) -> bool {
        self.read_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= PAUSE
    }

    /// This one was refused. True: there is another now.
    pub async fn renew(&self, refused: &str, whose: &str) -> bool {
        let Ok(_turn) = self.turn.acquire().await else { return false };
        if self.current().expose() != refused {
            return true;
        }
        self.has_rested() && self.read(whose).await
    }

    /// It is old. True: there is another now.
    pub async fn refresh(&self, whose: &str) -> bool {
        let Ok(_turn) = self.turn.acquire().await else { return false };
        self.read(whose).await
    }

    /// The password, read again if its `refresh` says so.
    pub async fn fresh(&self, whose: &str) -> Arc<Secret> {
        let refresh = self.current.load().refresh();
        let age = { self.read_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed() };
        if refresh.is_some_and(|refresh| age >= refresh) {
            self.refresh(whose).await;
        }
        self.current()
    }

    async fn read(&self, whose: &str) -> bool {
        let old = self.current();
        let secret = Arc::clone(&old);
        // Off this thread: a command may take its time.
        let Ok(Some(read)) = tokio::task::spawn_blocking(move || secret.read_again()).await else { return false };
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        match read {
            Ok(new) if new.expose() == old.expose() => false,
            Ok(new) => {
                self.current.store(Arc::new(new));
                tracing::info!(whose, "the password was read again, and is another one");
                true
            }
            Err(problem) => {
                tracing::warn!(whose, %problem, "the password can't be read again; the old one stays");
                false
            }
        }
    }
}

impl fmt::Debug for Rotating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rotating(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    /// A password that a command prints; each time it also leaves a mark.
    fn rotating(folder: &Path) -> Rotating {
        let script = format!("echo x >> {0}/runs; cat {0}/password", folder.display());
        let text = format!(
            "[[endpoint]]\nname='e'\nlisten='127.0.0.1:1'\ntarget_group='g'\ntls='off'\n\
             [[target_group]]\nname='g'\nengine='postgres'\ntargets=['db:1']\n\
             [target_group.health]\nuser='m'\npassword={{ value='m' }}\n\
             [[user]]\nname='u'\npassword={{ command=['sh', '-c', \"{script}\"] }}\n"
        );
        let config = Config::parse(&text, "proxy.toml", &|_| None).unwrap();
        Rotating::new(config.users[0].password.clone().unwrap())
    }

    fn runs(folder: &Path) -> usize {
        std::fs::read_to_string(folder.join("runs")).unwrap().lines().count()
    }

    #[tokio::test]
    async fn many_refusals_read_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join("password"), text).unwrap();
        write("old");
        let rotating = rotating(folder.path());
        assert_eq!((rotating.current().expose(), runs(folder.path())), ("old", 1));
        // Refused, and nothing new: read once, then left alone for a while.
        assert!(rotating.may_be_read());
        let renewed = tokio::join!(rotating.renew("old", "u"), rotating.renew("old", "u"), rotating.renew("old", "u"));
        assert_eq!((renewed, runs(folder.path())), ((false, false, false), 2));
        write("new");
        assert!(!rotating.may_be_read());
        assert!(!rotating.renew("old", "u").await);
        assert_eq!(runs(folder.path()), 2);
        // Its time is up: read whatever anybody says. Who was refused with the old one learns it at once.
        assert!(rotating.refresh("u").await);
        assert!(rotating.renew("old", "u").await);
        assert_eq!((rotating.current().expose(), runs(folder.path())), ("new", 3));
        // What can't be read changes nothing.
        write("");
        assert!(!rotating.refresh("u").await);
        assert_eq!(rotating.current().expose(), "new");
    }

    #[tokio::test]
    async fn a_refusal_reads_it_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "old").unwrap();
        let rotating = rotating(folder.path());
        std::fs::write(folder.path().join("password"), "new").unwrap();
        let renewed = tokio::join!(rotating.renew("old", "u"), rotating.renew("old", "u"));
        assert_eq!((renewed, runs(folder.path())), ((true, true), 2));
    }

    #[tokio::test]
    async fn one_that_stands_in_the_configuration_never_changes() {
        let rotating = Rotating::new(Secret::new("fixed".to_owned()));
        assert!(!rotating.may_be_read());
        assert!(!rotating.renew("fixed", "u").await && !rotating.refresh("u").await);
        assert_eq!(format!("{rotating:?}"), "Rotating(***)");
    }
}
