//! Command line of Sluicegate: arguments, log, signals. Everything else is in the library.

use clap::{Parser, Subcommand};
use sluicegate::auth::{Keys, make_token};
use sluicegate::config::{Config, ConfigErrors, Secret};
use sluicegate::protocol::Fingerprint;
use sluicegate::sql::{self, Dialect};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A connection-pooling database proxy in the style of Amazon RDS Proxy.
#[derive(Parser)]
#[command(version, about, after_help = "Example: sluicegate serve --config proxy.toml")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy until SIGTERM or SIGINT (the default command).
    #[command(after_help = "Example: sluicegate serve --config /etc/sluicegate/proxy.toml\n\n\
        SIGTERM ends it: no new clients; those who are connected are let go at the end of their transaction, and after\n\
        shutdown_timeout in any case; a second SIGTERM does not wait for them. SIGHUP makes it read the configuration again: users, [iam], hostnames and\n\
        certificates are exchanged; clients who are connected stay.")]
    Serve {
        /// The configuration.
        #[arg(long, default_value = "proxy.toml", value_name = "FILE")]
        config: PathBuf,
    },
    /// Read the configuration, connect to every target, say what is wrong. Exit code 0 or 1.
    #[command(after_help = "Example: sluicegate check --config proxy.toml")]
    Check {
        /// The configuration.
        #[arg(long, default_value = "proxy.toml", value_name = "FILE")]
        config: PathBuf,
    },
    /// Print a token to log in with, good for 15 minutes. Keys from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from a
    /// configuration's identities.
    #[command(
        after_help = "Example:\n  export PGPASSWORD=\"$(sluicegate token --host localhost --port 6432 --user app \\\n    \
        --region eu-central-1 --access-key-id AKIAEXAMPLE --config proxy.toml)\"\n  \
        psql \"host=localhost port=6432 user=app dbname=app sslmode=require\"\n\n\
        HOST and PORT must be what clients connect to, as in the endpoint's `hostnames`. With AWS_SESSION_TOKEN set, it\n\
        becomes part of the token."
    )]
    Token {
        /// The host that clients connect to.
        #[arg(long)]
        host: String,
        /// The port that clients connect to.
        #[arg(long)]
        port: u16,
        /// The user who logs in.
        #[arg(long)]
        user: String,
        /// `region` of the proxy's [iam].
        #[arg(long)]
        region: String,
        /// Take this key's secret from the identities of --config.
        #[arg(long, value_name = "ID", requires = "config")]
        access_key_id: Option<String>,
        /// The configuration whose [iam] names the identities.
        #[arg(long, value_name = "FILE", requires = "access_key_id")]
        config: Option<PathBuf>,
    },
    /// Print the fingerprints of SQL texts on standard input, to find a statement whose pin the log tells of.
    #[command(
        after_help = "Example:\n  psql -At0 -c 'SELECT query FROM pg_stat_statements' | sluicegate fingerprint | grep 766888454a93d044\n\n\
        A zero byte stands between two texts (psql's -0). A line for each: the fingerprint, and the text on one line. Texts\n\
        have the same fingerprint if they differ in values, blanks, comments and the case of words without quotes alone."
    )]
    Fingerprint,
    /// A guided tour: a throwaway PostgreSQL, the proxy in front of it, and real clients.
    #[command(after_help = "Example: sluicegate demo --once\n\n\
        Starts a PostgreSQL of its own in a temporary folder and the proxy with 10 database connections in front of it,\n\
        then logs in over TLS, runs 500 clients at once, a transaction, \\copy and more, and says what came out. After the\n\
        tour it stays up for clients of yours until Ctrl-C; with --once it ends, with exit code 1 if a step failed.\n\
        Everything it started is stopped and removed at the end. `make provision` installs the PostgreSQL it needs.")]
    Demo {
        /// End after the tour instead of staying up.
        #[arg(long)]
        once: bool,
    },
}

fn main() -> ExitCode {
    let command = Arguments::parse().command.unwrap_or(Command::Serve { config: PathBuf::from("proxy.toml") });
    let result = match command {
        Command::Serve { config } => serve(&config),
        Command::Check { config } => check(&config),
        Command::Token { host, port, user, region, access_key_id, config } => {
            token(&host, port, &user, &region, access_key_id.zip(config))
        }
        Command::Fingerprint => fingerprints(),
        Command::Demo { once } => sluicegate::demo::run(once).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluicegate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(file)?;
    sluicegate::logging::start(&config.log)?;
    let (mut signals, mut hangups) = (None, None);
    Ok(sluicegate::run(
        config,
        async || terminated(&mut signals).await,
        async || read_again(&mut hangups, file).await,
        |_| {},
    )?)
}

/// SIGHUP, and then the configuration as it is now.
async fn read_again(hangups: &mut Option<Signal>, file: &Path) -> Result<Config, ConfigErrors> {
    if hangups.is_none() {
        *hangups = signal(SignalKind::hangup()).ok();
    }
    // Without a handler the signal ends the process itself.
    let Some(hangups) = hangups else { return std::future::pending().await };
    loop {
        let _ = hangups.recv().await;
        let file = file.to_owned();
        // Off this thread: a secret's command may take its time.
        if let Ok(read) = tokio::task::spawn_blocking(move || Config::load(&file)).await {
            return read;
        }
    }
}

/// SIGTERM or SIGINT; once it has come, the next one.
async fn terminated(signals: &mut Option<(Signal, Signal)>) {
    if signals.is_none() {
        *signals = signal(SignalKind::terminate()).ok().zip(signal(SignalKind::interrupt()).ok());
    }
    // Without handlers the signals end the process themselves.
    let Some((terminate, interrupt)) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn token(
    host: &str,
    port: u16,
    user: &str,
    region: &str,
    from: Option<(String, PathBuf)>,
) -> Result<(), Box<dyn std::error::Error>> {
    let keys = match from {
        Some((id, file)) => {
            let identities = Config::load(&file)?.iam.map(|iam| iam.identities).unwrap_or_default();
            let known = identities.into_iter().find(|identity| identity.access_key_id == id);
            let known = known
                .ok_or_else(|| format!("there is no access key {id:?} in the identities of {}", file.display()))?;
            Keys {
                access_key_id: known.access_key_id,
                secret_access_key: known.secret_access_key,
                session_token: known.session_token,
            }
        }
        None => {
            let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
            let needed =
                |name| variable(name).ok_or_else(|| format!("{name} is not set; or give --access-key-id and --config"));
            Keys {
                access_key_id: needed("AWS_ACCESS_KEY_ID")?,
                secret_access_key: Secret::new(needed("AWS_SECRET_ACCESS_KEY")?),
                session_token: variable("AWS_SESSION_TOKEN").map(Secret::new),
            }
        }
    };
    let token = make_token(&keys, host, port, user, region, SystemTime::now())
        .ok_or("no token can be made of these: is the host a name, and the user not too long?")?;
    Ok(writeln!(std::io::stdout().lock(), "{token}")?)
}

fn fingerprints() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    for text in std::io::stdin().lock().split(0) {
        let text = text?;
        let fingerprint = Fingerprint(sql::fingerprint(&text, Dialect::default()));
        let text = String::from_utf8_lossy(&text);
        let words: Vec<&str> = text.split_whitespace().collect();
        if !words.is_empty() {
            writeln!(out, "{fingerprint} {}", words.join(" "))?;
        }
    }
    Ok(())
}

fn check(config: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(config)?;
    let report = |good: bool, line: String| {
        let mut out = std::io::stdout().lock();
        // The exit code says it too, if nobody reads this.
        let _ = writeln!(out, "{} {line}", if good { "ok  " } else { "FAIL" });
    };
    Ok(sluicegate::check(&config, report)?)
}
