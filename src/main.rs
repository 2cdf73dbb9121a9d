//! Command line of Sluicegate: arguments, log, signals. Everything else is in the library.

use clap::{Parser, Subcommand};
use sluicegate::config::Config;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
        shutdown_timeout in any case.")]
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

fn serve(config: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(config)?;
    sluicegate::logging::start(&config.log)?;
    Ok(sluicegate::run(config, terminated(), |_| {})?)
}

/// SIGTERM or SIGINT.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers the signals end the process themselves.
        _ => std::future::pending().await,
    }
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
