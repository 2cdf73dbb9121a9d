//! A transaction of a client's that is none of a server's any more, as servers of this kind know no failed ones: the proxy has rolled it
//! back, or it was lost with its connection.
//!
//! Until the client has ended it nothing reaches a server that would run outside of it: the first request gets the reason, what
//! follows is told that the transaction is gone. A COMMIT is told as well, as it has committed nothing; a ROLLBACK is as good as ever.

use super::message::{self, command};
use crate::protocol::ClientError;
use crate::sql::mysql::{self as sql, Command, End};

/// What the client knows of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Failed {
    /// There is none.
    #[default]
    No,
    /// The client has not been told this.
    Untold(ClientError),
    /// The client has been told.
    Told,
}

/// What becomes of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// What becomes of any.
    Passes,
    /// It ends the transaction, and does nothing else: a server has nothing to add.
    Ends,
    /// It is told this in place of an answer.
    Fails(ClientError),
}

impl Failed {
    /// A command of the client's.
    pub(super) fn next(&mut self, command: u8, body: &[u8]) -> Next {
        if *self == Self::No {
            return Next::Passes;
        }
        let ends = match command {
            command::QUIT | command::PING | command::STATISTICS => return Next::Passes,
            command::STMT_CLOSE | command::STMT_SEND_LONG_DATA | command::STMT_RESET => return Next::Passes,
            command::RESET_CONNECTION | command::CHANGE_USER => {
                *self = Self::No;
                return Next::Passes;
            }
            command::QUERY => sql::command(body),
            _ => Command::Other,
        };
        let next = if matches!(ends, Command::Commit(_) | Command::Rollback(_)) { Self::No } else { Self::Told };
        match (std::mem::replace(self, next), ends) {
            (_, Command::Rollback(End { chain: false, release: false })) => Next::Ends,
            (_, Command::Rollback(_)) => Next::Passes,
            (Self::Untold(why), _) => Next::Fails(why),
            // What is gone with the transaction, in the server's own words.
            (_, Command::RollbackTo) => {
                Next::Fails(message::as_server(1305, "42000", "SAVEPOINT does not exist".to_owned()))
            }
            _ => Next::Fails(ClientError::TransactionRefused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mut failed: Failed, table: &[(&str, Next)]) {
        for (sql, next) in table {
            assert_eq!(failed.next(command::QUERY, sql.as_bytes()), *next, "{sql}");
        }
        assert_eq!(failed, Failed::No);
    }

    const fn refused() -> Next {
        Next::Fails(ClientError::TransactionRefused)
    }

    #[test]
    fn nothing_runs_until_it_has_been_ended() {
        let lost = || Next::Fails(ClientError::TransactionLost);
        let untold = || Failed::Untold(ClientError::TransactionLost);
        check(
            untold(),
            &[
                ("SELECT 1", lost()),
                ("BEGIN", refused()),
                ("XA START 'x'", refused()),
                ("/* so */ rollback;", Next::Ends),
            ],
        );
        check(untold(), &[("COMMIT", lost()), ("SELECT 1", Next::Passes)]);
        check(untold(), &[("ROLLBACK", Next::Ends), ("COMMIT", Next::Passes)]);
        check(Failed::Told, &[("COMMIT AND CHAIN", refused()), ("SELECT 1", Next::Passes)]);
        // The next transaction is the server's to begin.
        check(Failed::Told, &[("ROLLBACK AND CHAIN", Next::Passes)]);
        check(Failed::Told, &[("ROLLBACK; INSERT INTO t VALUES (1)", refused()), ("ROLLBACK", Next::Ends)]);
        check(Failed::Told, &[("/*!99999 ROLLBACK */", refused()), ("ROLLBACK WORK", Next::Ends)]);
    }

    #[test]
    fn its_savepoints_are_gone() {
        let mut failed = Failed::Told;
        let Next::Fails(ClientError::Server(error)) = failed.next(command::QUERY, b"ROLLBACK TO SAVEPOINT a") else {
            unreachable!("a server's error")
        };
        assert_eq!((error.code.as_str(), failed), ("1305", Failed::Told));
    }

    #[test]
    fn what_concerns_no_transaction_is_done_as_ever() {
        let mut failed = Failed::Untold(ClientError::TransactionLost);
        for command in [command::QUIT, command::PING, command::STATISTICS, command::STMT_CLOSE, command::STMT_RESET] {
            assert_eq!(failed.next(command, b""), Next::Passes);
        }
        assert_eq!(failed.next(command::STMT_EXECUTE, b"\x01\0\0\0"), Next::Fails(ClientError::TransactionLost));
        assert_eq!(failed.next(command::STMT_PREPARE, b"ROLLBACK"), refused());
        assert_eq!(failed.next(command::RESET_CONNECTION, b""), Next::Passes);
        assert_eq!(failed, Failed::No);
    }
}
