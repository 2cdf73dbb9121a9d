//! The tour's clients: psql, pgbench and mysql (or mariadb) as they are installed, tokio-postgres, mysql_async, and HTTP for
//! the admin side.
//!
//! All of them can be dropped at any time: programs are killed, connections closed.

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use super::config::SHOP;
use super::my_servers::{Flavour, ROOT, ROOT_PASSWORD};
use super::scene::{MySqlScene, Scene};
use super::servers::{APP, APP_PASSWORD, SUPERUSER, ServersError};

/// A program that takes longer than this hangs.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(120);
/// Any other answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a step can trip over.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// A program could not be run, or a socket failed.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{action} took more than {limit:?}")]
    TooSlow {
        /// What was being done.
        action: String,
        /// The limit.
        limit: Duration,
    },
    /// A client was told an error.
    #[error("{}", in_words(.0))]
    Client(#[from] tokio_postgres::Error),
    /// The same of MySQL's.
    #[error(transparent)]
    MySqlClient(#[from] mysql_async::Error),
    /// A throwaway server's program could not be run.
    #[error(transparent)]
    Servers(#[from] ServersError),
    /// What came out is not what should have.
    #[error("expected {wanted}, found: {found}")]
    Unexpected {
        /// What should have come.
        wanted: String,
        /// What came.
        found: String,
    },
}

/// tokio-postgres says no more than "db error" by itself.
fn in_words(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(error), _) => format!("{} ({})", error.message(), error.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// Goes on if that holds.
pub fn expect(holds: bool, wanted: impl Into<String>, found: impl ToString) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(Wrong::Unexpected { wanted: wanted.into(), found: found.to_string() }) }
}

/// What a program printed.
#[derive(Debug)]
pub struct Printed {
    /// It exited with 0.
    pub is_good: bool,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub errors: String,
}

impl Printed {
    /// Both, for messages.
    pub fn all(&self) -> String {
        format!("{}\n{}", self.out.trim_end(), self.errors.trim_end()).trim().to_owned()
    }
}

/// Runs psql or pgbench with the password and this input. Cancel safe: the program is killed.
pub async fn program(
    scene: &Scene,
    name: &str,
    password: &str,
    arguments: &[&str],
    input: &str,
) -> Result<Printed, Wrong> {
    let mut command = scene.server.installation().program(name);
    command.args(arguments).env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", "20");
    run(command, name, input).await
}

/// The same with any program.
async fn run(mut command: std::process::Command, name: &str, input: &str) -> Result<Printed, Wrong> {
    let doing = |source| Wrong::Io { action: format!("running {name}"), source };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    // A group of its own: Ctrl-C is for the tour, which then drops this.
    let mut child = command.kill_on_drop(true).process_group(0).spawn().map_err(doing)?;
    let finish = async move {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let limit = PROGRAM_PATIENCE;
    let finished = tokio::time::timeout(limit, finish).await;
    let output = finished.map_err(|_| Wrong::TooSlow { action: name.to_owned(), limit })?.map_err(doing)?;
    let [out, errors] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok(Printed { is_good: output.status.success(), out, errors })
}

/// psql through the proxy over TLS, with this script: no headings, no alignment.
pub async fn psql(scene: &Scene, password: &str, script: &str) -> Result<Printed, Wrong> {
    program(scene, "psql", password, &[&scene.conninfo(), "-XAtq", "-w"], script).await
}

/// MySQL's or MariaDB's command line through the proxy over TLS, everything verified, with this script.
pub async fn mysql(mysql: &MySqlScene, user: &str, password: &str, script: &str) -> Result<Printed, Wrong> {
    let installation = mysql.server.installation();
    let (mut command, (_, verifies)) = (installation.program("CLIENT")?, command_line(installation.flavour()));
    command.args(["--no-defaults", "--batch", "--skip-column-names", "--protocol=tcp", "--host=localhost"]);
    command.arg(format!("--ssl-ca={}", mysql.ca_file())).arg(verifies);
    command.args(["--user", user, "--port", &mysql.port.to_string(), APP]).env("MYSQL_PWD", password);
    run(command, "the command line", script).await
}

/// What each command line is called, and how it is told to go on with nobody but `localhost`.
pub fn command_line(flavour: Flavour) -> (&'static str, &'static str) {
    match flavour {
        Flavour::MySql => ("mysql", "--ssl-mode=VERIFY_IDENTITY"),
        Flavour::MariaDb => ("mariadb", "--ssl-verify-server-cert"),
    }
}

/// A driver's connection through MySQL's endpoint at that port, with a password.
pub async fn my_connect(port: u16) -> Result<mysql_async::Conn, Wrong> {
    let options = mysql_async::OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port).prefer_socket(false);
    my_open(options.user(Some(SHOP)).pass(Some(APP_PASSWORD))).await
}

/// The superuser's connection to the database itself: not through the proxy.
pub async fn look_at_mysql(mysql: &MySqlScene) -> Result<mysql_async::Conn, Wrong> {
    let socket = mysql.server.folder().join("socket");
    let options = mysql_async::OptsBuilder::default().socket(Some(socket.display().to_string()));
    my_open(options.user(Some(ROOT)).pass(Some(ROOT_PASSWORD))).await
}

async fn my_open(options: mysql_async::OptsBuilder) -> Result<mysql_async::Conn, Wrong> {
    // Else it would ask for both.
    let options = options.db_name(Some(APP)).max_allowed_packet(Some(1 << 20)).wait_timeout(Some(28_800));
    Ok(in_time("connecting", mysql_async::Conn::new(options)).await??)
}

/// One value of one row, as a text.
pub async fn my_ask(client: &mut mysql_async::Conn, sql: &str) -> Result<Option<String>, Wrong> {
    let row: Option<Option<String>> = in_time("a query", client.query_first(sql)).await??;
    Ok(row.flatten())
}

/// A driver's connection through the proxy, with a token of its own, over its unix socket.
pub async fn connect(scene: &Scene) -> Result<Client, Wrong> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(scene.socket_dir()).port(scene.port).user(APP).password(scene.token()).dbname(APP);
    open(&config).await
}

/// The superuser's connection to the database itself: not through the proxy.
pub async fn look_at_database(scene: &Scene) -> Result<Client, Wrong> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(scene.server.socket_dir()).port(scene.server.port()).user(SUPERUSER).dbname("postgres");
    open(&config).await
}

async fn open(config: &tokio_postgres::Config) -> Result<Client, Wrong> {
    let connected = in_time("connecting", config.connect(NoTls)).await?;
    let (client, connection) = connected?;
    // Ends with the client; an error shows in what the client asked.
    tokio::spawn(connection);
    Ok(client)
}

/// One value of one row.
pub async fn ask<T>(client: &Client, sql: &str) -> Result<T, Wrong>
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    let row = in_time("a query", client.query_one(sql, &[])).await??;
    Ok(row.try_get(0)?)
}

/// All of them at the same time, up to the first that goes wrong.
pub async fn at_once<T: Send + 'static>(
    all: impl Iterator<Item = impl Future<Output = Result<T, Wrong>> + Send + 'static>,
) -> Result<Vec<T>, Wrong> {
    let mut running: JoinSet<_> = all.collect();
    let mut results = Vec::new();
    while let Some(ended) = running.join_next().await {
        let lost = |error| Wrong::Io { action: "a client".to_owned(), source: io::Error::other(error) };
        results.push(ended.map_err(lost)??);
    }
    Ok(results)
}

/// Waits, but not for ever.
pub async fn in_time<T>(action: &str, future: impl Future<Output = T>) -> Result<T, Wrong> {
    let slow = |_| Wrong::TooSlow { action: action.to_owned(), limit: PATIENCE };
    tokio::time::timeout(PATIENCE, future).await.map_err(slow)
}

/// GET on the admin listener: the status and the body.
pub async fn get(scene: &Scene, path: &str) -> Result<(u16, String), Wrong> {
    let doing = |source| Wrong::Io { action: format!("asking for {path}"), source };
    let asking = async {
        let mut socket = TcpStream::connect(scene.admin).await?;
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        // The admin listener closes after each answer.
        socket.read_to_string(&mut answer).await.map(|_| answer)
    };
    let answer = in_time(path, asking).await?.map_err(doing)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok((status, body.to_owned()))
}

/// The proxy's metrics at one moment: a series (name and labels) and its value.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// As they are now.
    pub async fn read(scene: &Scene) -> Result<Self, Wrong> {
        let (status, text) = get(scene, "/metrics").await?;
        expect(status == 200, "the metrics", format!("status {status}"))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let series = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(series).collect())
    }

    /// The sum of all series of that name with that label (`reason="setting"`), or all of them.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let is_it = |series: &str| series.split('{').next() == Some(name) && series.contains(label);
        self.0.iter().filter(|(series, _)| is_it(series)).map(|(_, value)| value).sum()
    }

    /// Series of these names that are not 0.
    pub fn shown<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = String> + 'a {
        let of = |name: &'a &str| {
            let is_it = move |series: &&String| series.split('{').next() == Some(*name);
            self.0.iter().filter(move |(series, value)| is_it(series) && **value > 0.0)
        };
        names.iter().flat_map(of).map(|(series, value)| format!("{series} {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_by_name_and_label() {
        let metrics = Metrics::parse(
            "# HELP pins_total x 7\npins_total{a=\"1\",reason=\"x\"} 2\npins_total{a=\"2\",reason=\"x\"} 3\n\
             pins_total{a=\"2\",reason=\"y\"} 0\npins_total_more 9\nother 1\n",
        );
        assert_eq!(metrics.sum("pins_total", "reason=\"x\""), 5.0);
        assert_eq!(metrics.sum("pins_total", ""), 5.0);
        assert_eq!(metrics.sum("nothing", ""), 0.0);
        let shown: Vec<String> = metrics.shown(&["other", "pins_total"]).collect();
        let all = ["other 1", "pins_total{a=\"1\",reason=\"x\"} 2", "pins_total{a=\"2\",reason=\"x\"} 3"];
        assert_eq!(shown, all);
    }
}
