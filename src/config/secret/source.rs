//! Where a secret is read from, once more if need be: a file, or the output of a command.
//!
//! Reading blocks, for at most [`COMMAND_TIME`]. What is said about a secret that could not be had names the source's
//! kind and never what it gave, nor the command's words, which may hold a secret themselves.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::config::errors::Problem;

/// Far beyond any password or token; a larger file is the wrong file.
const SECRET_BYTES_MAX: usize = 64 * 1024;
/// A command that takes longer is ended.
const COMMAND_TIME: Duration = Duration::from_secs(10);
/// Between looks at a command that has said everything and is about to end.
const LOOK: Duration = Duration::from_millis(5);

/// What can be read again.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A file; its name looked like a path.
    File { path: PathBuf, is_named: bool },
    /// A program and its arguments.
    Command { program: String, arguments: Vec<String> },
}

impl Source {
    /// Reads the text, which may be used as it is.
    pub(super) fn read(&self) -> Result<String, Problem> {
        match self {
            Self::File { path, is_named } => read_file(path, *is_named),
            Self::Command { program, arguments } => run(program, arguments, COMMAND_TIME),
        }
        .and_then(usable)
    }
}

fn read_file(path: &Path, is_named: bool) -> Result<String, Problem> {
    let unreadable = |source: io::Error| {
        // The path is named only when it looks like one: a password put here by mistake seldom does.
        if is_named {
            Problem::Unreadable { file: path.to_owned(), source }
        } else {
            refused(&format!("the file named here can't be read: {source}"))
        }
    };
    let bytes = File::open(path).and_then(read_at_most).map_err(unreadable)?;
    text(bytes, "file")
}

/// What the command writes to its standard output; what it complains of goes to ours.
fn run(program: &str, arguments: &[String], limit: Duration) -> Result<String, Problem> {
    let deadline = Instant::now() + limit;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // A group of its own, so that what it has started can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(|error| refused(&format!("its command can't be started: {error}")))?;
    let (sender, output) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        // A thread of its own: reading can't be limited in time.
        thread::spawn(move || {
            // Nobody may be waiting any more.
            let _ = sender.send(read_at_most(stdout));
        });
    }
    let bytes = output.recv_timeout(limit);
    let ended = ends_before(&mut child, deadline);
    if !matches!(ended, Ok(Some(_))) {
        // It may have ended by itself meanwhile.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let _ = child.wait();
    }
    match (bytes, ended) {
        // Who writes that much is cut off, and may well fail of it.
        (Ok(Ok(bytes)), _) if bytes.len() > SECRET_BYTES_MAX => text(bytes, "command's output"),
        (Ok(Ok(bytes)), Ok(Some(status))) if status.success() => text(bytes, "command's output"),
        (_, Ok(Some(status))) if !status.success() => Err(refused(&format!("its command failed: {status}"))),
        (Ok(Err(error)), _) | (_, Err(error)) => Err(refused(&format!("its command's output can't be read: {error}"))),
        _ => Err(refused(&format!("its command did not end within {} s", limit.as_secs()))),
    }
}

fn ends_before(child: &mut std::process::Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        // The standard library can't wait with a limit; its output has ended, so this is a matter of moments.
        thread::sleep(LOOK);
    }
}

fn read_at_most(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(SECRET_BYTES_MAX + 1).unwrap_or(u64::MAX);
    from.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// One newline at the end is the editor's, or echo's.
fn text(mut bytes: Vec<u8>, source: &str) -> Result<String, Problem> {
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(refused(&format!("its {source} is larger than 64 KiB")));
    }
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    String::from_utf8(bytes).map_err(|_| refused(&format!("its {source} is not UTF-8 text")))
}

/// What a secret must be, wherever it is from.
pub(super) fn usable(text: String) -> Result<String, Problem> {
    if text.is_empty() {
        Err(refused("the secret is empty"))
    } else if text.contains('\0') {
        Err(refused("the secret holds a zero byte"))
    } else {
        Ok(text)
    }
}

pub(super) fn refused(reason: &str) -> Problem {
    Problem::Secret { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<String, String> {
        run("sh", &["-c".to_owned(), script.to_owned()], limit).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_command_gives_its_output_or_a_reason() {
        let long = Duration::from_secs(60);
        assert_eq!(shell("echo s3cret", long).as_deref(), Ok("s3cret"));
        assert_eq!(shell("printf 'two lines\\n\\n'", long).as_deref(), Ok("two lines\n"));
        for (script, reason) in [
            ("echo s3cret; exit 3", "failed: exit status: 3"),
            ("head -c 70000 /dev/zero", "larger than 64 KiB"),
            ("printf '\\377'", "not UTF-8"),
        ] {
            let error = shell(script, long).unwrap_err();
            assert!(error.contains(reason) && !error.contains("s3cret"), "{error}");
        }
        let error = run("/nowhere/s3cret", &[], long).unwrap_err().to_string();
        assert!(error.contains("can't be started") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let error = shell("sleep 60; true", Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("did not end within"), "{error}");
        // It has closed its output, and goes on.
        let error = shell("exec >&-; sleep 60; true", Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("did not end within"), "{error}");
    }
}
