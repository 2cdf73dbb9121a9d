//! Query attributes: what a client of MySQL's tells beside a statement, by names, for whom it may concern on the server
//! (<https://dev.mysql.com/doc/refman/9.7/en/query-attributes.html>).
//!
//! They stand ahead of a COM_QUERY's text, and between the parameters of an EXECUTE. Where the text begins is what counts: the proxy
//! must read the same one as the server. So whatever the server would read in a way of its own is refused, and nothing is guessed.

use super::frame::Reader;
use crate::protocol::ClientError;

/// Bytes of the attributes of one statement. They are names of traces and the like; a text is sent on only once all of them are here.
pub const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;
/// What a client has to say in place of a block without any: none, in one set.
pub const NONE: [u8; 2] = [0, 1];
/// More than that MySQL does not take.
const ATTRIBUTES_MAX: u64 = 0xFFFF;

/// MYSQL_TYPE_BOOL, which servers refuse.
const BOOL: u8 = 244;
/// In the second byte of a type. With any other bit it is none that there is, and who knows how long its values are.
const UNSIGNED: u8 = 0x80;

/// Why attributes can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// The server says the same.
    Malformed,
    /// They are longer than [`ATTRIBUTE_BYTES_MAX`].
    TooLong,
}

/// Why a client's are refused that are longer.
pub const TOO_LONG: ClientError = ClientError::Unsupported { feature: "query attributes of more than 64 KiB" };

/// Bytes of the attributes at the front of a COM_QUERY's body, of which as much is here as is looked at; it is `len` bytes long
/// (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query.html>).
pub fn block(body: &[u8], len: usize) -> Result<usize, Unreadable> {
    let seen = body.get(..ATTRIBUTE_BYTES_MAX).unwrap_or(body);
    let mut reader = Reader(seen);
    match read_block(&mut reader) {
        Some(true) => Ok(seen.len() - reader.0.len()),
        Some(false) => Err(Unreadable::Malformed),
        None if seen.len() < len => Err(Unreadable::TooLong),
        None => Err(Unreadable::Malformed),
    }
}

/// `None`: it goes on. False: it is none.
fn read_block(reader: &mut Reader<'_>) -> Option<bool> {
    let (count, sets) = (reader.number()?, reader.number()?);
    if sets != 1 || count > ATTRIBUTES_MAX {
        return Some(false);
    }
    if count == 0 {
        return Some(true);
    }
    let count = usize::try_from(count).ok()?;
    let nulls = reader.bytes(count.div_ceil(8))?;
    if reader.byte()? == 0 {
        // Without types.
        return Some(false);
    }
    let mut types = *reader;
    read_types(reader, count)?;
    for at in 0..count {
        let [code, flags] = read_type(&mut types)?;
        if flags & !UNSIGNED != 0 {
            return Some(false);
        }
        let is_null = nulls.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0);
        match code {
            _ if is_null => {}
            BOOL => return Some(false),
            // TINY, SHORT, LONG and FLOAT, DOUBLE and LONGLONG.
            1 => _ = reader.bytes(1)?,
            2 => _ = reader.bytes(2)?,
            3 | 4 => _ = reader.bytes(4)?,
            5 | 8 => _ = reader.bytes(8)?,
            _ => _ = reader.string()?,
        }
    }
    Some(true)
}

/// So many types with their names, as they are.
pub fn read_types<'a>(reader: &mut Reader<'a>, count: usize) -> Option<&'a [u8]> {
    let begins = reader.0;
    for _ in 0..count {
        read_type(reader)?;
    }
    begins.get(..begins.len() - reader.0.len())
}

/// A type, whose name is read over.
pub fn read_type(reader: &mut Reader<'_>) -> Option<[u8; 2]> {
    let code = *reader.bytes(2)?.first_chunk()?;
    reader.string()?;
    Some(code)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mysql::frame::put_string;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    /// Attributes of these types, names and values; none: NULL.
    fn written(attributes: &[(u8, &str, Option<&[u8]>)]) -> Vec<u8> {
        let count = u8::try_from(attributes.len()).unwrap();
        let mut nulls = vec![0; attributes.len().div_ceil(8)];
        let (mut types, mut values) = (Vec::new(), Vec::new());
        for (at, (code, name, value)) in attributes.iter().enumerate() {
            types.extend_from_slice(&[*code, 0]);
            put_string(&mut types, name.as_bytes());
            match value {
                Some(value) => values.extend_from_slice(value),
                None => nulls[at / 8] |= 1 << (at % 8),
            }
        }
        [&[count, 1], &nulls[..], &[1], &types, &values].concat()
    }

    fn read(bytes: &[u8]) -> Result<usize, Unreadable> {
        block(bytes, bytes.len())
    }

    #[test]
    fn a_text_begins_behind_its_attributes() {
        let values: [(u8, &str, Option<&[u8]>); 9] = [
            (254, "trace", Some(b"\x03abc")),
            (8, "number", Some(&[7; 8])),
            (1, "", Some(&[1])),
            (2, "short", Some(&[1, 2])),
            (4, "float", Some(&[0; 4])),
            (12, "when", Some(&[0])),
            (253, "nothing", None),
            (244, "not even that", None),
            (246, "decimal", Some(b"\x011")),
        ];
        for attributes in [&values[..], &values[..1], &values[6..7], &values[3..6]] {
            let block = written(attributes);
            assert_eq!(read(&[&block[..], b"SELECT 1"].concat()), Ok(block.len()));
            // Nothing else is one.
            for end in 0..block.len() {
                assert_eq!(read(&block[..end]), Err(Unreadable::Malformed), "{end}");
            }
        }
        assert_eq!(read(b"\x00\x01SELECT 1"), Ok(2));
        assert_eq!(read(b"\x00\xFC\x01\x00SELECT 1"), Ok(4));
    }

    #[test]
    fn what_a_server_would_not_take() {
        for bytes in [
            &b"\x00\x00SELECT 1"[..],
            b"\x00\x02SELECT 1",
            b"\xFB\x01SELECT 1",
            b"\xFD\x00\x00\x01\x01SELECT 1",
            // Without types, and of a type that there is none of.
            b"\x01\x01\x00\x00SELECT 1",
            b"\x01\x01\x00\x01\xF4\x00\x00\x01SELECT 1",
            b"\x01\x01\x00\x01\x01\x01\x00\x01SELECT 1",
            // A string longer than all of it: the server would take what there is.
            b"\x01\x01\x00\x01\xFE\x00\x00\x7FSELECT 1",
            // A length that only looks short to who reads four bytes of it.
            b"\x01\x01\x00\x01\xFE\x00\x00\xFE\x01\x00\x00\x00\x01\x00\x00\x00aSELECT 1",
        ] {
            assert_eq!(read(bytes), Err(Unreadable::Malformed), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn there_is_a_limit() {
        let fits = ATTRIBUTE_BYTES_MAX - 13;
        for (len, expected) in [(fits, Ok(ATTRIBUTE_BYTES_MAX)), (fits + 1, Err(Unreadable::TooLong))] {
            let mut value = Vec::new();
            put_string(&mut value, &vec![b'x'; len]);
            let all = [&written(&[(254, "abc", Some(&value))])[..], b"SELECT 1"].concat();
            // Of a long text only its beginning is here.
            for seen in [all.len(), ATTRIBUTE_BYTES_MAX + 1] {
                assert_eq!(block(&all[..seen], all.len()), expected, "{len}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..60), more in 0..3usize) {
            if let Ok(block) = block(&bytes, bytes.len() + more) {
                prop_assert!(block <= bytes.len());
                // All of it is needed, and what follows does not matter.
                prop_assert_eq!(read(&bytes[..block]), Ok(block));
                prop_assert_eq!(read(&bytes[..block - 1]), Err(Unreadable::Malformed));
            }
        }
    }
}
