//! A MySQL client without a server connection that says anything in any pieces, and is refused now and then: no panic, never
//! more bytes taken than shown, a bounded rest, and the same answers however its bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mysql_common::constants::CapabilityFlags;
use sluicegate::mysql::accept::Started;
use sluicegate::mysql::capabilities::Extended;
use sluicegate::mysql::client::Client;
use sluicegate::protocol::{
    CancelKey, ClientError, ClientSide, Detached, Login, Parameters, Settings, Violation, Welcome,
};
use std::sync::Arc;

/// Texts that are read whole are no longer than this.
const TAIL_BYTES_MAX: usize = (1 << 20) + (32 << 10);

fuzz_target!(|data: &[u8]| {
    let Some((&[cut, refusals], input)) = data.split_first_chunk() else {
        return;
    };
    let attributes = if cut & 1 == 0 { CapabilityFlags::empty() } else { CapabilityFlags::CLIENT_QUERY_ATTRIBUTES };
    let at_once = play(refusals, attributes, &[input]);
    let pieces: Vec<&[u8]> = input.chunks(usize::from(cut).max(1)).collect();
    assert_eq!(at_once, play(refusals, attributes, &pieces));
});

fn play(mut refusals: u8, attributes: CapabilityFlags, pieces: &[&[u8]]) -> (Vec<u8>, Result<bool, Violation>) {
    let mut client = Client::new(&Started {
        login: Login {
            user: "user".into(),
            database: "database".into(),
            baseline: Arc::new(Settings::new([("names", "45")])),
            fixed: Vec::new(),
            keys: None,
        },
        welcome: Welcome {
            parameters: Arc::new(Parameters::new()),
            cancel_key: CancelKey { process_id: 1, secret: Box::default() },
            client_id: 1,
            statement_key: [0; 16],
        },
        capabilities: CapabilityFlags::CLIENT_SESSION_TRACK | attributes,
        extended: Extended::empty(),
        application: String::new(),
        compression: None,
    });
    let (mut input, mut out) = (Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let (taken, verdict) = match client.detached(&input, &mut out) {
                Ok(verdict) => verdict,
                Err(violation) => return (out, Err(violation)),
            };
            assert!(taken <= input.len());
            input.drain(..taken);
            match verdict {
                Detached::NeedInput => break,
                Detached::Ended => return (out, Ok(true)),
                // A server connection would take over: the end, unless there is none to be had.
                Detached::NeedServer(_) if refusals == 0 => return (out, Ok(false)),
                Detached::NeedServer(_) => {
                    refusals -= 1;
                    client.refuse(&ClientError::OutcomeUnknown, &mut out);
                }
            }
        }
        assert!(input.len() <= TAIL_BYTES_MAX);
    }
    (out, Ok(client.has_ended()))
}
