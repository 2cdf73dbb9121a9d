//! Any bytes where a load balancer's header must stand, in any pieces: no panic, a bounded header, not a byte taken
//! that is the client's, and the same verdict however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::net::proxy_protocol::{Missing, missing, parse};

/// The longest header that is read (version 2), in bytes.
const HEADER_BYTES_MAX: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let [piece, input @ ..] = data else { return };
    let at_once = play(input, usize::MAX);
    assert_eq!(at_once, play(input, usize::from(*piece).max(1)));
    // What comes behind a header changes nothing.
    if let (Some(taken), verdict) = &at_once {
        let more = [&input[..*taken], b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"].concat();
        assert_eq!((Some(*taken), verdict.clone()), play(&more, usize::MAX));
    }
});

/// As the reader on a socket does, with at most `piece` bytes to be had at a time: bytes taken of a header that is
/// whole, and what it says.
fn play(input: &[u8], piece: usize) -> (Option<usize>, String) {
    let mut taken = 0;
    loop {
        assert!(taken <= HEADER_BYTES_MAX);
        let shown = &input[taken..];
        let bytes = match missing(&input[..taken]) {
            Ok(Missing::Nothing) => return (Some(taken), format!("{:?}", parse(&input[..taken]))),
            Ok(Missing::Bytes(bytes)) => {
                assert!(bytes > 0);
                bytes
            }
            Ok(Missing::Line { at_most }) => {
                let shown = &shown[..shown.len().min(piece).min(at_most)];
                shown.iter().position(|byte| *byte == b'\n').map_or(shown.len(), |end| end + 1)
            }
            Err(error) => return (None, error.to_string()),
        };
        let bytes = bytes.min(piece).min(shown.len());
        if bytes == 0 {
            return (None, "not whole".to_owned());
        }
        taken += bytes;
    }
}
