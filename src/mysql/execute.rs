//! What comes ahead of the values in the execution of a prepared statement, and how it is written for another connection.
//!
//! A client says the types of its parameters once, and may leave them out from then on; where the statement is prepared anew, they are
//! said for it. Query attributes stand between the parameters and look like such; where a server knows none, they are left out.

use super::attributes;
use super::frame::{Reader, put_number};
use crate::sql::mysql::written::Written;

/// An EXECUTE, behind its command
/// (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_execute.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    /// It asks for a cursor.
    pub opens_cursor: bool,
    /// How many values it has; attributes stand behind the parameters.
    pub count: usize,
    /// Types follow: these.
    pub types: Option<Types<'a>>,
    /// It is written with names, and says how many values it has.
    named: bool,
    flags: u8,
    /// How often, which is once.
    times: &'a [u8],
    /// A bit for each value.
    nulls: &'a [u8],
    /// Bytes of all that, with the statement's number.
    taken: usize,
}

/// In place of so many bytes at the front, behind the statement's number, come these.
#[derive(Debug, PartialEq, Eq)]
pub struct Front {
    /// With the number.
    pub taken: usize,
    /// Without it.
    pub written: Vec<u8>,
}

/// Why a front can't be written.
#[derive(Debug, PartialEq, Eq)]
pub enum Unwritable {
    /// Servers say the same.
    Malformed,
    /// Nobody has ever said types; whether there are values.
    TypesMissing(bool),
}

impl<'a> Execute<'a> {
    /// In the flags: it says how many values it has, if only attributes.
    const HAS_COUNT: u8 = 8;

    /// Of a statement with so many parameters; `named`: by a client that may have attributes. `None`: it is too short.
    pub fn read(body: &'a [u8], parameters: u16, named: bool) -> Option<Self> {
        let mut reader = Reader(body);
        reader.u32()?;
        let flags = reader.byte()?;
        let times = reader.bytes(4)?;
        let says_count = named && (parameters > 0 || flags & Self::HAS_COUNT != 0);
        let opens_cursor = if named { flags & !Self::HAS_COUNT != 0 } else { flags != 0 };
        let count = if says_count { usize::try_from(reader.number()?).ok()? } else { usize::from(parameters) };
        let nulls = reader.bytes(count.div_ceil(8))?;
        let has_types = count > 0 && reader.byte()? != 0;
        let types = match (has_types, named) {
            (false, _) => None,
            (true, false) => Some(Types { bytes: reader.bytes(count.checked_mul(2)?)?, named }),
            (true, true) => Some(Types { bytes: attributes::read_types(&mut reader, count)?, named }),
        };
        let taken = body.len() - reader.0.len();
        Some(Self { opens_cursor, count, types, named, flags, times, nulls, taken })
    }

    /// As it must be written where these types are not known; `named`: to a server that knows attributes. `None`: as it came.
    pub fn elsewhere(
        self,
        body: &[u8],
        parameters: u16,
        known: Option<&[[u8; 2]]>,
        named: bool,
    ) -> Result<Option<Front>, Unwritable> {
        let loses_names = self.named && !named;
        let says_types = self.types.is_some() || self.count == 0;
        if says_types && !loses_names {
            return Ok(None);
        }
        let parameters = usize::from(parameters);
        if loses_names && self.count < parameters || !says_types && self.count > parameters {
            return Err(Unwritable::Malformed);
        }
        let count = if loses_names { parameters } else { self.count };
        // In front of the types a few bytes; for each a bit, and its type with an empty name. More than usual grows.
        let mut written = Vec::with_capacity(16 + count.min(256) * 4);
        written.push(if loses_names { self.flags & !Self::HAS_COUNT } else { self.flags });
        written.extend_from_slice(self.times);
        if self.named && !loses_names {
            put_number(&mut written, count as u64);
        }
        // The last byte may have bits of attributes, at which nobody looks.
        written.extend_from_slice(self.nulls.get(..count.div_ceil(8)).unwrap_or_default());
        if count > 0 {
            written.push(1);
        }
        let mut put = |code: [u8; 2]| {
            written.extend_from_slice(&code);
            // Of no name.
            written.extend((self.named && !loses_names).then_some(0));
        };
        match (self.types, known) {
            (Some(types), _) => types.iter().take(count).for_each(&mut put),
            (None, Some(known)) => known.iter().take(count).copied().for_each(&mut put),
            (None, None) if count == 0 => {}
            (None, None) => return Err(Unwritable::TypesMissing(body.len() > self.taken)),
        }
        // The values of attributes stay behind those of the parameters, where a server that knows none does not look for any.
        Ok(Some(Front { taken: self.taken, written }))
    }

    /// Adds what its parameters may be as whole numbers, if they are of these types where it says none.
    pub fn put_numbers(self, body: &[u8], parameters: u16, known: Option<&[[u8; 2]]>, written: &mut Written) {
        let mut values = Reader(body.get(self.taken..).unwrap_or_default());
        let said = self.types.map(|types| types.iter().collect::<Vec<_>>());
        let types = said.as_deref().or(known).unwrap_or_default();
        for at in 0..usize::from(parameters) {
            let nulls = self.nulls.get(at / 8).copied().unwrap_or_default();
            if nulls & 1 << (at % 8) != 0 {
                continue;
            }
            if types.get(at).and_then(|[code, _]| put_value(*code, &mut values, written)).is_none() {
                return written.put_any();
            }
        }
    }
}

/// A value of this type (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html>), as a whole number.
/// `None`: it can't be read.
fn put_value(code: u8, values: &mut Reader<'_>, written: &mut Written) -> Option<()> {
    match code {
        // TINY, SHORT, LONG, LONGLONG
        1 => written.put(values.byte()?.into()),
        2 => written.put(values.u16()?.into()),
        3 => written.put(values.u32()?.into()),
        8 => written.put(u64::from_le_bytes(*values.bytes(8)?.first_chunk()?)),
        // FLOAT, DOUBLE
        4 => written.put_rounded(f32::from_bits(values.u32()?).into()),
        5 => written.put_rounded(f64::from_le_bytes(*values.bytes(8)?.first_chunk()?)),
        6 => {}
        // TIMESTAMP, DATETIME: greater numbers than are told apart.
        7 | 12 => match values.string()?.first_chunk() {
            Some([low, high]) if u16::from_le_bytes([*low, *high]) < 1000 => written.put_any(),
            _ => {}
        },
        // DATE
        10 => {
            if let Some([low, high, month, day]) = values.string()?.first_chunk() {
                let year = u64::from(u16::from_le_bytes([*low, *high]));
                written.put(year * 10_000 + u64::from(*month) * 100 + u64::from(*day));
            }
        }
        // TIME
        11 => {
            /// 838 hours are the most; another part of a second makes another minute of 59.
            const DAYS_MAX: u32 = 34;
            if let [_, a, b, c, d, hours, minutes, seconds, ..] = *values.string()? {
                let days = u32::from_le_bytes([a, b, c, d]);
                if days >= DAYS_MAX || seconds >= 59 {
                    written.put_any();
                }
                let hours = u64::from(days) * 24 + u64::from(hours);
                let whole = hours * 10_000 + u64::from(minutes) * 100 + u64::from(seconds);
                written.put(whole);
                written.put(whole + 1);
            }
        }
        // DECIMAL, VARCHAR, JSON, NEWDECIMAL, ENUM, SET, all BLOBs, VAR_STRING, STRING
        0 | 15 | 245..=254 => written.put_text(values.string()?),
        _ => return None,
    }
    Some(())
}

/// The types of an EXECUTE's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types<'a> {
    /// As they came.
    bytes: &'a [u8],
    /// With a name behind each, if only an empty one.
    named: bool,
}

impl<'a> Types<'a> {
    /// Without names.
    pub fn iter(self) -> impl Iterator<Item = [u8; 2]> + Clone + 'a {
        let mut reader = Reader(self.bytes);
        std::iter::from_fn(move || {
            if self.named { attributes::read_type(&mut reader) } else { reader.bytes(2)?.first_chunk().copied() }
        })
    }
}

/// MariaDB's COM_STMT_BULK_EXECUTE, behind its command (<https://mariadb.com/kb/en/com_stmt_bulk_execute/>). Behind the types come
/// any number of sets of values, each with a byte ahead that says what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bulk<'a> {
    /// Types follow: these.
    pub types: Option<Types<'a>>,
    flags: u16,
}

impl<'a> Bulk<'a> {
    /// The number, and the flags.
    const FIXED_BYTES: usize = 6;
    /// In the flags: types follow.
    const HAS_TYPES: u16 = 0x80;

    /// Of a statement with so many parameters. `None`: it is too short.
    pub fn read(body: &'a [u8], parameters: u16) -> Option<Self> {
        let mut reader = Reader(body);
        reader.u32()?;
        let flags = reader.u16()?;
        let has_types = flags & Self::HAS_TYPES != 0;
        let types = if has_types { Some(reader.bytes(usize::from(parameters) * 2)?) } else { None };
        Some(Self { types: types.map(|bytes| Types { bytes, named: false }), flags })
    }

    /// As it must be written where its types are not known, if it does not say them. `None`: as it came.
    pub fn elsewhere(self, known: Option<&[[u8; 2]]>) -> Option<Front> {
        let known = known.filter(|_| self.types.is_none())?;
        let flags = (self.flags | Self::HAS_TYPES).to_le_bytes();
        Some(Front { taken: Self::FIXED_BYTES, written: [&flags, known.as_flattened()].concat() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, proptest};

    const KNOWN: Option<&[[u8; 2]]> = Some(&[[8, 0], [9, 0x80]]);

    fn front(taken: usize, written: &[u8]) -> Result<Option<Front>, Unwritable> {
        Ok(Some(Front { taken, written: written.to_vec() }))
    }

    #[test]
    fn types_are_said_where_they_were_not() {
        let read = |body: &'static [u8], parameters| Execute::read(body, parameters, false);
        let plain = b"\x01\0\0\0\x00\x01\0\0\0";
        let found = read(plain, 0).unwrap();
        assert_eq!((found.opens_cursor, found.elsewhere(plain, 0, None, false)), (false, Ok(None)));
        let typed = b"\x01\0\0\0\x01\x01\0\0\0\0\x01\x03\0\x0f\x80values";
        let found = read(typed, 2).unwrap();
        assert_eq!((found.opens_cursor, found.elsewhere(typed, 2, KNOWN, false)), (true, Ok(None)));
        assert_eq!(found.types.unwrap().iter().collect::<Vec<_>>(), [[3, 0], [15, 0x80]]);
        let without = b"\x01\0\0\0\x00\x01\0\0\0\x02\0values";
        let found = read(without, 2).unwrap();
        let told = front(11, b"\x00\x01\0\0\0\x02\x01\x08\0\x09\x80");
        assert_eq!(found.elsewhere(without, 2, KNOWN, false), told);
        assert_eq!(found.elsewhere(without, 2, None, false), Err(Unwritable::TypesMissing(true)));
        for (short, parameters) in [(&typed[..14], 2), (&typed[..10], 2), (b"\x01\0\0", 0)] {
            assert_eq!(read(short, parameters), None);
        }
    }

    #[test]
    fn attributes_look_like_parameters() {
        let read = |body: &'static [u8], parameters| Execute::read(body, parameters, true);
        // One parameter, and one attribute.
        let typed = b"\x01\0\0\0\x08\x01\0\0\0\x02\x02\x01\x03\x80\0\xFE\0\x01avalues";
        let found = read(typed, 1).unwrap();
        assert_eq!((found.opens_cursor, found.count), (false, 2));
        assert_eq!(found.types.unwrap().iter().collect::<Vec<_>>(), [[3, 0x80], [0xFE, 0]]);
        assert_eq!(found.elsewhere(typed, 1, None, true), Ok(None));
        let told = front(19, b"\x00\x01\0\0\0\x02\x01\x03\x80");
        assert_eq!(found.elsewhere(typed, 1, None, false), told);
        assert_eq!(found.elsewhere(typed, 3, None, false), Err(Unwritable::Malformed));
        // The attribute alone.
        let found = read(typed, 0).unwrap();
        assert_eq!(found.elsewhere(typed, 0, None, true), Ok(None));
        assert_eq!(found.elsewhere(typed, 0, None, false), front(19, b"\x00\x01\0\0\0"));
        for end in 0..typed.len() - 6 {
            assert_eq!(read(&typed[..end], 1), None, "{end}");
        }
        // None, which is said or not; and parameters alone, without types.
        let none = b"\x01\0\0\0\x09\x01\0\0\0\0";
        let found = read(none, 0).unwrap();
        assert_eq!((found.opens_cursor, found.elsewhere(none, 0, None, true)), (true, Ok(None)));
        assert_eq!(found.elsewhere(none, 0, None, false), front(10, b"\x01\x01\0\0\0"));
        assert_eq!(read(&none[..9], 0), None);
        let without = b"\x01\0\0\0\x00\x01\0\0\0\x02\0\0values";
        let found = read(without, 2).unwrap();
        let named = front(12, b"\x00\x01\0\0\0\x02\0\x01\x08\0\0\x09\x80\0");
        assert_eq!(found.elsewhere(without, 2, KNOWN, true), named);
        assert_eq!(found.elsewhere(without, 2, KNOWN, false), front(12, b"\x00\x01\0\0\0\0\x01\x08\0\x09\x80"));
        assert_eq!(found.elsewhere(without, 1, KNOWN, true), Err(Unwritable::Malformed));
    }

    #[test]
    fn numbers_of_parameters() {
        let types: Vec<[u8; 2]> =
            [1, 2, 3, 8, 4, 5, 6, 12, 10, 11, 253, 246].into_iter().map(|code| [code, 0]).collect();
        let values = [
            &[7][..],
            &300_u16.to_le_bytes(),
            &70_000_u32.to_le_bytes(),
            &5_000_000_000_u64.to_le_bytes(),
            &1.5_f32.to_le_bytes(),
            &99.9_f64.to_le_bytes(),
            // 2026-11-27, of a day's time and as a date; 02:03:04
            b"\x04\xEA\x07\x0B\x1B",
            b"\x04\xEA\x07\x0B\x1B",
            b"\x08\0\x01\0\0\0\x02\x03\x04",
            b"\x0412ab",
            b"\x0544.25",
        ];
        // The seventh is NULL by its type, the last one by its bit as well.
        let head = b"\x01\0\0\0\x00\x01\0\0\0\0\0\x01";
        let body = [&head[..], types.as_flattened(), &values.concat()].concat();
        let written = |body: &[u8], known| {
            let mut written = Written::default();
            Execute::read(body, 12, false).unwrap().put_numbers(body, 12, known, &mut written);
            written
        };
        let mut any = Written::default();
        any.put_any();
        let mut expected = Written::default();
        let numbers = [7, 300, 70_000, 5_000_000_000, 1, 2, 99, 100, 20_261_127, 260_304, 260_305, 12, 44, 45];
        numbers.into_iter().for_each(|number| expected.put(number));
        assert_eq!(written(&body, None), expected);
        // Types that were said before; none; and values that are cut off.
        let untyped = [&head[..11], &[0], &values.concat()].concat();
        assert_eq!(written(&untyped, Some(&types)), expected);
        assert_eq!(written(&untyped, None), any);
        assert_eq!(written(&body[..body.len() - 1], None), any);
        let nulls = [&untyped[..9], &[0xFF, 0x0F, 0]].concat();
        assert_eq!(written(&nulls, None), Written::default());
    }

    #[test]
    fn bulks() {
        let typed = b"\x01\0\0\0\xC0\0\x03\0\x0f\0values";
        let found = Bulk::read(typed, 2).unwrap();
        assert_eq!(found.types.unwrap().iter().collect::<Vec<_>>(), [[3, 0], [15, 0]]);
        assert_eq!(found.elsewhere(KNOWN), None);
        assert_eq!(Bulk::read(&typed[..9], 2), None);
        let without = Bulk::read(b"\x01\0\0\0\x40\0values", 2).unwrap();
        assert_eq!(without.elsewhere(KNOWN), Some(Front { taken: 6, written: b"\xC0\0\x08\0\x09\x80".to_vec() }));
        assert_eq!(without.elsewhere(None), None);
        assert_eq!(Bulk::read(b"\x01\0\0\0\0", 2), None);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(body in proptest::collection::vec(any::<u8>(), 0..60), parameters in 0..9u16, named: bool) {
            let known = vec![[8, 0]; usize::from(parameters)];
            if let Some(execute) = Execute::read(&body, parameters, named) {
                prop_assert!(execute.taken <= body.len());
                // What was written can be read by whom it is for.
                for to in [true, named] {
                    let to = to && named;
                    if let Ok(Some(Front { taken, written })) = execute.elsewhere(&body, parameters, Some(&known), to) {
                        let all = [&body[..4], &written, &body[taken..]].concat();
                        let found = Execute::read(&all, parameters, to).unwrap();
                        prop_assert!(found.count == 0 || found.types.is_some());
                        prop_assert!(found.elsewhere(&all, parameters, None, to) == Ok(None));
                    }
                }
            }
            let _ = Bulk::read(&body, parameters);
        }
    }
}
