//! A MySQL client that sends any frames, compressed or not, in any pieces, and is told anything: no panic, never more bytes taken than
//! shown or made than there is room for, everything taken that there is room for, and the same packets however the bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::mysql::compress::{Algorithm, Compression};
use sluicegate::protocol::{Codec, Violation};
use std::io::IoSlice;

fuzz_target!(|data: &[u8]| {
    let Some((&[algorithm, cut, room, told], input)) = data.split_first_chunk() else {
        return;
    };
    let algorithm = if algorithm == 0 { Algorithm::Zlib } else { Algorithm::Zstd(algorithm) };
    let at_once = play(algorithm, 1 << 16, &[input]);
    let pieces: Vec<&[u8]> = input.chunks(usize::from(cut).max(1)).collect();
    let in_pieces = play(algorithm, usize::from(room) + 1, &pieces);
    // How much of a frame that is broken comes out before that shows is another matter.
    if at_once.1.is_none() {
        assert_eq!(at_once, in_pieces);
    } else {
        let len = at_once.0.len().min(in_pieces.0.len());
        assert!(at_once.0[..len] == in_pieces.0[..len]);
    }

    let mut codec = Compression::new(algorithm);
    let (mut wire, mut rest) = (Vec::new(), input);
    while !rest.is_empty() {
        let (first, second) = rest.split_at(usize::from(told).min(rest.len()));
        let taken = codec.pack(&[IoSlice::new(first), IoSlice::new(second)], &mut wire);
        assert!(taken > 0 && taken <= rest.len());
        rest = &rest[taken..];
    }
    assert!(wire.len() <= input.len() * 8);
});

/// What comes out, up to 1 MiB of it, and how it ends.
fn play(algorithm: Algorithm, room: usize, pieces: &[&[u8]]) -> (Vec<u8>, Option<Violation>) {
    let mut codec = Compression::new(algorithm);
    let (mut made, mut plain) = (Vec::new(), vec![0; room]);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (taken, more) = match codec.unpack(rest, &mut plain) {
                Ok(unpacked) => unpacked,
                Err(violation) => return (made, Some(violation)),
            };
            assert!(taken <= rest.len() && more <= room);
            rest = &rest[taken..];
            made.extend_from_slice(&plain[..more]);
            if made.len() > 1 << 20 {
                made.truncate(1 << 20);
                return (made, None);
            }
            if more == 0 {
                assert!(rest.is_empty());
                break;
            }
        }
    }
    (made, None)
}
