//! Parameters of prepared statements, as an EXECUTE has them.

/// MYSQL_TYPE_TINY, LONG, LONGLONG, DOUBLE, VAR_STRING, BLOB, NEWDECIMAL, DATETIME.
const KINDS: [u8; 8] = [0x01, 0x03, 0x08, 0x05, 0xFD, 0xFC, 0xF6, 0x0C];
const BLOB: u8 = 0xFC;
/// Values with letters above ASCII.
pub const LETTERS: [&[u8]; 2] = ["\u{fc}ber".as_bytes(), b"it's \\ \0 binary\xFF"];

pub struct Bound {
    pub nulls: Vec<u8>,
    /// Two bytes for each.
    pub types: Vec<u8>,
    pub values: Vec<u8>,
}

/// Of these numbers, and these types if they are known. With pieces the first one has come already.
pub fn bound(numbers: &[(usize, usize)], known: Option<Vec<u8>>, has_pieces: bool) -> Bound {
    let (mut nulls, mut types, mut values) = (vec![0; numbers.len().div_ceil(8)], Vec::new(), Vec::new());
    for (at, (kind, value)) in numbers.iter().enumerate() {
        let comes_in_pieces = has_pieces && at == 0;
        let drawn = if comes_in_pieces { BLOB } else { KINDS[kind % KINDS.len()] };
        let kind = known.as_ref().and_then(|types| types.get(2 * at).copied()).unwrap_or(drawn);
        types.extend([kind, 0]);
        if comes_in_pieces {
            continue;
        }
        if value % 6 == 5 {
            nulls[at / 8] |= 1 << (at % 8);
            continue;
        }
        values.extend(encoded(kind, value % 5));
    }
    Bound { nulls, types, values }
}

fn encoded(kind: u8, value: usize) -> Vec<u8> {
    let number = i64::try_from(value).unwrap() - 1;
    let text = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()], text].concat();
    match kind {
        0x01 => vec![number.to_le_bytes()[0]],
        0x03 => i32::try_from(number).unwrap().to_le_bytes().to_vec(),
        0x08 => (number * 10_000_000_000).to_le_bytes().to_vec(),
        0x05 => (number as f64 * 1.5).to_le_bytes().to_vec(),
        0xF6 => text(["-1.50", "0", "1.5", "12345678901234567890.123", "3"][value].as_bytes()),
        0x0C => vec![7, 0xEA, 0x07, 11, 20 + u8::try_from(value).unwrap(), 12, 30, 0],
        _ => text([&b""[..], b"2", b"text", LETTERS[0], LETTERS[1]][value]),
    }
}
