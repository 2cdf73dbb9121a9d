//! Sets up the log: lines for people or for machines, on stderr or in a file.
//!
//! Once per process, by `main` or the demo; nothing else here is global. The level is a filter that the configuration has checked.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Why the log can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("`level` in [log] is not a filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a log already.
    #[error("the log is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts to log.
pub fn start(config: &LogConfig) -> Result<(), LogError> {
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::try_new(&config.level)?).with_writer(io::stderr);
    match config.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).finish().try_init()?,
        LogFormat::Json => lines.json().finish().try_init()?,
    }
    Ok(())
}

/// Starts to log into a file, for people.
pub fn start_in(file: File, level: &str) -> Result<(), LogError> {
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::try_new(level)?).with_writer(Mutex::new(file));
    Ok(lines.with_ansi(false).finish().try_init()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_and_a_second_log_are_errors() {
        let config = |level: &str| LogConfig { format: LogFormat::Json, level: level.to_owned() };
        assert!(matches!(start(&config("sluicegate=loud")), Err(LogError::Filter(_))));
        start(&config("off")).unwrap();
        assert!(matches!(start(&config("info,sluicegate::pool=debug")), Err(LogError::Twice(_))));
    }
}
