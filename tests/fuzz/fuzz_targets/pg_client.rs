//! A client without a server connection that says anything in any pieces, and is refused now and then: no panic, never
//! more bytes taken than shown, a bounded rest, and the same answers however its bytes are cut.
#![no_main]

mod detached;
mod login;

use libfuzzer_sys::fuzz_target;
use login::{login, welcome};
use sluicegate::postgres::client::Client;
use sluicegate::protocol::Settings;

fuzz_target!(|data: &[u8]| {
    let client = |_| Client::new(&login("user", "database", Settings::default()), &welcome(1), &[]);
    detached::check(data, client);
});
