//! A transaction that the proxy has rolled back behind its client's back, as servers of this kind know no failed ones.
//!
//! Until the client has ended it nothing reaches the server that would run outside of it: the first request gets the reason, what
//! follows is told that the transaction is gone. A COMMIT is told as well, as it has committed nothing; a ROLLBACK is as good as ever.

use super::{Client, Effect, Server};
use crate::mysql::frame::Head;
use crate::mysql::message::command;
use crate::protocol::{ClientError, ServerSide};
use crate::sql::mysql::Command;

/// What the client knows of it.
#[derive(Debug, Default)]
pub(super) enum Failed {
    #[default]
    No,
    /// This is rolled back as soon as what was cancelled has been answered with that reason.
    Soon,
    /// It was rolled back for this reason, which the client has not been told.
    Untold(ClientError),
    /// The client has been told.
    Told,
}

impl Failed {
    /// A transaction of the client's is open that is none of the server's any more.
    pub(super) const fn is_so(&self) -> bool {
        matches!(self, Self::Untold(_) | Self::Told)
    }
}

impl Server {
    /// Rolls back; false: something is under way, or nothing is open.
    pub(super) fn roll_back(&mut self, failed: Failed, out: &mut Vec<u8>) -> bool {
        if self.is_owing() || self.needs_client() || self.failed.is_so() || !self.in_transaction() {
            return false;
        }
        self.failed = failed;
        self.query(b"ROLLBACK", Effect::Nothing, out);
        true
    }

    /// A command within a failed transaction: what it is told in place of an answer, or nothing if it is sent.
    pub(super) fn refused_as_failed(
        &mut self,
        command: u8,
        body: &[u8],
        head: Head,
        client: &Client,
    ) -> Option<ClientError> {
        if !self.failed.is_so() {
            return None;
        }
        let ends = match command {
            command::PING | command::STATISTICS => return None,
            command::STMT_CLOSE | command::STMT_SEND_LONG_DATA | command::STMT_RESET => return None,
            command::RESET_CONNECTION | command::CHANGE_USER => Command::Rollback(Default::default()),
            command::QUERY => self.read(body, head, client).map_or(Command::Other, |statement| statement.command),
            _ => Command::Other,
        };
        let next = match ends {
            Command::Commit(_) | Command::Rollback(_) => Failed::No,
            Command::Other | Command::Empty | Command::Begin | Command::Kill { .. } | Command::Use => Failed::Told,
        };
        match (std::mem::replace(&mut self.failed, next), ends) {
            (_, Command::Rollback(_)) => None,
            (Failed::Untold(why), _) => Some(why),
            (Failed::No | Failed::Soon | Failed::Told, _) => Some(ClientError::TransactionRefused),
        }
    }
}
