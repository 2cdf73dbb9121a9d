//! A task per target group: probes its target on a timer and publishes what it finds.
//!
//! The decisions are in [`Watch`], plain code fed with results and times; the task around it waits, probes and logs.
//! A change is logged once; an outage that lasts is recalled ever more seldom.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::availability::LastMinute;
use super::probe::{Finding, ProbeError, Prober};
use super::{Health, Reason, Role, Snapshot, Target, TargetState};
use crate::config::HealthConfig;
use crate::metrics::{GroupMetrics, ProbeResult, TargetRole};

/// A refused account is not helped by asking often, and each refusal is a line in the database's log.
const REFUSED_INTERVAL: Duration = Duration::from_secs(5);
/// The first time an outage is recalled; then after twice as long each time,
const RECALL_FIRST: Duration = Duration::from_secs(60);
/// up to once an hour.
const RECALL_LAST: Duration = Duration::from_secs(3600);

/// Starts to watch a group's target on this runtime. The task ends when it is aborted or nobody listens any more.
/// `counts`: the slot of this thread.
pub fn start(
    group: &str,
    target: Target,
    health: HealthConfig,
    prober: Prober,
    counts: Arc<GroupMetrics>,
) -> (watch::Receiver<Arc<Snapshot>>, JoinHandle<()>) {
    let watch = Watch::new(group, target, &health);
    let counting = Counting { counts, began: Instant::now(), last_minute: LastMinute::new() };
    counting.role(watch.state.role);
    let (publish, snapshots) = watch::channel(watch.snapshot());
    (snapshots, tokio::spawn(run(watch, counting, health, prober, publish)))
}

async fn run(
    mut watch: Watch,
    mut counting: Counting,
    health: HealthConfig,
    mut prober: Prober,
    publish: watch::Sender<Arc<Snapshot>>,
) {
    loop {
        let sent = Instant::now();
        let found = prober.probe().await;
        let now = Instant::now();
        counting.count(&found, now);
        let event = watch.apply(found, sent, now);
        counting.role(watch.state.role);
        watch.log(&event);
        publish.send_if_modified(|published| {
            // Readers always find the newest; they are woken when it says something new.
            let is_news = !published.targets.iter().all(|target| target.says_the_same_as(&watch.state));
            *published = watch.snapshot();
            is_news
        });
        // Probes are counted from their sending, so that a slow one does not stretch the beat.
        tokio::select! {
            () = tokio::time::sleep_until(sent + watch.pause(&health)) => {}
            () = publish.closed() => return,
        }
    }
}

/// What is told of the probes to those who measure.
struct Counting {
    counts: Arc<GroupMetrics>,
    began: Instant,
    last_minute: LastMinute,
}

impl Counting {
    fn count(&mut self, found: &Result<Finding, ProbeError>, now: Instant) {
        let result = match found {
            Ok(finding) if finding.role == Role::Writer => ProbeResult::Writer,
            Ok(_) => ProbeResult::Standby,
            Err(error) => match error.reason() {
                Reason::Network => ProbeResult::Network,
                Reason::Timeout => ProbeResult::Timeout,
                Reason::Tls => ProbeResult::Tls,
                Reason::AccountRefused => ProbeResult::AccountRefused,
                Reason::Database => ProbeResult::Database,
            },
        };
        let second = now.saturating_duration_since(self.began).as_secs();
        self.last_minute.note(second, result == ProbeResult::Writer);
        self.counts.writer_availability.set(self.last_minute.share());
        self.counts.probes.of(result).add(1);
    }

    fn role(&self, role: Role) {
        for (own, label) in [
            (Role::Writer, TargetRole::Writer),
            (Role::Standby, TargetRole::Standby),
            (Role::Unknown, TargetRole::Unknown),
        ] {
            self.counts.role.of(label).set(u64::from(own == role));
        }
    }
}

/// What the probes of one target have shown so far.
#[derive(Debug)]
struct Watch {
    group: String,
    state: TargetState,
    failures_max: u32,
    /// Missed in a row.
    missed: u32,
    outage: Option<Outage>,
}

/// A target that is unavailable, and what was logged of it.
#[derive(Debug)]
struct Outage {
    since: Instant,
    recall_at: Instant,
    recall_next: Duration,
    /// Each reason is logged once per outage, so that two that take turns don't fill the log.
    logged: Vec<Reason>,
}

/// What one probe changed; what the log is told.
#[derive(Debug)]
enum Event {
    /// Nothing that matters.
    Nothing,
    /// Probes are answered (again), or its role, version or limits are others.
    Up { down_for: Option<Duration> },
    /// `failures` probes were missed.
    Down(ProbeError),
    /// It is still down: for another reason, or for so long that it is said again.
    StillDown(ProbeError, Duration),
}

impl Watch {
    fn new(group: &str, target: Target, health: &HealthConfig) -> Self {
        Self {
            group: group.to_owned(),
            state: TargetState {
                target: Arc::new(target),
                role: Role::Unknown,
                health: Health::Unknown,
                limits: None,
                version: None,
                version_text: None,
                probed_at: None,
            },
            failures_max: health.failures.max(1),
            missed: 0,
            outage: None,
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(Snapshot { group: self.group.clone(), targets: vec![self.state.clone()] })
    }

    fn apply(&mut self, result: Result<Finding, ProbeError>, sent: Instant, now: Instant) -> Event {
        match result {
            Ok(finding) => self.answered(&finding, sent, now),
            Err(error) => self.missed(error, now),
        }
    }

    fn answered(&mut self, finding: &Finding, sent: Instant, now: Instant) -> Event {
        self.missed = 0;
        let down_for = self.outage.take().map(|outage| now.saturating_duration_since(outage.since));
        let state = &mut self.state;
        let before = state.clone();
        state.health = Health::Available;
        state.role = finding.role;
        state.limits = Some(finding.limits);
        state.version = Some(finding.version);
        state.version_text.clone_from(&finding.version_text);
        state.probed_at = Some(sent);
        if state.says_the_same_as(&before) { Event::Nothing } else { Event::Up { down_for } }
    }

    fn missed(&mut self, error: ProbeError, now: Instant) -> Event {
        let reason = error.reason();
        self.missed = self.missed.saturating_add(1);
        let Some(outage) = &mut self.outage else {
            // What refuses the account answers: no second look makes that surer.
            if self.missed < self.failures_max && reason != Reason::AccountRefused {
                return Event::Nothing;
            }
            self.state.health = Health::Unavailable(reason);
            self.outage = Some(Outage {
                since: now,
                recall_at: now + RECALL_FIRST,
                recall_next: RECALL_FIRST * 2,
                logged: vec![reason],
            });
            return Event::Down(error);
        };
        let down_for = now.saturating_duration_since(outage.since);
        self.state.health = Health::Unavailable(reason);
        let is_news = !outage.logged.contains(&reason);
        if is_news {
            outage.logged.push(reason);
        }
        if is_news || now >= outage.recall_at {
            outage.recall_at = now + outage.recall_next;
            outage.recall_next = (outage.recall_next * 2).min(RECALL_LAST);
            return Event::StillDown(error, down_for);
        }
        Event::Nothing
    }

    /// From one probe to the next.
    fn pause(&self, health: &HealthConfig) -> Duration {
        match self.state.health {
            Health::Unavailable(Reason::AccountRefused) => health.interval.max(REFUSED_INTERVAL),
            Health::Unavailable(_) => health.interval,
            Health::Unknown | Health::Available if self.missed > 0 => health.suspect_interval,
            Health::Unknown | Health::Available => health.interval,
        }
    }

    fn log(&self, event: &Event) {
        let (target_group, target) = (self.group.as_str(), self.state.target.name.as_str());
        match event {
            Event::Nothing => {}
            Event::Up { down_for } => {
                let version = self.state.version.unwrap_or_default();
                let limits = self.state.limits;
                let (max_connections, reserved) =
                    limits.map(|limits| (limits.max_connections, limits.reserved)).unwrap_or_default();
                let role = self.state.role.name();
                let down_for = down_for.map(tracing::field::debug);
                if self.state.role == Role::Standby {
                    warn!(
                        target_group,
                        target, version, max_connections, reserved, down_for, "the target is a standby: no writer"
                    );
                } else {
                    info!(target_group, target, role, version, max_connections, reserved, down_for, "the target is up");
                }
            }
            Event::Down(error) => {
                let reason = error.reason().name();
                if error.reason() == Reason::AccountRefused {
                    warn!(
                        target_group,
                        target, reason, %error,
                        "the target refuses the health account: its role and limits are not known"
                    );
                } else {
                    warn!(target_group, target, reason, missed = self.missed, %error, "the target is unavailable");
                }
            }
            Event::StillDown(error, down_for) => {
                let reason = error.reason().name();
                warn!(target_group, target, reason, ?down_for, %error, "the target is still unavailable");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, TargetAddress};
    use crate::topology::{Account, Limits, postgres_control};

    fn health() -> HealthConfig {
        HealthConfig {
            user: "monitor".to_owned(),
            password: Secret::new("pw".to_owned()),
            database: "postgres".to_owned(),
            interval: Duration::from_millis(500),
            suspect_interval: Duration::from_millis(100),
            timeout: Duration::from_millis(500),
            failures: 3,
        }
    }

    fn target(port: u16) -> Target {
        Target::new(TargetAddress::Tcp { host: "127.0.0.1".to_owned(), port })
    }

    fn finding(role: Role) -> Finding {
        Finding { role, limits: Limits { max_connections: 100, reserved: 3 }, version: 150_004, version_text: None }
    }

    fn timeout() -> ProbeError {
        ProbeError::Timeout(Duration::from_millis(500))
    }

    fn network() -> ProbeError {
        ProbeError::GoingDown
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_goes_down_after_enough_misses_and_comes_back_at_once() {
        let health = health();
        let mut watch = Watch::new("orders", target(5432), &health);
        let now = Instant::now;
        assert!(watch.snapshot().writer().is_none());
        assert!(matches!(watch.apply(Ok(finding(Role::Writer)), now(), now()), Event::Up { down_for: None }));
        assert!(watch.snapshot().writer().is_some());
        assert!(matches!(watch.apply(Ok(finding(Role::Writer)), now(), now()), Event::Nothing));
        assert_eq!(watch.pause(&health), health.interval);

        // Two misses make it suspect and no more; an answer forgives them.
        for _ in 0..2 {
            for _ in 0..2 {
                assert!(matches!(watch.apply(Err(timeout()), now(), now()), Event::Nothing));
                assert_eq!(watch.pause(&health), health.suspect_interval);
                assert!(watch.snapshot().writer().is_some());
            }
            assert!(matches!(watch.apply(Ok(finding(Role::Writer)), now(), now()), Event::Nothing));
        }
        for _ in 0..2 {
            watch.apply(Err(timeout()), now(), now());
        }
        assert!(matches!(watch.apply(Err(timeout()), now(), now()), Event::Down(_)));
        assert_eq!(watch.state.health, Health::Unavailable(Reason::Timeout));
        assert!(watch.snapshot().writer().is_none());
        assert_eq!(watch.state.limits, Some(finding(Role::Writer).limits), "what it said last is kept");

        tokio::time::advance(Duration::from_secs(7)).await;
        let up = watch.apply(Ok(finding(Role::Standby)), now(), now());
        assert!(matches!(up, Event::Up { down_for: Some(time) } if time == Duration::from_secs(7)));
        assert!(watch.snapshot().writer().is_none(), "a standby takes no writes");
        assert!(matches!(watch.apply(Ok(finding(Role::Writer)), now(), now()), Event::Up { down_for: None }));
    }

    #[tokio::test(start_paused = true)]
    async fn probes_are_counted_by_result() {
        let counts = Arc::new(GroupMetrics::default());
        let mut counting =
            Counting { counts: Arc::clone(&counts), began: Instant::now(), last_minute: LastMinute::new() };
        for (found, share) in [
            (Ok(finding(Role::Writer)), 10_000),
            (Ok(finding(Role::Standby)), 5_000),
            (Err(timeout()), 3_333),
            (Err(network()), 2_500),
            (Ok(finding(Role::Writer)), 4_000),
        ] {
            counting.count(&found, Instant::now());
            assert_eq!(counts.writer_availability.value(), share);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        for (result, number) in [
            (ProbeResult::Writer, 2),
            (ProbeResult::Standby, 1),
            (ProbeResult::Timeout, 1),
            (ProbeResult::Network, 1),
            (ProbeResult::Database, 0),
        ] {
            assert_eq!(counts.probes.of(result).value(), number, "{result:?}");
        }
        for (role, numbers) in [(Role::Unknown, [0, 0, 1]), (Role::Writer, [1, 0, 0]), (Role::Standby, [0, 1, 0])] {
            counting.role(role);
            let labels = [TargetRole::Writer, TargetRole::Standby, TargetRole::Unknown];
            assert_eq!(labels.map(|label| counts.role.of(label).value()), numbers);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_outage_is_recalled_ever_more_seldom() {
        let health = health();
        let mut watch = Watch::new("orders", target(5432), &health);
        let mut logged = Vec::new();
        let start = Instant::now();
        // A day, in which two reasons take turns.
        while start.elapsed() < Duration::from_secs(24 * 3600) {
            let error = if start.elapsed().as_secs().is_multiple_of(2) { timeout() } else { network() };
            let event = watch.apply(Err(error), Instant::now(), Instant::now());
            if !matches!(event, Event::Nothing) {
                logged.push(start.elapsed().as_secs());
            }
            tokio::time::advance(watch.pause(&health)).await;
        }
        assert_eq!(logged[..5], [0, 1, 121, 361, 841], "{logged:?}");
        assert!(logged.len() < 34, "{} lines a day", logged.len());
    }

    #[tokio::test]
    async fn a_target_that_is_not_there_is_published_as_such() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let health = HealthConfig { suspect_interval: Duration::from_millis(1), ..health() };
        let control =
            postgres_control(&target(port), &Account::of_health(&health), Duration::from_secs(5), None).unwrap();
        let counts = Arc::new(GroupMetrics::default());
        let (mut snapshots, task) =
            start("orders", target(port), health.clone(), Prober::new(control, health.timeout), Arc::clone(&counts));
        assert_eq!(snapshots.borrow().targets[0].health, Health::Unknown);
        snapshots.changed().await.unwrap();
        assert_eq!(snapshots.borrow().targets[0].health, Health::Unavailable(Reason::Network));
        assert!(counts.probes.of(ProbeResult::Network).value() >= u64::from(health.failures));
        assert_eq!(counts.writer_availability.value(), 0);
        assert_eq!(counts.role.of(TargetRole::Unknown).value(), 1);
        drop(snapshots);
        // Nobody listens: the task ends by itself.
        task.await.unwrap();
    }

    /// A target that takes the connection and says nothing: probes are missed in time, and one login goes on
    /// through all of them.
    #[tokio::test]
    async fn connecting_outlives_a_probe() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap().port());
        let health = health();
        let control = postgres_control(&target, &Account::of_health(&health), Duration::from_secs(60), None).unwrap();
        let mut prober = Prober::new(control, Duration::from_millis(20));
        for _ in 0..5 {
            assert_eq!(prober.probe().await.unwrap_err().reason(), Reason::Timeout);
        }
        let (connection, _) = listener.accept().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), listener.accept()).await.is_err(), "a second login");
        // What is under way ends with its prober.
        drop(prober);
        let mut sent = Vec::new();
        let mut connection = connection;
        tokio::io::AsyncReadExt::read_to_end(&mut connection, &mut sent).await.unwrap();
        assert!(sent.windows(7).any(|bytes| bytes == b"monitor"));
    }
}
