//! One exchange: client bytes to the server, server bytes to the client, with back-pressure both ways.
//!
//! One read and one write per batch and direction. What a machine passes on is written straight from the buffer it was
//! read into; only what a socket does not take is copied.

use super::worker::Scratch;
use super::{ATTEMPTS_MAX, End, FAREWELL, HIGH_WATER, Holding, Session};
use crate::config::PoolMode;
use crate::net::{Stream, packed};
use crate::pool::{Lease, ServerConn};
use crate::protocol::{ClientError, ClientSide, Loss, Out, Protocol, ServerSide, Status, Violation};
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

/// Bytes of a client's that may wait untaken: a whole frame of the longest kind that is read whole, and one read.
const TAIL_BYTES_MAX: usize = (1 << 20) + (128 << 10);
/// Slices in one vectored write.
const SLICES: usize = 16;

impl<P: Protocol> Session<P> {
    pub(super) fn turn_attached(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        let Holding::Lease(lease) = &mut self.holding else { return Ok(false) };
        let mut moved = match flush(&mut lease.connection.stream, &mut lease.connection.pending, cx) {
            Ok(moved) => moved,
            // What the server said before it closed is still to be read.
            Err(_) => {
                lease.connection.pending.clear();
                false
            }
        };
        moved |= self.read_server(cx, scratch)?;
        moved |= self.give_back(cx)?;
        if !moved && matches!(self.holding, Holding::Lease(_)) {
            moved = self.read_for_server(cx, scratch)?;
        }
        Ok(moved)
    }

    // ------------------------------------------------------------------------------------------ server to client

    fn read_server(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        if self.to_client.len() >= HIGH_WATER {
            return Ok(false);
        }
        let Holding::Lease(lease) = &mut self.holding else { return Ok(false) };
        let ServerConn { stream, machine, tail, .. } = &mut *lease.connection;
        scratch.input.start(tail);
        let read = match scratch.input.read(stream, cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(read)) => read,
            Poll::Ready(Err(_)) => 0,
        };
        if read == 0 {
            return self.server_lost().map(|()| true);
        }
        tail.clear();
        let input = scratch.input.bytes();
        scratch.out.clear();
        let taken = machine.receive(input, Some(&mut self.client), &mut scratch.out);
        let answered = self.tally.received(machine);
        while let Some(error) = machine.refused() {
            self.tally.pin_refused(&error);
        }
        self.watch.handle.note_answers(answered);
        self.counts.1.database_bytes_received.add(read as u64);
        self.counts.0.client_bytes_sent.add(scratch.out.len() as u64);
        // What was understood before a breach is the client's: it may be the end of a frame that it has the beginning of.
        let written = write(&mut self.stream, &scratch.out, input, &mut self.to_client, cx);
        let taken = match taken {
            Ok(taken) => taken,
            Err(violation) => return Err(self.server_broke(violation)),
        };
        tail.extend_from_slice(input.get(taken..).unwrap_or_default());
        if written.is_err() {
            return Err(End::ClientLost);
        }
        if let Some(error) = lease.attach_failure() {
            self.attach_failed(error)?;
        }
        self.look_again |= !self.tail.is_empty();
        Ok(true)
    }

    /// What the server said can't be understood: the connection can't be used, and the client can't be left to guess.
    fn server_broke(&mut self, violation: Violation) -> End {
        tracing::error!(%violation, "the database's reply was not understood; its connection is closed");
        let end = self.end(&ClientError::OutcomeUnknown);
        // However idle its machine takes itself to be: where its next frame begins is not known.
        self.drop_lease();
        end
    }

    /// The server's connection is at its end.
    fn server_lost(&mut self) -> Result<(), End> {
        self.client.loses_connection();
        let Holding::Lease(lease) = &mut self.holding else { return Ok(()) };
        let machine = &mut lease.connection.machine;
        let is_pinned = !self.client.pins().is_empty();
        match machine.status() {
            _ if self.said_goodbye => Err(End::Goodbye),
            // Everything the client asked for has been answered, and nothing of it was on this connection.
            _ if self.resetting => {
                self.lost_in_reset();
                Ok(())
            }
            Status::Ended if is_pinned => Err(End::ServerEnded),
            Status::Idle if is_pinned => Err(self.end(&ClientError::StateLost)),
            Status::Owing if machine.has_sent_nothing() && is_pinned => Err(self.end(&ClientError::StateLost)),
            Status::InTransaction if is_pinned && !machine.needs_client() => Err(self.end(&ClientError::StateLost)),
            Status::InTransaction | Status::Owing if is_pinned => Err(self.end(&ClientError::OutcomeUnknown)),
            Status::Owing if machine.has_sent_nothing() => {
                self.lost_unsent();
                Ok(())
            }
            Status::Idle => {
                self.drop_lease();
                self.look_again = true;
                Ok(())
            }
            status @ (Status::InTransaction | Status::Owing | Status::Ended) => self.lost_at_work(status),
        }
    }

    /// Nothing of the client's has been sent.
    fn lost_unsent(&mut self) {
        self.attempts += 1;
        self.drop_lease();
        self.look_again = true;
        if self.attempts > ATTEMPTS_MAX {
            self.refuse(&ClientError::ConnectionsLost { group: self.pools.group().to_owned() });
        }
    }

    /// The client, which is not pinned, had something under way: it goes on without that if its protocol knows how.
    fn lost_at_work(&mut self, status: Status) -> Result<(), End> {
        let Holding::Lease(lease) = &mut self.holding else { return Ok(()) };
        let machine = &mut lease.connection.machine;
        let loss = machine.lose(&mut self.client, !self.tail.is_empty(), &mut self.to_client);
        while let Some(error) = machine.refused() {
            tracing::info!(kind = error.kind().name(), %error, "a database connection was lost; its client goes on");
            self.tally.told(&error);
        }
        match loss {
            Loss::Session if status == Status::Ended => return Err(End::ServerEnded),
            Loss::Session => return Err(self.end(&ClientError::OutcomeUnknown)),
            Loss::Nothing => self.lost_unsent(),
            Loss::Work => {
                self.tally.lost();
                self.watch.handle.note_answers(1);
                self.watch.handle.note_transaction_end();
                self.attempts = 0;
                self.drop_lease();
                self.look_again = true;
            }
        }
        match self.violation {
            Some(violation) => Err(self.end(&ClientError::Protocol(violation))),
            None => Ok(()),
        }
    }

    /// The connection is gone, and nothing with it.
    pub(super) fn lost_in_reset(&mut self) {
        self.drop_lease();
        self.look_again = !self.tail.is_empty();
        self.counts.1.transactions.add(1);
    }

    /// The connection could not be given the client's settings.
    fn attach_failed(&mut self, error: ClientError) -> Result<(), End> {
        if self.resetting {
            self.lost_in_reset();
            return Ok(());
        }
        if !self.client.pins().is_empty() {
            return Err(self.end(&ClientError::StateLost));
        }
        self.drop_lease();
        self.look_again = true;
        self.attempts += 1;
        if self.attempts > 1 {
            self.refuse(&error);
        }
        Ok(())
    }

    /// Gives the connection back once it is clean and the client need not keep it.
    fn give_back(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.refuse_cancelled() || self.roll_back_overdue() {
            return Ok(true);
        }
        let Holding::Lease(lease) = &mut self.holding else { return Ok(false) };
        let connection = &mut lease.connection;
        let status = connection.machine.status();
        if status == Status::Idle {
            // What is sent next begins another one.
            self.watch.handle.note_transaction_end();
        }
        if self.look_again && !connection.machine.is_holding() && !self.resetting {
            // The connection was got for what is in the tail.
            return Ok(false);
        }
        if status == Status::Ended {
            return self.server_lost().map(|()| true);
        }
        // COPY data end with a word of the client's, which is not listened to any more: no answer comes before it.
        let is_answered = status != Status::Owing || connection.machine.awaits_client();
        if let Some(violation) = self.violation.filter(|_| is_answered) {
            return Err(self.end(&ClientError::Protocol(violation)));
        }
        // What was read ahead of a machine that holds is still to be sent.
        let is_held = connection.machine.is_holding() || self.violation.is_some();
        let gone = (self.at_end && !is_held) || self.client.has_ended();
        if gone && status == Status::Owing && connection.machine.needs_client() {
            return Ok(self.say_goodbye(cx));
        }
        if status == Status::Owing || !connection.pending.is_empty() {
            return Ok(false);
        }
        let is_in_doubt = status == Status::Idle
            && self.rules.pool_mode == PoolMode::Transaction
            && self.cancelling.is_none()
            && !self.resetting
            && !self.client.pins().and(self.client.leaves()).is_empty();
        if is_in_doubt && connection.machine.verify(&self.client, &mut connection.pending) {
            return Ok(true);
        }
        // A cancel must not hit what it sends.
        let may_probe = status == Status::InTransaction && !self.resetting && self.cancelling.is_none();
        if may_probe && connection.machine.probe(&mut connection.pending) {
            return Ok(true);
        }
        // Behind a reset it is given back first.
        if gone && !self.resetting {
            return Err(End::Goodbye);
        }
        if status != Status::Idle {
            return Ok(false);
        }
        if self.cancelling.is_some() {
            // It could still hit whoever is next.
            return Ok(false);
        }
        self.attempts = 0;
        self.client.settle_pins();
        let pins = self.client.pins();
        if self.client.asks_last_values() && !self.has_told_asking {
            self.has_told_asking = true;
            self.pools.note_asking(&self.pool.pool_key().user, self.client.application());
        }
        let told = self.tally.pinned(
            self.client.counted_pins(),
            |reason| self.client.pin_cause(reason),
            &self.watch.worker.pins_told,
        );
        self.watch.handle.note_pinned(told);
        if self.rules.pool_mode == PoolMode::Session || !pins.is_empty() {
            if self.draining {
                return Err(self.end(&ClientError::GoingDown));
            }
            return Ok(false);
        }
        let must_reset = self.pools.resets_always() || self.client.leaves().need_reset();
        if must_reset && !self.resetting {
            self.resetting = true;
            connection.machine.reset(&mut connection.pending);
            return Ok(true);
        }
        self.client.let_go();
        if let Holding::Lease(lease) = std::mem::replace(&mut self.holding, Holding::Nothing) {
            lease.release();
        }
        self.counts.1.transactions.add(1);
        if self.draining && self.tail.is_empty() {
            return Err(self.end(&ClientError::GoingDown));
        }
        self.look_again = !self.tail.is_empty();
        Ok(true)
    }

    /// What was asked for in full is still answered, as on a direct connection; then the server leaves, too.
    fn say_goodbye(&mut self, cx: &mut Context<'_>) -> bool {
        let Holding::Lease(lease) = &mut self.holding else { return false };
        let ServerConn { stream, machine, pending, .. } = &mut *lease.connection;
        let is_first = !std::mem::replace(&mut self.said_goodbye, true);
        if is_first {
            machine.terminate(pending);
        }
        // In the middle of a frame no word can be said: that the stream ends says it.
        if pending.is_empty() {
            // Where that fails, or has been done, the next read shows it.
            let _ = stream.poll_shutdown(cx);
        }
        is_first
    }

    // ------------------------------------------------------------------------------------------ client to server

    fn read_for_server(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        let Holding::Lease(lease) = &mut self.holding else { return Ok(false) };
        let connection = &lease.connection;
        // What comes during a reset is for the next connection: this one has lost the client's settings.
        if connection.machine.is_holding() || self.violation.is_some() || self.resetting {
            return self.read_held(cx, scratch);
        }
        if connection.pending.len() >= HIGH_WATER {
            return Ok(false);
        }
        // A cancel of what was answered meanwhile must not hit what comes next.
        if self.cancelling.is_some() && connection.machine.status() != Status::Owing {
            return Ok(false);
        }
        if self.look_again {
            self.look_again = false;
            scratch.input.start(&self.tail);
        } else if self.at_end || self.client.has_ended() {
            return Ok(false);
        } else if !self.read_client(cx, scratch)? {
            // Coming to the end is news.
            return Ok(self.at_end);
        }
        let input = std::mem::take(&mut scratch.input);
        let result = self.forward(cx, input.bytes(), scratch);
        scratch.input = input;
        result.map(|()| true)
    }

    /// Reads on while nothing of it can be sent: to know when the client leaves.
    fn read_held(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        if self.tail.len() >= HIGH_WATER || self.at_end || self.client.has_ended() {
            return Ok(false);
        }
        if !self.read_client(cx, scratch)? {
            return Ok(self.at_end);
        }
        // The next reply looks at it again. What stands behind a breach is for nobody.
        if self.violation.is_none() {
            let input = std::mem::take(&mut scratch.input);
            self.keep(input.bytes());
            scratch.input = input;
        }
        Ok(true)
    }

    /// Gives the client's bytes to the server's machine, and what that makes of them to the server.
    pub(super) fn forward(&mut self, cx: &mut Context<'_>, input: &[u8], scratch: &mut Scratch) -> Result<(), End> {
        let Holding::Lease(lease) = &mut self.holding else {
            self.keep(input);
            return Ok(());
        };
        let ServerConn { stream, machine, pending, .. } = &mut *lease.connection;
        scratch.out.clear();
        let taken = machine.send(input, &mut self.client, &mut scratch.out).unwrap_or_else(|violation| {
            // What stands before it is still served: the error comes in its place, and nothing behind it is read.
            self.violation = Some(violation);
            input.len()
        });
        self.tally.sent(machine);
        self.counts.1.database_bytes_sent.add(scratch.out.len() as u64);
        // An error shows in the next read, after what the server may have said.
        if write(stream, &scratch.out, input, pending, cx).is_err() {
            pending.clear();
        }
        if self.violation.is_some() {
            machine.flush(pending);
        }
        let was_full = scratch.out.is_full();
        let awaits_own = machine.status() == Status::Owing && machine.has_sent_nothing();
        if !self.cancel_due.is_empty() && !awaits_own {
            // What a client asks for that keeps its connection can't be refused: it is cancelled once it is sent.
            let askers = std::mem::take(&mut self.cancel_due);
            self.cancel(askers);
        }
        self.begin_errand();
        self.keep(input.get(taken..).unwrap_or_default());
        self.look_again |= was_full && !self.tail.is_empty();
        if self.client.logs_in_again() { Err(End::Again) } else { Ok(()) }
    }

    /// Reads on while the client waits in line: to know when it leaves.
    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        if self.tail.len() >= HIGH_WATER || self.at_end {
            return Ok(false);
        }
        if !self.read_client(cx, scratch)? {
            return if self.at_end { Err(End::ClientLost) } else { Ok(false) };
        }
        let input = std::mem::take(&mut scratch.input);
        self.keep(input.bytes());
        scratch.input = input;
        Ok(true)
    }

    /// Reads from the client, behind the tail, into the scratch buffer. False: nothing came.
    pub(super) fn read_client(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, End> {
        if self.tail.len() >= TAIL_BYTES_MAX {
            return Ok(false);
        }
        scratch.input.start(&self.tail);
        match scratch.input.read(&mut self.stream, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                self.at_end = true;
                Ok(false)
            }
            Poll::Ready(Ok(read)) => {
                self.counts.0.client_bytes_received.add(read as u64);
                self.watch.handle.note_activity();
                Ok(true)
            }
            Poll::Ready(Err(error)) => match packed::violation(&error) {
                Some(violation) => self.client_broke(violation),
                None => Err(End::ClientLost),
            },
        }
    }

    /// What the client sends can't be unpacked, and nothing of it ever will be. What it has been understood to ask for, it is still
    /// answered.
    fn client_broke(&mut self, violation: Violation) -> Result<bool, End> {
        let Holding::Lease(lease) = &mut self.holding else {
            return Err(self.end(&ClientError::Protocol(violation)));
        };
        lease.connection.machine.flush(&mut lease.connection.pending);
        self.violation.get_or_insert(violation);
        self.at_end = true;
        self.look_again = false;
        self.keep(&[]);
        Ok(false)
    }

    /// Keeps what no machine has taken.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            // An idle client owns no buffer.
            if self.tail.capacity() > 0 {
                self.tail = Vec::new();
            }
            return;
        }
        self.tail.clear();
        self.tail.extend_from_slice(rest);
    }

    pub(super) fn flush_client(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let moved = flush(&mut self.stream, &mut self.to_client, cx).map_err(|_| End::ClientLost)?;
        if moved {
            self.watch.handle.note_activity();
        }
        if self.to_client.is_empty() && self.to_client.capacity() > 0 {
            self.to_client = Vec::new();
        }
        Ok(moved)
    }
}

/// Writes what a machine made of `input`; what the socket does not take is added to `pending`.
fn write(stream: &mut Stream, out: &Out, input: &[u8], pending: &mut Vec<u8>, cx: &mut Context<'_>) -> io::Result<()> {
    let mut written = 0;
    if pending.is_empty() && !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = out.io_slices(input, &mut slices);
        match stream.poll_write(cx, slices.get(..filled).unwrap_or_default()) {
            Poll::Ready(taken) => written = taken?,
            Poll::Pending => {}
        }
    }
    if written < out.len() {
        out.copy_to(input, written, pending);
        flush(stream, pending, cx)?;
    } else if stream.wants_flush() {
        let _ = stream.poll_flush(cx)?;
    }
    Ok(())
}

/// Writes what is pending, as far as the socket takes it; true if it took any.
fn flush(stream: &mut Stream, pending: &mut Vec<u8>, cx: &mut Context<'_>) -> io::Result<bool> {
    let mut written = 0;
    while let Some(rest) = pending.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.poll_write(cx, &[IoSlice::new(rest)]) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(taken) => written += taken?,
            Poll::Pending => break,
        }
    }
    pending.drain(..written);
    if stream.wants_flush()
        && let Poll::Ready(flushed) = stream.poll_flush(cx)
    {
        flushed?;
    }
    Ok(written > 0)
}

/// Resets a connection behind its last client and gives it back; closes it if that can't be done in time.
pub(super) async fn clean<P: Protocol>(mut lease: Lease<P>) {
    let ServerConn { machine, pending, .. } = &mut *lease.connection;
    machine.reset(pending);
    let settled = tokio::time::timeout(FAREWELL, lease.connection.settle()).await;
    if matches!(settled, Ok(Ok(()))) && lease.attach_failure().is_none() {
        lease.release();
    } else {
        lease.discard();
    }
}
