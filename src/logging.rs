//! Sets up the log: lines for people or for machines, on stderr or in a file.
//!
//! Once per process, by `main` or the demo; nothing else here is global. The level is a filter that the configuration has checked.

use std::fmt::{Debug, Write};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::sync::Mutex;

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Why the log can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("`level` in [log] is not a filter: {0}")]
    Filter(#[from] ParseError),
    /// The process has a log already.
    #[error("the log is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts to log.
pub fn start(config: &LogConfig) -> Result<(), LogError> {
    let filtered = tracing_subscriber::registry().with(filter(&config.level)?);
    match config.format {
        LogFormat::Text => {
            let lines = fmt::layer().fmt_fields(fields()).with_ansi(io::stderr().is_terminal());
            filtered.with(lines.with_writer(io::stderr)).try_init()?;
        }
        LogFormat::Json => filtered.with(fmt::layer().json().with_writer(io::stderr)).try_init()?,
    }
    Ok(())
}

/// Starts to log into a file, for people.
pub fn start_in(file: File, level: &str) -> Result<(), LogError> {
    let lines = fmt::layer().fmt_fields(fields()).with_ansi(false).with_writer(Mutex::new(file));
    Ok(tracing_subscriber::registry().with(filter(level)?).with(lines).try_init()?)
}

/// By level and module alone: what looks at spans as well would do so each time that a session is woken.
fn filter(level: &str) -> Result<Targets, ParseError> {
    level.parse()
}

/// How a field is written in text: on one line, whatever a client has put into its user name.
fn fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        if field.name() != "message" {
            write!(writer, "{}=", field.name())?;
        }
        write!(Plain(writer), "{value:?}")
    })
    .delimited(" ")
}

/// Writes control characters as escapes.
struct Plain<'a, 'writer>(&'a mut Writer<'writer>);

impl Write for Plain<'_, '_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let plain = part.trim_end_matches(char::is_control);
            write!(self.0, "{plain}{}", part[plain.len()..].escape_debug())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_bad_filter_and_a_second_log_are_errors() {
        let config = |level: &str| LogConfig { format: LogFormat::Json, level: level.to_owned() };
        assert!(matches!(start(&config("sluicegate=loud")), Err(LogError::Filter(_))));
        start(&config("off")).unwrap();
        assert!(matches!(start(&config("info,sluicegate::pool=debug")), Err(LogError::Twice(_))));
    }

    #[test]
    fn levels_of_modules() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&lines);
        let layer = fmt::layer().with_writer(move || Lines(Arc::clone(&copy)));
        let log = tracing_subscriber::registry().with(filter("warn,sluicegate::pool=debug").unwrap()).with(layer);
        tracing::subscriber::with_default(log, || {
            tracing::debug!(target: "sluicegate::pool::line", "one");
            tracing::trace!(target: "sluicegate::pool", "no");
            tracing::info!(target: "sluicegate::session", "no");
            tracing::warn!(target: "sluicegate::session", "two");
        });
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert!(text.contains("one") && text.contains("two") && text.lines().count() == 2, "{text}");
    }

    #[test]
    fn one_event_is_one_line() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&lines);
        let writer = move || Lines(Arc::clone(&copy));
        let log = tracing_subscriber::fmt().fmt_fields(fields()).with_ansi(false).with_writer(writer).finish();
        tracing::subscriber::with_default(log, || {
            let name = "a\nINFO forged \u{1b}[31m\u{85}";
            let _span = tracing::info_span!("client", user = name, id = 1).entered();
            tracing::info!(error = %name, count = 2, "refused: {name}");
        });
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        assert!(text.contains(r"refused: a\nINFO forged") && text.contains("count=2"), "{text}");
    }

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
