//! Stands between two peers, passes bytes on, and does to them what a test asks for: leaves messages out, adds some, or
//! writes them down; keeps them for later, or cuts everybody off.
//!
//! Between the proxy and a database (without TLS) it knows messages, so what it adds stands between two of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::wire::{Frame, message, read_frame};

/// A running forwarder; what is connected stays so for as long as its peers want.
pub struct Forwarder {
    pub address: SocketAddr,
    /// Towards those who connected, each with what it was sent so far.
    clients: Arc<Mutex<Vec<Arc<Mutex<Sending>>>>>,
    held: Arc<(Mutex<bool>, Condvar)>,
}

struct Sending {
    stream: TcpStream,
    recorded: Vec<u8>,
}

/// How bytes from the server are passed on.
enum Passing {
    /// As they come, and written down.
    Recording,
    /// Message by message, each as what this function makes of it.
    Frames(Box<dyn Fn(Frame) -> Vec<Frame> + Send + Sync>),
}

impl Forwarder {
    /// Writes down all that the server sends.
    pub fn recording(server: SocketAddr) -> Self {
        Self::start(server, Passing::Recording)
    }

    /// Passes on those of the server's messages that `passes` says.
    pub fn filtering(server: SocketAddr, passes: fn(&Frame) -> bool) -> Self {
        Self::changing(server, move |frame| if passes(&frame) { vec![frame] } else { Vec::new() })
    }

    /// Passes on what `change` makes of each of the server's messages.
    pub fn changing(server: SocketAddr, change: impl Fn(Frame) -> Vec<Frame> + Send + Sync + 'static) -> Self {
        Self::start(server, Passing::Frames(Box::new(change)))
    }

    fn start(server: SocketAddr, passing: Passing) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Arc<Mutex<Vec<Arc<Mutex<Sending>>>>> = Arc::default();
        let held: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let (known, holding) = (clients.clone(), held.clone());
        let passing = Arc::new(passing);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Refused by the server: dropped, which tells the client.
                let Ok(server) = TcpStream::connect(server) else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let sending = Sending { stream: client.try_clone().unwrap(), recorded: Vec::new() };
                let sending = Arc::new(Mutex::new(sending));
                known.lock().unwrap().push(sending.clone());
                let source = server.try_clone().unwrap();
                let (passing, held) = (passing.clone(), holding.clone());
                thread::spawn(move || {
                    let _ = to_client(source, &sending, &passing, &held);
                    let _ = sending.lock().unwrap().stream.shutdown(Shutdown::Both);
                });
                thread::spawn(move || {
                    let (mut client, mut server) = (client, server);
                    let _ = std::io::copy(&mut client, &mut server);
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, clients, held }
    }

    /// What the server says from here on waits, if it is passed on as it comes.
    pub fn hold(&self, holds: bool) {
        *self.held.0.lock().unwrap() = holds;
        self.held.1.notify_all();
    }

    /// Ends every connection there is; what was held back is lost.
    pub fn cut(&self) {
        for client in self.clients.lock().unwrap().drain(..) {
            let _ = client.lock().unwrap().stream.shutdown(Shutdown::Both);
        }
        self.hold(false);
    }

    /// Sends this to everybody who is connected, between two messages.
    pub fn inject(&self, bytes: &[u8]) {
        for client in self.clients.lock().unwrap().iter() {
            // Some have gone.
            let _ = client.lock().unwrap().stream.write_all(bytes);
        }
    }

    /// What each client was sent, in the order of their coming.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.clients.lock().unwrap().iter().map(|client| client.lock().unwrap().recorded.clone()).collect()
    }
}

fn to_client(
    mut source: TcpStream,
    client: &Mutex<Sending>,
    passing: &Passing,
    held: &(Mutex<bool>, Condvar),
) -> std::io::Result<()> {
    match passing {
        Passing::Frames(change) => loop {
            for frame in change(read_frame(&mut source)?) {
                client.lock().unwrap().stream.write_all(&message(frame.kind, &frame.body))?;
            }
        },
        Passing::Recording => {
            let mut buffer = vec![0; 64 << 10];
            let mut stream = client.lock().unwrap().stream.try_clone()?;
            loop {
                let length = source.read(&mut buffer)?;
                if length == 0 {
                    return Ok(());
                }
                drop(held.1.wait_while(held.0.lock().unwrap(), |held| *held).unwrap());
                client.lock().unwrap().recorded.extend_from_slice(&buffer[..length]);
                stream.write_all(&buffer[..length])?;
            }
        }
    }
}
