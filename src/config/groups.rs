//! Reads `[[target_group]]` with its pool and health: the databases behind the endpoints.
//!
//! Checks beyond one key: where the target comes from fits `discovery`, one of the two connection limits is given.

use super::field::Field;
use super::table::Table;
use super::types::{
    AuthQueryConfig, ConnectionLimit, Discovery, Engine, HealthConfig, PoolConfig, PoolMode, ResetPolicy,
    TargetAddress, TargetGroupConfig, TargetTls, TargetTlsMode,
};
use super::{Names, Secret, values};
use crate::protocol::{PinPolicy, PinReason, Pins};
use std::sync::Arc;
use std::time::Duration;

/// The highest `max_connections` Postgres itself takes.
pub(super) const CONNECTIONS_MAX: i64 = 262_143;
/// Waiting clients are bounded by `max_clients`; a larger number is a slip.
const WAITING_MAX: i64 = 1_000_000;
/// A thundering herd of logins is what this limit is there to stop.
const LOGINS_MAX: i64 = 1_000;
/// It is kept once and sent to each new connection; a longer one belongs into a function in the database.
const INIT_QUERY_BYTES_MAX: usize = 64 << 10;
/// Each costs memory on the database server.
const PREPARED_MAX: i64 = 100_000;
/// A target missed this often is gone by any measure.
const FAILURES_MAX: i64 = 100;

const NAME_FORM: &str = "1 to 63 letters, digits, -, _ or .";

/// Reads all target groups; at least one has to be there.
pub(super) fn read_all(root: &Table<'_>) -> Vec<TargetGroupConfig> {
    let tables = root.children("target_group");
    if tables.is_empty() {
        root.report_missing("target_group", "at least one [[target_group]]");
    }
    let mut names = Names::default();
    tables.into_iter().map(|table| read(table, &mut names)).collect()
}

fn read(table: Table<'_>, names: &mut Names) -> TargetGroupConfig {
    let name = names.read(&table, NAME_FORM, values::is_plain_name);
    let engine = table
        .require("engine", "\"postgres\" or \"mysql\"")
        .and_then(|field| field.choice(&[("postgres", Engine::Postgres), ("mysql", Engine::MySql)], &[]))
        .unwrap_or(Engine::Postgres);
    let (discovery, targets) = read_targets(&table);
    let group = TargetGroupConfig {
        name,
        engine,
        discovery,
        targets,
        tls: read_tls(&table),
        pool: read_pool(table.child("pool")),
        health: read_health(table.child("health"), engine),
        auth_query: read_auth_query(table.child("auth_query"), engine),
    };
    refuse_failover(table.child("failover"));
    refuse_routing(table.child("routing"));
    table.finish();
    group
}

fn read_targets(table: &Table<'_>) -> (Discovery, Vec<TargetAddress>) {
    let discovery = table.read("discovery", Some(Discovery::Static), |field| {
        let words = [("static", Discovery::Static), ("dns", Discovery::Dns)];
        let later = ["patroni", "aurora", "group-replication", "multi-az-cluster", "galera"];
        Some(field.choice(&words, &later))
    });
    table.later("reader_endpoint", None);
    let listed = table.take("targets");
    let writer = table.take("writer_endpoint");
    let targets = match discovery {
        // Refused already; what the targets would have to look like depends on it.
        None => None,
        Some(Discovery::Static) => {
            refuse(writer, "goes with discovery = \"dns\"; list the database in `targets`");
            require(table, "targets", listed).and_then(one_target)
        }
        Some(Discovery::Dns) => {
            refuse(listed, "goes with discovery = \"static\"; name the database in `writer_endpoint`");
            require(table, "writer_endpoint", writer).and_then(|field| {
                let target = target_address(&field)?;
                if matches!(target, TargetAddress::Unix(_)) {
                    field.report_impossible("\"host:port\": a unix socket has no DNS name");
                }
                Some(vec![target])
            })
        }
    };
    (discovery.unwrap_or(Discovery::Static), targets.unwrap_or_default())
}

fn require<'s>(table: &Table<'_>, key: &str, field: Option<Field<'s>>) -> Option<Field<'s>> {
    if field.is_none() {
        table.report_missing(key, values::TARGET_FORM);
    }
    field
}

fn refuse(field: Option<Field<'_>>, reason: &str) {
    if let Some(field) = field {
        field.report_conflict(reason.to_owned());
    }
}

fn one_target(field: Field<'_>) -> Option<Vec<TargetAddress>> {
    let fields = field.list(&format!("a list with {}", values::TARGET_FORM))?;
    match fields.len() {
        0 => field.report_impossible(values::TARGET_FORM),
        1 => {}
        _ => field.report_later("one target per group"),
    }
    fields.iter().map(target_address).collect()
}

fn target_address(field: &Field<'_>) -> Option<TargetAddress> {
    match values::target_address(field.text(values::TARGET_FORM)?) {
        Ok(target) => Some(target),
        Err(allowed) => {
            field.report_impossible(allowed);
            None
        }
    }
}

fn read_tls(table: &Table<'_>) -> TargetTls {
    let mode = table.read("tls", TargetTlsMode::VerifyFull, |field| {
        let words = [
            ("verify-full", TargetTlsMode::VerifyFull),
            ("verify-ca", TargetTlsMode::VerifyCa),
            ("require", TargetTlsMode::Require),
            ("off", TargetTlsMode::Off),
        ];
        field.choice(&words, &[])
    });
    let ca_file = table.read("ca_file", None, |field| field.readable_file().map(Some));
    TargetTls { mode, ca_file }
}

fn read_pool(table: Table<'_>) -> PoolConfig {
    let default = PoolConfig::default();
    let pool = PoolConfig {
        max_connections: read_limit(&table).unwrap_or(default.max_connections),
        max_idle_connections_percent: table.read(
            "max_idle_connections_percent",
            default.max_idle_connections_percent,
            percent,
        ),
        min_connections: table
            .read("min_connections", default.min_connections, |field| field.integer(0..=CONNECTIONS_MAX)),
        connection_borrow_timeout: table.read(
            "connection_borrow_timeout",
            default.connection_borrow_timeout,
            Field::duration,
        ),
        max_waiting: table.read("max_waiting", default.max_waiting, |field| field.integer(0..=WAITING_MAX)),
        connect_timeout: table.read("connect_timeout", default.connect_timeout, Field::duration),
        max_logins_in_progress: table
            .read("max_logins_in_progress", default.max_logins_in_progress, |field| field.integer(1..=LOGINS_MAX)),
        connection_max_lifetime: table.read(
            "connection_max_lifetime",
            default.connection_max_lifetime,
            Field::duration_or_off,
        ),
        connection_idle_timeout: table.read(
            "connection_idle_timeout",
            default.connection_idle_timeout,
            Field::duration_or_off,
        ),
        init_query: table.read("init_query", None, read_init_query),
        pool_mode: table.read("pool_mode", default.pool_mode, |field| {
            let words = [("transaction", PoolMode::Transaction), ("session", PoolMode::Session)];
            field.choice(&words, &[])
        }),
        reset: table.read("reset", default.reset, |field| {
            let words = [("smart", ResetPolicy::Smart), ("full", ResetPolicy::Full)];
            field.choice(&words, &[])
        }),
        transaction_idle_timeout: table.read(
            "transaction_idle_timeout",
            default.transaction_idle_timeout,
            Field::duration_or_off,
        ),
        transaction_max: table.read("transaction_max", default.transaction_max, Field::duration_or_off),
        query_timeout: table.read("query_timeout", default.query_timeout, Field::duration_or_off),
        pin_on: read_pin_on(table.child("pin_on")),
        pin_max_percent: table.read("pin_max_percent", default.pin_max_percent, percent),
        pin_idle_timeout: table.read("pin_idle_timeout", default.pin_idle_timeout, Field::duration_or_off),
        max_prepared_statements: table
            .read("max_prepared_statements", default.max_prepared_statements, |field| field.integer(1..=PREPARED_MAX)),
    };
    table.finish();
    pool
}

/// By reason. Last values can't be refused: whether one will be asked for is not known when it is made. A statement that the
/// proxy can't keep is nowhere but on its connection, so that there is nothing to allow.
fn read_pin_on(table: Table<'_>) -> PinPolicy {
    let mut policy = PinPolicy::default();
    for reason in PinReason::ALL {
        let one = Pins::of(reason);
        let reject = ("reject", PinPolicy { rejected: one, ..PinPolicy::default() });
        let allow = ("allow", PinPolicy { allowed: one, ..PinPolicy::default() });
        let words = match reason {
            PinReason::Sequence => vec![allow],
            PinReason::LargeStatement => vec![reject],
            PinReason::Setting
            | PinReason::PreparedStatement
            | PinReason::TemporaryObject
            | PinReason::SessionLock
            | PinReason::HeldCursor
            | PinReason::Listen
            | PinReason::OpaqueCode
            | PinReason::ServerProcess
            | PinReason::Unreadable
            | PinReason::UserVariable => vec![reject, allow],
        };
        let words = [vec![("pin", PinPolicy::default())], words].concat();
        let own = table.read(reason.name(), PinPolicy::default(), |field| field.choice(&words, &[]));
        policy.rejected = policy.rejected.and(own.rejected);
        policy.allowed = policy.allowed.and(own.allowed);
    }
    table.finish();
    policy
}

/// Never shown: it may hold what is nobody's business.
fn read_init_query(field: &Field<'_>) -> Option<Option<Arc<str>>> {
    let text = field.text("SQL statements")?;
    if text.contains('\0') || text.len() > INIT_QUERY_BYTES_MAX {
        field.report_conflict(format!("at most {INIT_QUERY_BYTES_MAX} bytes of SQL, and none of them zero"));
        return None;
    }
    Some((!text.trim().is_empty()).then(|| text.into()))
}

fn percent(field: &Field<'_>) -> Option<u8> {
    field.integer(1..=100)
}

fn read_limit(table: &Table<'_>) -> Option<ConnectionLimit> {
    let share = table.take("max_connections_percent");
    let number = table.take("max_connections");
    match (share, number) {
        (Some(share), None) => percent(&share).map(ConnectionLimit::Percent),
        (None, Some(number)) => number.integer(1..=CONNECTIONS_MAX).map(ConnectionLimit::Absolute),
        (Some(share), Some(number)) => {
            number.report_conflict(format!(
                "`max_connections_percent` is set in line {}; keep one of the two",
                share.line
            ));
            None
        }
        (None, None) => None,
    }
}

fn read_health(table: Table<'_>, engine: Engine) -> HealthConfig {
    // Where nothing is asked of a database, MySQL needs none.
    let database = if engine == Engine::MySql { "" } else { "postgres" };
    let health = HealthConfig {
        user: table
            .require("user", "the name of a database account")
            .and_then(|field| field.text_unseen("the name of a database account"))
            .unwrap_or_default(),
        password: table
            .require("password", super::secret::FORMS)
            .and_then(|field| field.secret())
            .unwrap_or_else(|| Secret::new(String::new())),
        database: table.read("database", database.to_owned(), |field| field.text_unseen("the name of a database")),
        interval: table.read("interval", Duration::from_millis(500), Field::duration),
        suspect_interval: table.read("suspect_interval", Duration::from_millis(100), Field::duration),
        timeout: table.read("timeout", Duration::from_millis(500), Field::duration),
        failures: table.read("failures", 3, |field| field.integer(1..=FAILURES_MAX)),
    };
    table.finish();
    health
}

fn refuse_failover(table: Table<'_>) {
    table.later("on_lost_transactions", Some("\"follow\""));
    table.finish();
}

fn refuse_routing(table: Table<'_>) {
    table.later("consistency", Some("\"session\""));
    table.later("max_replica_lag", Some("\"1s\""));
    table.later("position_interval", Some("\"100ms\""));
    table.later("balance", Some("\"least-connections\""));
    table.later("reader_fallback", Some("\"writer\""));
    table.later("reader_fallback_percent", Some("50"));
    table.later("read_functions", Some("[]"));
    table.finish();
}

/// Read also when it is off, so that a mistake is told before it is switched on.
fn read_auth_query(table: Table<'_>, engine: Engine) -> Option<AuthQueryConfig> {
    const QUERY: &str = "SELECT rolname, rolpassword FROM sluicegate.user_lookup($1)";
    const ACCOUNT: &str = "the name of a database account";
    const DENIED: [&str; 2] = ["superuser", "replication"];
    let is_enabled = table.read("enabled", false, |field| {
        let is_enabled = field.boolean();
        if is_enabled == Some(true) && engine == Engine::MySql {
            field.report_conflict("users are looked up in PostgreSQL only; list those of MySQL as [[user]]".to_owned());
        }
        is_enabled
    });
    let required = |key, allowed| {
        let field = table.take(key);
        if field.is_none() && is_enabled {
            table.report_missing(key, allowed);
        }
        field
    };
    let config = AuthQueryConfig {
        user: required("user", ACCOUNT).and_then(|field| field.text_unseen(ACCOUNT)).unwrap_or_default(),
        password: required("password", super::secret::FORMS)
            .and_then(|field| field.secret())
            .unwrap_or_else(|| Secret::new(String::new())),
        query: table.read("query", QUERY.to_owned(), |field| {
            let good = |text: &str| text.contains("$1").then(|| text.to_owned());
            field.parsed("a query for the user named $1", good)
        }),
        database: table.read("database", "postgres".to_owned(), |field| field.text_unseen("the name of a database")),
        cache: table.read("cache", Duration::from_secs(60), Field::duration_or_zero),
        deny_superuser: true,
        deny_replication: true,
    };
    let denied = table.read("deny", DENIED.to_vec(), |field| {
        let fields = field.list("a list of \"superuser\" and \"replication\"")?;
        let words = DENIED.map(|word| (word, word));
        fields.iter().map(|field| field.choice(&words, &[])).collect()
    });
    table.finish();
    let denies = |word: &str| denied.contains(&word);
    is_enabled.then(|| AuthQueryConfig {
        deny_superuser: denies("superuser"),
        deny_replication: denies("replication"),
        ..config
    })
}
