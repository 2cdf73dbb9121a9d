//! A client without a server connection, of either protocol: its input is a byte that says how long the pieces are, one that says
//! how often it is refused, and what it says.

use sluicegate::protocol::{ClientError, ClientSide, Detached, Violation};

/// What is read whole is no longer than this.
const TAIL_BYTES_MAX: usize = (1 << 20) + (32 << 10);

/// Plays an input at once and in pieces, to the same end. The first byte may make another client as well.
pub fn check<C: ClientSide>(data: &[u8], client: impl Fn(u8) -> C) {
    let Some((&[cut, refusals], input)) = data.split_first_chunk() else {
        return;
    };
    let at_once = play(client(cut), refusals, &[input]);
    let pieces: Vec<&[u8]> = input.chunks(usize::from(cut).max(1)).collect();
    assert_eq!(at_once, play(client(cut), refusals, &pieces));
}

fn play(mut client: impl ClientSide, mut refusals: u8, pieces: &[&[u8]]) -> (Vec<u8>, Result<bool, Violation>) {
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
