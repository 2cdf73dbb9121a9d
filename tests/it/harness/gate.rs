//! Stands between the proxy and a database and knows cancels: it counts them, and holds them back for as long as a test
//! wants. It can also hold back what the database says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::wire::PATIENCE;

/// A packet of 16 bytes or more that asks to cancel.
const CANCEL_REQUEST: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];

/// A running gate.
pub struct Gate {
    pub address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Clone, Copy, Default)]
struct State {
    holds_cancels: bool,
    holds_replies: bool,
    /// Cancels that have come, that are here now, and the most that were here at one time.
    cancels: usize,
    here: usize,
    here_max: usize,
}

impl Gate {
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || pass(client, server, &shared));
            }
        });
        Self { address, state }
    }

    pub fn hold_cancels(&self, holds: bool) {
        self.set(|state| state.holds_cancels = holds);
    }

    pub fn hold_replies(&self, holds: bool) {
        self.set(|state| state.holds_replies = holds);
    }

    /// Cancels that have come so far, and the most of them that were on their way at one time.
    pub fn cancels(&self) -> (usize, usize) {
        let state = self.state.0.lock().unwrap();
        (state.cancels, state.here_max)
    }

    /// Waits until so many cancels have come.
    pub fn until_cancels(&self, number: usize) {
        self.until("cancels", |state| state.cancels >= number);
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.0.lock().unwrap());
        self.state.1.notify_all();
    }

    fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let state = self.state.0.lock().unwrap();
        let waited = self.state.1.wait_timeout_while(state, PATIENCE, |state| !condition(state)).unwrap();
        assert!(!waited.1.timed_out(), "waited for {what}");
    }
}

fn pass(mut client: TcpStream, server: SocketAddr, state: &Arc<(Mutex<State>, Condvar)>) {
    let mut head = [0; 8];
    let Ok(()) = client.read_exact(&mut head) else { return };
    let Ok(mut server) = TcpStream::connect(server) else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let is_cancel = head[4..] == CANCEL_REQUEST;
    if is_cancel {
        let mut now = state.0.lock().unwrap();
        now.cancels += 1;
        now.here += 1;
        now.here_max = now.here_max.max(now.here);
        state.1.notify_all();
        let _open = state.1.wait_while(now, |state| state.holds_cancels).unwrap();
    }
    let _ = server.write_all(&head);
    let (mut source, mut target) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut source, &mut target);
        let _ = target.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = server.read(&mut buffer) {
        let now = state.0.lock().unwrap();
        drop(state.1.wait_while(now, |state| state.holds_replies && !is_cancel).unwrap());
        if client.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    if is_cancel {
        state.0.lock().unwrap().here -= 1;
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// Asks this proxy, or database, to cancel; returns when it has closed the connection, which must be without a word.
pub fn cancel(address: SocketAddr, key: &[u8]) {
    assert_eq!(ask_to_cancel(address, key).read(&mut [0]).unwrap(), 0);
}

/// The same without waiting.
pub fn ask_to_cancel(address: SocketAddr, key: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(&cancel_request(key)).unwrap();
    stream
}

/// The packet, for what a BackendKeyData holds.
pub fn cancel_request(key: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + key.len()).unwrap();
    [&length.to_be_bytes()[..], &CANCEL_REQUEST, key].concat()
}
