//! How clients vanish: the ways for a connection to end without a goodbye.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::wire::below;

/// A client that stalls does so for less than this before it goes.
const STALL_MAX_MS: usize = 120;

/// How a client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kill {
    /// TCP reset: the machine is gone, or somebody in between has had enough.
    Reset,
    /// Closed without a word, as by the kernel behind a `kill -9`.
    Close,
    /// Its writing side only; it reads until the proxy closes, which the proxy must.
    HalfClose,
    /// Neither reads nor writes for a while; then reset.
    Stall,
}

pub const KILLS: [Kill; 4] = [Kill::Reset, Kill::Close, Kill::HalfClose, Kill::Stall];

/// What a client's connection goes over.
pub trait Socket {
    fn socket(&self) -> &TcpStream;
}

impl Kill {
    /// What holds the client where it is lets go behind the end.
    pub fn carry_out(self, carrier: impl Socket, random: &mut u64, let_go: impl FnOnce()) {
        let reset = |carrier| {
            SockRef::from(Socket::socket(&carrier)).set_linger(Some(Duration::ZERO)).unwrap();
            drop(carrier);
        };
        match self {
            Self::Reset => reset(carrier),
            Self::Close => drop(carrier),
            Self::Stall => {
                thread::sleep(Duration::from_millis(below(random, STALL_MAX_MS) as u64));
                reset(carrier);
            }
            Self::HalfClose => {
                let mut socket = carrier.socket();
                // One that the proxy has closed already can't be shut down.
                let _ = socket.shutdown(Shutdown::Write);
                let_go();
                let mut buffer = vec![0; 1 << 16];
                loop {
                    match socket.read(&mut buffer) {
                        Ok(0) => return,
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                        Err(error) => panic!("half-closed, and not closed by the proxy: {error}"),
                    }
                }
            }
        }
        let_go();
    }
}
