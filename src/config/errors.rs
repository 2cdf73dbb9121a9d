//! What can be wrong with a configuration file, and how it is said.
//!
//! All mistakes are collected and reported together, in the order of the file. A message holds the line, the key's
//! full path, what was found and what is allowed; never a secret, nor anything that stands where a secret belongs.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Everything that is wrong with one file; never empty.
#[derive(Debug)]
pub struct ConfigErrors {
    /// The file's name as it was given.
    pub origin: String,
    /// The mistakes, by line.
    pub errors: Vec<ConfigError>,
}

/// One mistake.
#[derive(Debug)]
pub struct ConfigError {
    /// The line, from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// The key's full path, like `endpoint[0].listen`; lists count from 0. Empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a key.
#[derive(Debug)]
pub enum Problem {
    /// The file can't be read as TOML.
    Syntax {
        /// What the parser says.
        detail: String,
    },
    /// No such key here.
    UnknownKey {
        /// The known key it looks like.
        nearest: Option<String>,
        /// All keys known here.
        known: Vec<&'static str>,
    },
    /// A value of another type is asked for.
    WrongType {
        /// The value.
        found: String,
        /// What may stand here.
        allowed: String,
    },
    /// The type is right and the value can't be.
    Impossible {
        /// The value.
        found: String,
        /// What may stand here.
        allowed: String,
        /// The allowed word it looks like.
        nearest: Option<String>,
    },
    /// A required key is not there.
    Missing {
        /// What may stand here.
        allowed: String,
    },
    /// A key or value that a later version understands.
    NotYet {
        /// The value, when the key itself is available.
        found: Option<String>,
        /// What is available instead.
        note: Option<String>,
    },
    /// The value contradicts another part of the file.
    Conflict {
        /// With what, and what to do.
        reason: String,
    },
    /// A file that is named here, or the configuration itself, can't be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mistake in a file that is named here.
    InFile {
        /// The file.
        file: PathBuf,
        /// What is wrong in it, and where.
        error: Box<ConfigError>,
    },
    /// A secret could not be had, or is of no use.
    Secret {
        /// Why; without the secret.
        reason: String,
    },
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.origin)?;
            if error.line > 0 {
                write!(f, ":{}", error.line)?;
            }
            write!(f, ": {error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        self.problem.fmt(f)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { detail } => write!(f, "not valid TOML: {detail}"),
            Self::UnknownKey { nearest, known } => {
                f.write_str("unknown key")?;
                if let Some(word) = nearest {
                    write!(f, ", did you mean `{word}`?")?;
                }
                write!(f, " (known here: {})", known.join(", "))
            }
            Self::WrongType { found, allowed } => write!(f, "found {found}, allowed: {allowed}"),
            Self::Impossible { found, allowed, nearest } => {
                write!(f, "found {found}, allowed: {allowed}")?;
                match nearest {
                    Some(word) => write!(f, "; did you mean \"{word}\"?"),
                    None => Ok(()),
                }
            }
            Self::Missing { allowed } => write!(f, "is missing, needed: {allowed}"),
            Self::NotYet { found, note } => {
                if let Some(found) = found {
                    write!(f, "{found} is ")?;
                }
                f.write_str("not available yet in this version")?;
                match note {
                    Some(note) => write!(f, ": {note}"),
                    None => Ok(()),
                }
            }
            Self::Conflict { reason } | Self::Secret { reason } => f.write_str(reason),
            Self::InFile { file, error } => write!(f, "{}:{}: {error}", file.display(), error.line),
            Self::Unreadable { file, source } => {
                write!(f, "can't read {}: {source}", file.display())
            }
        }
    }
}
