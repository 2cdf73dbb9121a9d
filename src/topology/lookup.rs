//! Users that stand in the database alone (`auth_query`): what they must prove, and what they have proven.
//!
//! Asked over control connections of its own, with an empty search path and the catalog's names in full, so that nothing
//! of a client's reaches the question but its name, as a parameter. Whoever may not log in at the database, or whose
//! password has expired, may not come in here; nor may superusers and those who may replicate, unless `deny` says
//! otherwise, whatever the configured query gives. Answers are kept for a while; many clients of one name ask once.
//!
//! Nobody learns who exists: both questions are asked about everybody, "no such user" is kept for as long as any other
//! answer and asked for again on the same occasions, and [`forms`](Lookup::forms) tells how those who do exist are asked.
//! Names that nobody has push no others out: they are kept apart.
//!
//! A client's proof shows the keys that its password is made of ([`ScramKeys`](crate::protocol::ScramKeys)): with these
//! the proxy logs in at the database for it. They are kept in memory, until the database refuses them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::control::{Control, ControlError, Postgres};
use crate::auth::Forms;
use crate::config::AuthQueryConfig;
use crate::protocol::{LoginSecret, Proof, ScramSecret};

/// Who may log in, by the catalog itself: the configured query is the operator's, and may forget to look.
/// For how many seconds the password is good is asked by the database's own clock; null: for ever.
const MAY_LOG_IN: &str = "SELECT rolcanlogin, rolsuper, rolreplication, CASE \
     WHEN pg_catalog.isfinite(rolvaliduntil) THEN pg_catalog.date_part('epoch', rolvaliduntil - pg_catalog.now()) \
     WHEN rolvaliduntil < pg_catalog.now() THEN -1 END FROM pg_catalog.pg_roles WHERE rolname = $1";
/// PostgreSQL's names are no longer (NAMEDATALEN less one).
const NAME_BYTES_MAX: usize = 63;
/// A proof that failed makes an answer older than this be asked for again: the password may have changed. Younger
/// ones stay, so that guessing passwords is no storm of questions.
const FRESH_TIME: Duration = Duration::from_secs(1);
/// Answers of each kind, "there is" and "there is not", that are kept; one more forgets those of its kind that are too old,
/// and if need be all of them.
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
    /// Users who may come in.
    found: HashMap<String, Kept>,
    /// Names of nobody who may.
    absent: HashMap<String, Kept>,
    /// Names that the database is being asked about.
    asking: HashSet<String>,
    /// How users are asked to prove themselves.
    forms: Forms,
    /// By users who have logged in. As many as the database has users, at most.
    keys: HashMap<String, LoginSecret>,
}

/// An answer, and when it came.
struct Kept {
    at: Instant,
    answer: Answer,
}

/// What the database keeps of a user.
#[derive(Debug, Clone)]
pub struct FoundUser {
    /// What a client must prove.
    pub proof: Proof,
    /// Until when that is good.
    expires: Option<Instant>,
}

impl FoundUser {
    /// What is kept of an old password: worth as much as the password itself.
    pub fn md5(&self) -> Option<[u8; 32]> {
        match &self.proof {
            Proof::Md5(stored) => Some(*stored),
            Proof::Scram(_) | Proof::Password | Proof::Challenge(_) | Proof::Certificate(_) => None,
        }
    }

    fn has_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

struct Question {
    user: String,
    reply: Reply,
}

type Answer = Option<Arc<FoundUser>>;
type Reply = oneshot::Sender<Option<Answer>>;

/// Why a user was not looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupError {
    /// The database could not be asked. Why is in the log.
    Failed,
    /// It may not be asked now.
    NotAllowed,
}

impl Lookup {
    /// Begins to answer on this thread; call inside a `LocalSet`. An answer takes at most `timeout`.
    pub fn start(group: &str, config: AuthQueryConfig, control: Control<Postgres>, timeout: Duration) -> Arc<Self> {
        let (lookup, asked) = Self::new(group, config.cache);
        let asker = Asker { group: group.to_owned(), config, control, timeout };
        tokio::task::spawn_local(asker.run(asked));
        lookup
    }

    /// Asks about the account that asks: what comes of it, for `sluicegate check`.
    pub async fn try_out(
        group: &str,
        config: AuthQueryConfig,
        control: Control<Postgres>,
        timeout: Duration,
    ) -> Result<String, String> {
        let account = config.user.clone();
        let asker = Asker { group: group.to_owned(), config, control, timeout };
        let asked = tokio::time::timeout(timeout, asker.look_up(&account)).await;
        match asked.unwrap_or(Err(ControlError::ConnectTimeout(timeout))) {
            Ok(Ok(_)) => Ok(format!("answers; it finds its own account {account:?}")),
            Ok(Err(reason)) => Ok(format!("answers; its own account {account:?} could not come in: {reason}")),
            Err(error) => Err(words(&error)),
        }
    }

    fn new(group: &str, cache: Duration) -> (Arc<Self>, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(ASKING_MAX);
        (Arc::new(Self { group: group.to_owned(), questions, cache, state: Mutex::default() }), asked)
    }

    /// The group whose users these are.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// How users are asked to prove themselves, as far as has been seen.
    pub fn forms(&self) -> Forms {
        self.state().forms.clone()
    }

    /// Looks a user up. `None`: there is none who may come in. `may_ask` is called if the database must be asked, and nobody
    /// is asking about this name already.
    ///
    /// Cancel safe. Takes at most the time given at the start.
    pub async fn find(
        &self,
        user: &str,
        may_ask: impl FnOnce() -> bool,
    ) -> Result<Option<Arc<FoundUser>>, LookupError> {
        if user.len() > NAME_BYTES_MAX {
            return Ok(None);
        }
        let first = {
            let mut state = self.state();
            if let Some(answer) = self.known(&state, user) {
                return Ok(answer);
            }
            state.asking.insert(user.to_owned())
        };
        let _asking = first.then(|| Asking { lookup: self, user });
        if first && !may_ask() {
            return Err(LookupError::NotAllowed);
        }
        let (reply, answer) = oneshot::channel();
        let question = Question { user: user.to_owned(), reply };
        if self.questions.try_send(question).is_err() {
            tracing::warn!(group = self.group, "too many users are looked up at the same time");
            return Err(LookupError::Failed);
        }
        let answer = answer.await.ok().flatten().ok_or(LookupError::Failed)?;
        self.remember(user, &answer);
        Ok(answer)
    }

    fn known(&self, state: &State, user: &str) -> Option<Answer> {
        let kept = state.found.get(user).or_else(|| state.absent.get(user))?;
        let now = Instant::now();
        let is_current = now.saturating_duration_since(kept.at) < self.cache;
        // The time may have come that the database has named.
        is_current.then(|| kept.answer.clone().filter(|found| !found.has_expired(now)))
    }

    fn remember(&self, user: &str, answer: &Answer) {
        let mut state = self.state();
        let State { found, absent, forms, .. } = &mut *state;
        let (kept, other) = match answer {
            Some(user) => {
                forms.seen(&user.proof);
                (found, absent)
            }
            None => (absent, found),
        };
        if kept.len() >= ANSWERS_MAX {
            kept.retain(|_, kept| kept.at.elapsed() < self.cache);
            if kept.len() >= ANSWERS_MAX {
                kept.clear();
            }
        }
        other.remove(user);
        kept.insert(user.to_owned(), Kept { at: Instant::now(), answer: answer.clone() });
    }

    /// A client did not prove what was found: the next one is not held to it, for it may be an old password's.
    pub fn proof_failed(&self, user: &str) {
        let mut state = self.state();
        let State { found, absent, .. } = &mut *state;
        for kept in [found, absent] {
            if kept.get(user).is_some_and(|kept| kept.at.elapsed() >= FRESH_TIME) {
                kept.remove(user);
            }
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
        state.found.remove(user);
        false
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody asks about this name, until it is dropped.
struct Asking<'a> {
    lookup: &'a Lookup,
    user: &'a str,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.lookup.state().asking.remove(self.user);
    }
}

/// Asks the database, on the main thread.
struct Asker {
    group: String,
    config: AuthQueryConfig,
    control: Control<Postgres>,
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
                let error = words(&error);
                tracing::warn!(group = self.group, user, error, "the user can't be looked up (auth_query)");
                None
            }
        }
    }

    /// The user, or why there is none who may come in.
    async fn look_up(&self, user: &str) -> Result<Result<FoundUser, &'static str>, ControlError> {
        let mut connection = self.control.borrow().await?;
        let asked_at = Instant::now();
        let role = connection.ask_about(MAY_LOG_IN, user).await?;
        // Asked in any case: it takes the same time to be nobody.
        let kept = connection.ask_about(&self.config.query, user).await?;
        connection.answered();
        let Some(role) = role else { return Ok(Err("there is no such role")) };
        if role.try_get::<_, Option<bool>>(0)? != Some(true) {
            return Ok(Err("the role may not log in"));
        }
        let seconds_left = role.try_get::<_, Option<f64>>(3)?;
        if seconds_left.is_some_and(|seconds| seconds <= 0.0) {
            return Ok(Err("the role's password has expired"));
        }
        // Longer than can be counted is for ever.
        let left = seconds_left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let expires = left.and_then(|left| asked_at.checked_add(left));
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
        Ok(proof
            .map(|proof| FoundUser { proof, expires })
            .ok_or("what the query gives is neither a SCRAM nor an MD5 verifier"))
    }
}

/// The driver's own words leave out what the database has said.
fn words(error: &ControlError) -> String {
    let source = std::error::Error::source(error).and_then(std::error::Error::source);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// The digits of `md5...`, as `pg_authid.rolpassword` holds them.
fn md5(verifier: &str) -> Option<[u8; 32]> {
    let digits: [u8; 32] = verifier.strip_prefix("md5")?.as_bytes().try_into().ok()?;
    digits.iter().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit)).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: Duration = Duration::from_secs(60);

    /// Plays the database: answers each question, and counts them.
    struct Database {
        lookup: Arc<Lookup>,
        asked: mpsc::Receiver<Question>,
    }

    impl Database {
        fn new() -> Self {
            let (lookup, asked) = Lookup::new("g", CACHE);
            Self { lookup, asked }
        }

        /// Finds a user, of whom the database would say this; the answer, and whether it was asked.
        async fn find(&mut self, user: &str, says: Answer) -> (Answer, bool) {
            let lookup = Arc::clone(&self.lookup);
            let finding = lookup.find(user, || true);
            let answering = async {
                let question = self.asked.recv().await.unwrap();
                question.reply.send(Some(says)).unwrap();
            };
            tokio::pin!(finding, answering);
            tokio::select! {
                biased;
                found = &mut finding => (found.unwrap(), false),
                () = answering => (finding.await.unwrap(), true),
            }
        }
    }

    fn scram() -> Proof {
        Proof::Scram(ScramSecret { salt: vec![1; 16], iterations: 10, stored_key: [0; 32], server_key: [0; 32] })
    }

    fn someone(expires: Option<Instant>) -> Answer {
        Some(Arc::new(FoundUser { proof: scram(), expires }))
    }

    fn keys(byte: u8) -> LoginSecret {
        LoginSecret::Md5([byte; 32])
    }

    /// When the database is asked must not tell who exists.
    #[tokio::test(start_paused = true)]
    async fn those_who_exist_and_those_who_do_not_are_asked_about_alike() {
        for says in [someone(None), None] {
            let mut database = Database::new();
            let is_there = says.is_some();
            for (wait, fails, asked) in [
                (0, false, true),
                (1, false, false),
                (58, false, false),
                (1, false, true),
                // A proof that fails at once is believed to be wrong; a later one may be of a new password, or a new user.
                (0, true, false),
                (1, true, false),
                (0, false, true),
            ] {
                tokio::time::advance(Duration::from_secs(wait)).await;
                let (found, was_asked) = database.find("anna", says.clone()).await;
                assert_eq!((found.is_some(), was_asked), (is_there, asked), "{wait} {fails}");
                if fails {
                    database.lookup.proof_failed("anna");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_takes_the_place_of_the_other() {
        let mut database = Database::new();
        for says in [None, someone(None), None] {
            let is_there = says.is_some();
            for asked in [true, false] {
                let (found, was_asked) = database.find("anna", says.clone()).await;
                assert_eq!((found.is_some(), was_asked), (is_there, asked));
            }
            tokio::time::advance(CACHE).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_is_good_until_its_time_and_not_until_it_is_asked_for_again() {
        let mut database = Database::new();
        let expires = Instant::now() + Duration::from_secs(5);
        assert!(database.find("anna", someone(Some(expires))).await.0.is_some());
        tokio::time::advance(Duration::from_millis(4_999)).await;
        let (found, asked) = database.find("anna", None).await;
        assert!(found.is_some() && !asked);
        tokio::time::advance(Duration::from_millis(1)).await;
        let (found, asked) = database.find("anna", someone(None)).await;
        assert!(found.is_none() && !asked);
    }

    #[tokio::test(start_paused = true)]
    async fn names_of_nobody_push_nobody_out() {
        let mut database = Database::new();
        database.find("anna", someone(None)).await;
        for number in 0..=ANSWERS_MAX {
            database.lookup.remember(&format!("ghost{number}"), &None);
        }
        assert!(!database.find("anna", None).await.1);
        let kept = database.lookup.state().absent.len();
        assert!(kept <= ANSWERS_MAX, "{kept}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_who_may_not_and_one_asks_for_all() {
        let mut database = Database::new();
        let lookup = Arc::clone(&database.lookup);
        assert_eq!(lookup.find("anna", || false).await.err(), Some(LookupError::NotAllowed));
        // It is no longer being asked about.
        let mut allowed = 0;
        {
            let first = lookup.find("anna", || {
                allowed += 1;
                true
            });
            tokio::pin!(first);
            tokio::select! { biased; _ = &mut first => panic!(), () = std::future::ready(()) => {} }
            // While that is under way, others ride along and may not be charged for it.
            let second = lookup.find("anna", || panic!("asked twice"));
            tokio::pin!(second);
            tokio::select! { biased; _ = &mut second => panic!(), () = std::future::ready(()) => {} }
            for _ in 0..2 {
                database.asked.recv().await.unwrap().reply.send(Some(someone(None))).unwrap();
            }
            assert!(first.await.unwrap().is_some() && second.await.unwrap().is_some());
        }
        assert_eq!(allowed, 1);
        // No database could have a name as long as this.
        assert!(lookup.find(&"x".repeat(64), || panic!("asked")).await.unwrap().is_none());
        // One that gives no answer.
        let failing = lookup.find("berta", || true);
        tokio::pin!(failing);
        tokio::select! { biased; _ = &mut failing => panic!(), () = std::future::ready(()) => {} }
        database.asked.recv().await.unwrap().reply.send(None).unwrap();
        assert_eq!(failing.await.err(), Some(LookupError::Failed));
        assert!(lookup.state().asking.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn keys_go_when_the_database_refuses_them_and_no_others_do() {
        let mut database = Database::new();
        let lookup = Arc::clone(&database.lookup);
        assert!(!lookup.refused("anna", None), "there is nothing else to try");
        lookup.proven("anna", keys(b'1'));
        assert!(lookup.refused("anna", None), "somebody has come in meanwhile");
        lookup.proven("anna", keys(b'2'));
        assert!(lookup.refused("anna", Some(&keys(b'1'))), "there are others now");
        assert!(lookup.secret("anna") == Some(keys(b'2')));
        database.find("anna", someone(None)).await;
        assert!(!lookup.refused("anna", Some(&keys(b'2'))));
        assert!(lookup.secret("anna").is_none());
        assert!(database.find("anna", someone(None)).await.1, "its password may be another one");
    }

    #[tokio::test(start_paused = true)]
    async fn how_users_are_asked_is_remembered() {
        let mut database = Database::new();
        let shown = |lookup: &Lookup| format!("{:?}", lookup.forms());
        assert!(!shown(&database.lookup).contains("iterations"));
        database.find("ghost", None).await;
        assert!(!shown(&database.lookup).contains("iterations"));
        database.find("anna", someone(None)).await;
        assert!(shown(&database.lookup).contains("iterations: 10"));
    }

    #[test]
    fn verifiers_of_md5() {
        assert_eq!(md5("md50123456789abcdef0123456789abcdef"), Some(*b"0123456789abcdef0123456789abcdef"));
        for other in ["", "md5", "md50123456789ABCDEF0123456789abcdef", "md50123456789abcdef0123456789abcde", "x"] {
            assert_eq!(md5(other), None, "{other}");
        }
    }
}
