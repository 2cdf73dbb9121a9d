//! Users that stand in the database alone (`auth_query`): what they must prove, and what they have proven.
//!
//! Asked over control connections of its own, with an empty search path and the catalog's names in full, so that nothing
//! of a client's reaches the question but its name, as a parameter. Whoever may not log in at the database, or whose
//! password has expired, may not come in here; nor may superusers and those who may replicate, unless `deny` says
//! otherwise, whatever the configured query gives. Answers are kept for a while, "no such user" for a short one; many
//! clients of one name ask once.
//!
//! A client's proof shows the keys that its password is made of ([`ScramKeys`](crate::protocol::ScramKeys)): with these
//! the proxy logs in at the database for it. They are kept in memory, until the database refuses them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::control::{Control, ControlError};
use crate::config::AuthQueryConfig;
use crate::protocol::{LoginSecret, Proof, ScramSecret};

/// Who may log in, by the catalog itself: the configured query is the operator's, and may forget to look.
const MAY_LOG_IN: &str = "SELECT rolcanlogin AND coalesce(rolvaliduntil > pg_catalog.now(), true), rolsuper, \
                          rolreplication FROM pg_catalog.pg_roles WHERE rolname = $1";
/// PostgreSQL's names are no longer (NAMEDATALEN less one).
const NAME_BYTES_MAX: usize = 63;
/// How long "no such user" holds at most: somebody may be about to create it.
const ABSENT_TIME: Duration = Duration::from_secs(5);
/// A proof that failed makes an answer older than this be asked for again: the password may have changed. Younger
/// ones stay, so that guessing passwords is no storm of questions.
const FRESH_TIME: Duration = Duration::from_secs(1);
/// Answers that are kept; one more forgets those that are too old, and if need be all.
const ANSWERS_MAX: usize = 10_000;
/// Names that are asked for at the same time; one more is refused.
const ASKING_MAX: usize = 256;

/// The users of one target group.
pub struct Lookup {
    group: String,
    questions: mpsc::Sender<Question>,
    cache: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, (Instant, Option<Arc<FoundUser>>)>,
    /// By users who have logged in. As many as the database has users, at most.
    keys: HashMap<String, LoginSecret>,
}

/// What the database keeps of a user.
#[derive(Clone)]
pub struct FoundUser {
    /// What a client must prove.
    pub proof: Proof,
}

impl FoundUser {
    /// What is kept of an old password: worth as much as the password itself.
    pub fn md5(&self) -> Option<[u8; 32]> {
        match &self.proof {
            Proof::Md5(stored) => Some(*stored),
            Proof::Scram(_) | Proof::Password | Proof::Certificate(_) => None,
        }
    }
}

struct Question {
    user: String,
    reply: Reply,
}

type Answer = Option<Arc<FoundUser>>;
type Reply = oneshot::Sender<Option<Answer>>;

/// The database could not be asked. Why is in the log.
#[derive(Debug)]
pub struct LookupFailed;

impl Lookup {
    /// Begins to answer on this thread; call inside a `LocalSet`. An answer takes at most `timeout`.
    pub fn start(group: &str, config: AuthQueryConfig, control: Control, timeout: Duration) -> Arc<Self> {
        let (questions, asked) = mpsc::channel(ASKING_MAX);
        let cache = config.cache;
        let asker = Asker { group: group.to_owned(), config, control, timeout };
        tokio::task::spawn_local(asker.run(asked));
        Arc::new(Self { group: group.to_owned(), questions, cache, state: Mutex::default() })
    }

    /// The group whose users these are.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Looks a user up. `None`: there is none who may come in.
    ///
    /// Cancel safe. Takes at most the time given at the start.
    pub async fn find(&self, user: &str) -> Result<Option<Arc<FoundUser>>, LookupFailed> {
        if user.len() > NAME_BYTES_MAX {
            return Ok(None);
        }
        if let Some(answer) = self.known(user) {
            return Ok(answer);
        }
        let (reply, answer) = oneshot::channel();
        let question = Question { user: user.to_owned(), reply };
        if self.questions.try_send(question).is_err() {
            tracing::warn!(group = self.group, "too many users are looked up at the same time");
            return Err(LookupFailed);
        }
        let answer = answer.await.ok().flatten().ok_or(LookupFailed)?;
        self.remember(user, &answer);
        Ok(answer)
    }

    fn known(&self, user: &str) -> Option<Answer> {
        let state = self.state();
        let (at, answer) = state.answers.get(user)?;
        (at.elapsed() < self.holds(answer)).then(|| answer.clone())
    }

    fn holds(&self, answer: &Answer) -> Duration {
        if answer.is_some() { self.cache } else { self.cache.min(ABSENT_TIME) }
    }

    fn remember(&self, user: &str, answer: &Answer) {
        let mut state = self.state();
        if state.answers.len() >= ANSWERS_MAX {
            let holds = |at: &Instant, answer: &Answer| at.elapsed() < self.holds(answer);
            state.answers.retain(|_, (at, answer)| holds(at, answer));
            if state.answers.len() >= ANSWERS_MAX {
                state.answers.clear();
            }
        }
        state.answers.insert(user.to_owned(), (Instant::now(), answer.clone()));
    }

    /// A client did not prove what was found: the next one is not held to it, for it may be an old password's.
    pub fn proof_failed(&self, user: &str) {
        let mut state = self.state();
        if state.answers.get(user).is_some_and(|(at, _)| at.elapsed() >= FRESH_TIME) {
            state.answers.remove(user);
        }
    }

    /// A client has proven itself by this.
    pub fn proven(&self, user: &str, secret: LoginSecret) {
        self.state().keys.insert(user.to_owned(), secret);
    }

    /// What a client of this name has proven itself by, last.
    pub fn secret(&self, user: &str) -> Option<LoginSecret> {
        self.state().keys.get(user).cloned()
    }

    /// The database has refused this. True: a client has shown another one meanwhile.
    pub fn refused(&self, user: &str, refused: Option<&LoginSecret>) -> bool {
        let mut state = self.state();
        if state.keys.get(user) != refused {
            return state.keys.contains_key(user);
        }
        state.keys.remove(user);
        state.answers.remove(user);
        false
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the database, on the main thread.
struct Asker {
    group: String,
    config: AuthQueryConfig,
    control: Control,
    timeout: Duration,
}

impl Asker {
    async fn run(self, mut questions: mpsc::Receiver<Question>) {
        let asker = Rc::new(self);
        let waiting: Rc<RefCell<HashMap<String, Vec<Reply>>>> = Rc::default();
        while let Some(Question { user, reply }) = questions.recv().await {
            let mut names = waiting.borrow_mut();
            if let Some(replies) = names.get_mut(&user) {
                replies.push(reply);
                continue;
            }
            if names.len() >= ASKING_MAX {
                // Dropped: its client is told.
                continue;
            }
            names.insert(user.clone(), vec![reply]);
            drop(names);
            let (asker, waiting) = (Rc::clone(&asker), Rc::clone(&waiting));
            tokio::task::spawn_local(async move {
                let answer = asker.ask(&user).await;
                let replies = waiting.borrow_mut().remove(&user).unwrap_or_default();
                for reply in replies {
                    // Its client may have left.
                    let _ = reply.send(answer.clone());
                }
            });
        }
    }

    /// `None`: the database could not be asked.
    async fn ask(&self, user: &str) -> Option<Answer> {
        let asked = tokio::time::timeout(self.timeout, self.look_up(user)).await;
        match asked.unwrap_or(Err(ControlError::ConnectTimeout(self.timeout))) {
            Ok(Ok(found)) => Some(Some(Arc::new(found))),
            Ok(Err(reason)) => {
                tracing::info!(group = self.group, user, reason, "this user may not come in (auth_query)");
                Some(None)
            }
            Err(error) => {
                tracing::warn!(group = self.group, user, %error, "the user can't be looked up (auth_query)");
                None
            }
        }
    }

    /// The user, or why there is none who may come in.
    async fn look_up(&self, user: &str) -> Result<Result<FoundUser, &'static str>, ControlError> {
        let connection = self.control.borrow().await?;
        let role = connection.ask_about(MAY_LOG_IN, user).await?;
        let kept = match role {
            Some(_) => connection.ask_about(&self.config.query, user).await?,
            None => None,
        };
        connection.answered();
        let Some(role) = role else { return Ok(Err("there is no such role")) };
        if role.try_get::<_, Option<bool>>(0)? != Some(true) {
            return Ok(Err("the role may not log in, or its password has expired"));
        }
        if self.config.deny_superuser && role.try_get::<_, bool>(1)? {
            return Ok(Err("the role is a superuser (`deny`)"));
        }
        if self.config.deny_replication && role.try_get::<_, bool>(2)? {
            return Ok(Err("the role may replicate (`deny`)"));
        }
        let Some(kept) = kept else { return Ok(Err("the query gives no row")) };
        // By place: what the columns are called is the operator's business.
        if kept.try_get::<_, Option<&str>>(0)? != Some(user) {
            return Ok(Err("the query gives the row of another user"));
        }
        let Some(verifier) = kept.try_get::<_, Option<&str>>(1)? else { return Ok(Err("the role has no password")) };
        let scram = ScramSecret::parse(verifier).map(Proof::Scram);
        let proof = scram.or_else(|| md5(verifier).map(Proof::Md5));
        Ok(proof.map(|proof| FoundUser { proof }).ok_or("what the query gives is neither a SCRAM nor an MD5 verifier"))
    }
}

/// The digits of `md5...`, as `pg_authid.rolpassword` holds them.
fn md5(verifier: &str) -> Option<[u8; 32]> {
    let digits: [u8; 32] = verifier.strip_prefix("md5")?.as_bytes().try_into().ok()?;
    digits.iter().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit)).then_some(digits)
}
