//! Frames of any packets, and any bytes. The other end is written anew here, with the whole of everything in memory.

use super::*;
use crate::mysql::frame::{self, Head};
use flate2::read::{ZlibDecoder, ZlibEncoder};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::io::Read;

const ZLIB: Algorithm = Algorithm::Zlib;
const ZSTD: Algorithm = Algorithm::Zstd(3);

fn squeezed(algorithm: Algorithm, plain: &[u8]) -> Vec<u8> {
    match algorithm {
        Algorithm::Zlib => {
            let mut made = Vec::new();
            ZlibEncoder::new(plain, flate2::Compression::default()).read_to_end(&mut made).unwrap();
            made
        }
        Algorithm::Zstd(level) => zstd::bulk::compress(plain, level.into()).unwrap(),
    }
}

/// A frame, as it is told.
fn frame_of(number: u8, payload: &[u8], plain_len: usize) -> Vec<u8> {
    let bytes = |len: usize| u32::try_from(len).unwrap().to_le_bytes();
    [&bytes(payload.len())[..3], &[number], &bytes(plain_len)[..3], payload].concat()
}

fn squeezed_frame(algorithm: Algorithm, number: u8, plain: &[u8]) -> Vec<u8> {
    frame_of(number, &squeezed(algorithm, plain), plain.len())
}

/// The frames at the other end: their numbers, and what is in them.
fn frames(algorithm: Algorithm, mut wire: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [a, b, c, number, d, e, f, rest @ ..] = wire {
        let (payload, behind) = rest.split_at(u32::from_le_bytes([*a, *b, *c, 0]) as usize);
        let plain_len = u32::from_le_bytes([*d, *e, *f, 0]) as usize;
        let mut plain = Vec::new();
        match algorithm {
            _ if plain_len == 0 => plain.extend_from_slice(payload),
            Algorithm::Zlib => _ = ZlibDecoder::new(payload).read_to_end(&mut plain).unwrap(),
            Algorithm::Zstd(_) => plain = zstd::bulk::decompress(payload, plain_len).unwrap(),
        }
        assert!(plain_len == 0 || plain.len() == plain_len);
        // Short ones are not compressed, and none is longer for it.
        assert!(plain_len == 0 || plain_len >= SQUEEZED_BYTES_MIN && payload.len() < plain_len);
        found.push((*number, plain));
        wire = behind;
    }
    assert!(wire.is_empty());
    found
}

/// Packets whose numbers begin with this one.
fn packets(first: u8, payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sequence = first;
    for payload in payloads {
        frame::put_head(&mut out, Head { len: payload.len(), sequence });
        out.extend_from_slice(payload);
        sequence = sequence.wrapping_add(1);
    }
    out
}

/// Unpacks everything: in pieces of the wire of these lengths, into buffers of that one.
fn unpacked(codec: &mut Compression, wire: &[u8], cuts: &[usize], room: usize) -> Result<Vec<u8>, Violation> {
    let (mut at, mut cuts, mut made) = (0, cuts.iter().cycle(), Vec::new());
    while at < wire.len() {
        let end = (at + cuts.next().unwrap()).min(wire.len());
        loop {
            let mut plain = vec![0; room];
            let (taken, more) = codec.unpack(&wire[at..end], &mut plain)?;
            at += taken;
            made.extend_from_slice(&plain[..more]);
            if more == 0 {
                assert_eq!(at, end, "it takes everything");
                break;
            }
        }
    }
    Ok(made)
}

fn packed(codec: &mut Compression, mut plain: &[u8], wire: &mut Vec<u8>) {
    while !plain.is_empty() {
        let taken = codec.pack(&[IoSlice::new(plain)], wire);
        assert!(taken > 0);
        plain = &plain[taken..];
    }
}

/// A command in one frame.
fn asks(codec: &mut Compression) {
    let command = packets(0, &[b"\x03SELECT 1".to_vec()]);
    let wire = frame_of(0, &command, 0);
    assert_eq!(unpacked(codec, &wire, &[100], 100), Ok(command));
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop_oneof![Just(ZLIB), Just(ZSTD), (0..=255u8).prop_map(Algorithm::Zstd)]
}

/// Some that can be compressed, and some that can't.
fn payloads(count: usize, len: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let same = (any::<u8>(), 0..len).prop_map(|(byte, len)| vec![byte; len]);
    vec(prop_oneof![vec(any::<u8>(), 0..200), same], 1..count)
}

proptest! {
    /// Whatever a client says comes out, wherever it is cut into frames and the frames into reads.
    #[test]
    fn requests_come_back(
        algorithm in algorithms(), payloads in payloads(12, 100_000), frames in vec(1..60_000usize, 1..20),
        stored in vec(any::<bool>(), 1..5), cuts in vec(1..20_000usize, 1..5), room in 1..70_000usize,
    ) {
        let algorithm = if let Algorithm::Zstd(level) = algorithm { Algorithm::Zstd(level % 9 + 1) } else { algorithm };
        let plain = packets(0, &payloads);
        let (mut wire, mut rest, mut number) = (Vec::new(), &plain[..], 0u8);
        for (len, stored) in frames.iter().cycle().zip(stored.iter().cycle()) {
            let (part, behind) = rest.split_at((*len).min(rest.len()));
            wire.extend(if *stored { frame_of(number, part, 0) } else { squeezed_frame(algorithm, number, part) });
            (rest, number) = (behind, number.wrapping_add(1));
            if rest.is_empty() {
                break;
            }
        }
        let mut codec = Compression::new(algorithm);
        // A byte at a time is slow, and no other than two.
        let room = if plain.len() > 10_000 { room.max(1_000) } else { room };
        prop_assert!(unpacked(&mut codec, &wire, &cuts, room) == Ok(plain));
        prop_assert!(matches!(codec.unpacking, Unpacking::Head(_, 0)), "something is held");
    }

    /// Whatever a client is told reaches it, and each reply's frames are counted on from its command's.
    #[test]
    fn replies_come_back(algorithm in algorithms(), replies in vec(payloads(10, 100_000), 1..5), slices in vec(4..3_000usize, 1..5)) {
        let mut codec = Compression::new(algorithm);
        for payloads in replies {
            asks(&mut codec);
            let plain = packets(1, &payloads);
            let (mut wire, mut rest) = (Vec::new(), &plain[..]);
            while !rest.is_empty() {
                let mut left = rest;
                let lens = slices.iter().map(|len| { let (a, b) = left.split_at((*len).min(left.len())); left = b; IoSlice::new(a) });
                let taken = codec.pack(&lens.collect::<Vec<_>>(), &mut wire);
                prop_assert!(taken > 0);
                rest = &rest[taken..];
            }
            let found = frames(algorithm, &wire);
            let numbers: Vec<u8> = found.iter().map(|(number, _)| *number).collect();
            let counted: Vec<u8> = (1..=255).chain([0]).cycle().take(numbers.len()).collect();
            prop_assert_eq!(numbers, counted);
            prop_assert!(found.into_iter().flat_map(|(_, plain)| plain).collect::<Vec<_>>() == plain);
        }
    }

    #[test]
    fn any_bytes_can_be_read(
        algorithm in algorithms(), wire in vec(any::<u8>(), 0..300), cuts in vec(1..50usize, 1..5), room in 1..2_000usize,
    ) {
        let mut codec = Compression::new(algorithm);
        let _ = unpacked(&mut codec, &wire, &cuts, room);
        // What is packed, too.
        let mut packed = Vec::new();
        codec.pack(&[IoSlice::new(&wire)], &mut packed);
    }

    /// A frame that was whole, and is no more.
    #[test]
    fn broken_frames_can_be_read(
        algorithm in algorithms(), plain in payloads(3, 5_000), at: usize, bits in 1..=255u8, cuts in vec(1..500usize, 1..5),
    ) {
        let plain = packets(0, &plain);
        let mut wire = squeezed_frame(if algorithm == ZLIB { ZLIB } else { ZSTD }, 0, &plain);
        let at = at % wire.len();
        wire[at] ^= bits;
        if let Ok(found) = unpacked(&mut Compression::new(algorithm), &wire, &cuts, 1_000) {
            prop_assert!(found.len() < 1 << 24);
        }
    }
}

/// A frame is what it says, or it is nothing.
#[test]
fn lies_are_found_out() {
    let plain = packets(0, &[vec![7; 10_000]]);
    for algorithm in [ZLIB, ZSTD] {
        let good = squeezed(algorithm, &plain);
        let fails = |what: &str, wire: &[u8]| {
            for cut in [1, 10, 100_000] {
                let mut codec = Compression::new(algorithm);
                let found = unpacked(&mut codec, wire, &[cut], 100_000);
                assert!(found == Err(Violation::MalformedPacking), "{what}, {algorithm:?}");
                // And so it stays.
                let next = frame_of(1, b"\x01\0\0\0\x0E", 0);
                assert_eq!(codec.unpack(&next, &mut [0; 100]), Err(Violation::MalformedPacking));
            }
        };
        assert_eq!(
            unpacked(&mut Compression::new(algorithm), &frame_of(0, &good, plain.len()), &[9], 99).unwrap(),
            plain
        );
        fails("too little", &frame_of(0, &good, plain.len() + 1));
        fails("too much", &frame_of(0, &good, plain.len() - 1));
        fails("a bomb", &frame_of(0, &good, 1));
        fails("something behind it", &frame_of(0, &[&good[..], b"x"].concat(), plain.len()));
        fails("twice", &frame_of(0, &[&good[..], &good[..]].concat(), plain.len()));
        let cut = frame_of(0, &good[..good.len() - 1], plain.len());
        fails("cut short", &[&cut[..], &frame_of(1, b"more", 0)].concat());
        fails("nothing", &frame_of(0, b"", plain.len()));
        fails("something else", &frame_of(0, &[0x55; 100], plain.len()));
        fails("out of order", &frame_of(2, &plain, 0));
        fails("again in its middle", &[frame_of(0, &plain[..100], 0), frame_of(0, &plain[100..], 0)].concat());
        let other = squeezed(if algorithm == ZLIB { ZSTD } else { ZLIB }, &plain);
        fails("the other one", &frame_of(0, &other, plain.len()));
    }
}

/// No more comes out at a time than is asked for, whatever a frame announces.
#[test]
fn the_longest_frame_comes_out_bit_by_bit() {
    const LONGEST: usize = (1 << 24) - 1;
    for algorithm in [ZLIB, ZSTD] {
        let plain = packets(0, &[vec![0; LONGEST - HEAD_BYTES]]);
        let wire = squeezed_frame(algorithm, 0, &plain);
        assert!(wire.len() < 20_000, "{}", wire.len());
        let found = unpacked(&mut Compression::new(algorithm), &wire, &[4_096], 64 << 10).unwrap();
        assert!(found == plain);
    }
}

/// Replies of any length: 256 packets later a number is the same again.
#[test]
fn replies_are_told_apart_by_their_numbers() {
    for count in [1, 2, 254, 255, 256, 257, 511, 512, 513] {
        let reply = packets(1, &vec![b"a row".to_vec(); count]);
        let mut codec = Compression::new(ZLIB);
        for _ in 0..3 {
            asks(&mut codec);
            let mut wire = Vec::new();
            let (first, rest) = reply.split_at(reply.len().min(20));
            packed(&mut codec, first, &mut wire);
            packed(&mut codec, rest, &mut wire);
            let numbers: Vec<u8> = frames(ZLIB, &wire).iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers[0], 1, "{count}");
            assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{numbers:?}");
        }
    }
}

/// A client that asks for more before it has its answer gets each answer's frames from 1, in whatever order that goes.
#[test]
fn a_pipeline() {
    let reply = packets(1, &vec![b"a row".to_vec(); 300]);
    let numbers = |wire: &[u8]| frames(ZLIB, wire).iter().map(|(number, _)| *number).collect::<Vec<_>>();
    let mut codec = Compression::new(ZLIB);
    asks(&mut codec);
    asks(&mut codec);
    let mut wire = Vec::new();
    packed(&mut codec, &[&reply[..], &reply[..]].concat(), &mut wire);
    assert_eq!(numbers(&wire), [1, 1]);

    // The second one comes in the middle of the first one's answer.
    let mut codec = Compression::new(ZLIB);
    asks(&mut codec);
    let mut wire = Vec::new();
    packed(&mut codec, &reply[..900], &mut wire);
    asks(&mut codec);
    packed(&mut codec, &reply[900..1800], &mut wire);
    packed(&mut codec, &reply[1800..], &mut wire);
    packed(&mut codec, &reply, &mut wire);
    assert_eq!(numbers(&wire), [1, 2, 3, 1]);
}

/// What has no answer does not count; what comes in several frames is answered behind the last one.
#[test]
fn commands_without_an_answer_and_long_ones() {
    let mut codec = Compression::new(ZLIB);
    let long = packets(0, &[vec![b'x'; 5_000]]);
    for part in [&long[..3], &long[3..4_000], &long[4_000..]]
        .iter()
        .enumerate()
        .map(|(number, part)| frame_of(u8::try_from(number).unwrap(), part, 0))
    {
        unpacked(&mut codec, &part, &[1_000], 1_000).unwrap();
    }
    asks(&mut codec);
    let mut wire = Vec::new();
    packed(&mut codec, &packets(1, &[b"\0".to_vec()]), &mut wire);
    assert_eq!(frames(ZLIB, &wire)[0].0, 1);

    let mut number = 0;
    for part in long.chunks(1_000) {
        unpacked(&mut codec, &frame_of(number, part, 0), &[1_000], 1_000).unwrap();
        number += 1;
    }
    let mut wire = Vec::new();
    packed(&mut codec, &packets(1, &[b"\xFBfile".to_vec()]), &mut wire);
    assert_eq!(frames(ZLIB, &wire)[0].0, number);

    // Clients number the packets of a file behind the frame: servers insist on the packet before it.
    let file = packets(number + 1, &[b"rows".to_vec(), b"".to_vec()]);
    let wire = frame_of(number + 1, &file, 0);
    assert_eq!(unpacked(&mut codec, &wire, &[10], 10).unwrap(), packets(2, &[b"rows".to_vec(), b"".to_vec()]));
    let mut wire = Vec::new();
    packed(&mut codec, &packets(4, &[b"\0".to_vec()]), &mut wire);
    assert_eq!(frames(ZLIB, &wire)[0].0, number + 2);
}

/// What an idle client owns.
#[test]
fn between_two_frames_there_are_numbers_alone() {
    assert!(size_of::<Compression>() <= 192, "{}", size_of::<Compression>());
    let mut codec = Compression::new(ZSTD);
    asks(&mut codec);
    packed(&mut codec, &packets(1, &[vec![7; 200_000]]), &mut Vec::new());
    assert_eq!(codec.held.capacity(), 0);
    assert!(matches!(codec.unpacking, Unpacking::Head(_, 0)));
}
