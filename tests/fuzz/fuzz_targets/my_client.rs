//! A MySQL client without a server connection that says anything in any pieces, and is refused now and then: no panic, never
//! more bytes taken than shown, a bounded rest, and the same answers however its bytes are cut.
#![no_main]

mod detached;
mod login;

use libfuzzer_sys::fuzz_target;
use login::{login, welcome};
use mysql_common::constants::CapabilityFlags;
use sluicegate::mysql::accept::Started;
use sluicegate::mysql::capabilities::Extended;
use sluicegate::mysql::client::Client;
use sluicegate::protocol::Settings;

fuzz_target!(|data: &[u8]| detached::check(data, client));

fn client(control: u8) -> Client {
    let attributes = if control & 1 == 0 { CapabilityFlags::empty() } else { CapabilityFlags::CLIENT_QUERY_ATTRIBUTES };
    Client::new(&Started {
        login: login("user", "database", Settings::new([("names", "45")])),
        welcome: welcome(1),
        capabilities: CapabilityFlags::CLIENT_SESSION_TRACK | attributes,
        extended: Extended::empty(),
        application: String::new(),
        compression: None,
    })
}
