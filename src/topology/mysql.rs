//! Control connections to MySQL and MariaDB, and what a probe asks over them. As [`control`](super::control) for PostgreSQL.
//!
//! No password is said in the clear: without TLS it is proven by its challenge, or sealed with the server's RSA key.

use std::time::Duration;

use deadpool::managed::{self, Object, RecycleError};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, SslOpts};

use super::control::{Account, CONTROL_CONNECTIONS_MAX, ControlError};
use super::probe::{Finding, ProbeError};
use super::{Limits, Role, Target};
use crate::auth::Rotating;
use crate::config::{TargetAddress, TargetTls, TargetTlsMode};

/// As far as is asked, the same of both; a replica is one that takes no writes, as Aurora's readers (`innodb_read_only`).
const QUESTION: &str = "SELECT CAST(@@global.read_only AS CHAR), CAST(@@innodb_read_only AS CHAR), \
     CAST(@@max_connections AS CHAR), CAST(@@version AS CHAR)";
/// One more than `max_connections` may come, with the right to: nothing is kept of the rest.
const RESERVED: u32 = 0;
/// Of what a server sends and takes here.
const PACKET_BYTES_MAX: usize = 1 << 20;
/// Wrong password.
const ACCESS_DENIED: u16 = 1045;

/// The control connections of one target.
#[derive(Debug, Clone)]
pub(super) struct MySqlControl {
    pool: managed::Pool<Manager>,
}

/// A control connection in use. Goes back once answered; dropped in mid-question it is closed.
#[derive(Debug)]
pub(super) struct MySqlBorrowed(Option<Object<Manager>>);

impl MySqlControl {
    /// Nothing is opened yet.
    pub(super) fn new(
        target: &Target,
        account: &Account<'_>,
        connect_timeout: Duration,
        tls: &TargetTls,
    ) -> Result<Self, ControlError> {
        let mut options = OptsBuilder::default()
            .user(Some(account.user))
            .prefer_socket(false)
            // Else it would ask for them.
            .max_allowed_packet(Some(PACKET_BYTES_MAX))
            .wait_timeout(Some(28_800))
            .tcp_nodelay(true)
            .connect_attribute("program_name", "sluicegate");
        options = match &target.address {
            TargetAddress::Tcp { host, port } => {
                options.ip_or_hostname(host.as_str()).tcp_port(*port).ssl_opts(ssl_options(tls))
            }
            TargetAddress::Unix(path) => options.socket(Some(path.to_string_lossy())),
        };
        let password = Rotating::new(account.password.clone());
        let manager = Manager { options, user: account.user.to_owned(), password, connect_timeout };
        // Times are limited by those who ask, so the pool needs no runtime of its own.
        let pool = managed::Pool::builder(manager).max_size(CONTROL_CONNECTIONS_MAX).build();
        Ok(Self { pool: pool.map_err(|_| ControlError::Closed)? })
    }

    /// See [`Control::borrow`](super::control::Control::borrow).
    pub(super) async fn borrow(&self) -> Result<MySqlBorrowed, ControlError> {
        Ok(MySqlBorrowed(Some(self.pool.get().await?)))
    }
}

/// `None`: without TLS.
fn ssl_options(tls: &TargetTls) -> Option<SslOpts> {
    let mut options = SslOpts::default();
    if let Some(file) = &tls.ca_file {
        options = options.with_root_certs(vec![file.clone().into()]).with_disable_built_in_roots(true);
    }
    match tls.mode {
        TargetTlsMode::Off => None,
        TargetTlsMode::Require => Some(options.with_danger_accept_invalid_certs(true)),
        TargetTlsMode::VerifyCa => Some(options.with_danger_skip_domain_validation(true)),
        TargetTlsMode::VerifyFull => Some(options),
    }
}

impl MySqlBorrowed {
    /// Asks what a probe asks. One round trip.
    pub(super) async fn probe(mut self) -> Result<Finding, ProbeError> {
        let connection = self.0.as_deref_mut().ok_or(ControlError::Closed)?;
        let answer: Option<(String, String, String, String)> =
            connection.query_first(QUESTION).await.map_err(ControlError::MySql)?;
        drop(self.0.take());
        let (read_only, innodb_read_only, max_connections, version) = answer.ok_or(ControlError::NoRow)?;
        understand(&read_only, &innodb_read_only, &max_connections, &version)
    }
}

impl Drop for MySqlBorrowed {
    fn drop(&mut self) {
        if let Some(unanswered) = self.0.take() {
            drop(Object::take(unanswered));
        }
    }
}

fn understand(
    read_only: &str,
    innodb_read_only: &str,
    max_connections: &str,
    version: &str,
) -> Result<Finding, ProbeError> {
    let is_on = |name: &'static str, value: &str| match value {
        "1" | "ON" => Ok(true),
        "0" | "OFF" => Ok(false),
        other => Err(ProbeError::Answer(name, Some(other.to_owned()))),
    };
    let is_replica = is_on("read_only", read_only)? || is_on("innodb_read_only", innodb_read_only)?;
    let unclear = |name: &'static str, value: &str| ProbeError::Answer(name, Some(value.to_owned()));
    let max_connections = max_connections.parse().map_err(|_| unclear("max_connections", max_connections))?;
    let number = number(version).ok_or_else(|| unclear("version", version))?;
    // As MariaDB's own greeting has it before version 11, for old replicas.
    let is_old_mariadb = version.contains("MariaDB") && number < 110_000;
    let text = if is_old_mariadb { format!("5.5.5-{version}") } else { version.to_owned() };
    Ok(Finding {
        role: if is_replica { Role::Standby } else { Role::Writer },
        limits: Limits { max_connections, reserved: RESERVED },
        version: number,
        version_text: Some(text.into()),
    })
}

/// 90704 of "9.7.4-debian", 101119 of "10.11.19-MariaDB".
fn number(version: &str) -> Option<u32> {
    let digits = version.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
    let mut parts = digits.split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next().flatten().unwrap_or_default());
    Some(major * 10_000 + minor * 100 + patch.min(99))
}

/// Makes connections for deadpool.
struct Manager {
    options: OptsBuilder,
    user: String,
    password: Rotating,
    connect_timeout: Duration,
}

impl managed::Manager for Manager {
    type Type = Conn;
    type Error = ControlError;

    async fn create(&self) -> Result<Conn, ControlError> {
        let password = self.password.fresh(&self.user).await;
        match self.connect(password.expose()).await {
            Err(ControlError::MySql(mysql_async::Error::Server(error))) if error.code == ACCESS_DENIED => {
                // It may have been changed since it was read.
                if !self.password.renew(password.expose(), &self.user).await {
                    return Err(ControlError::MySql(error.into()));
                }
                self.connect(self.password.current().expose()).await
            }
            connected => connected,
        }
    }

    async fn recycle(&self, _: &mut Conn, _: &managed::Metrics) -> Result<(), RecycleError<ControlError>> {
        // One that has gone shows at the next question.
        Ok(())
    }
}

impl Manager {
    async fn connect(&self, password: &str) -> Result<Conn, ControlError> {
        let options = self.options.clone().pass(Some(password));
        let connected = tokio::time::timeout(self.connect_timeout, Conn::new(options)).await;
        Ok(connected.map_err(|_| ControlError::ConnectTimeout(self.connect_timeout))??)
    }
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MySql(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, expected) in [
            ("9.7.4", Some(90_704)),
            ("10.11.19-MariaDB-0+deb12u1", Some(101_119)),
            ("8.4.0-log", Some(80_400)),
            ("what", None),
            ("", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }

    #[test]
    fn answers_are_understood() {
        let finding = understand("0", "0", "151", "9.7.4").unwrap();
        assert_eq!((finding.role, finding.version, finding.limits.max_connections), (Role::Writer, 90_704, 151));
        assert_eq!(finding.version_text.as_deref(), Some("9.7.4"));
        let finding = understand("1", "0", "151", "10.11.19-MariaDB").unwrap();
        assert_eq!((finding.role, finding.version_text.as_deref()), (Role::Standby, Some("5.5.5-10.11.19-MariaDB")));
        assert_eq!(understand("0", "ON", "1", "9.7.4").unwrap().role, Role::Standby);
        for answer in [("x", "0", "1", "9.7.4"), ("0", "0", "many", "9.7.4"), ("0", "0", "1", "new")] {
            assert!(understand(answer.0, answer.1, answer.2, answer.3).is_err());
        }
    }
}
