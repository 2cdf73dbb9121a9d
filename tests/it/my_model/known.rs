//! What a client may see beside a direct connection: each difference is one that `docs/MYSQL.md` or `docs/STATUS.md` has by name, or of
//! numbers that are each connection's own.

use bytes::{Buf, Bytes};

use super::parameters;
use super::results::{self, Shape};
use super::steps::Step;
use super::twins::Both;
use crate::harness::mysql::wire::{Packet, length};

/// What came before, as far as what is known to differ depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before {
    /// A parameter was to be a variable's value: directly that alone gives the variable the type that it had for that statement, and what
    /// it is executed with is converted to it. Elsewhere it is prepared under other settings.
    pub has_typed_variables: bool,
    /// The last answer was an error.
    pub has_failed: bool,
    /// It has set what texts are written in.
    pub has_set_letters: bool,
}

impl Before {
    /// This is prepared.
    pub fn types_variables(&mut self, text: &str) {
        self.has_typed_variables |= text.contains('@') && text.contains('?');
    }
}

/// The replies without what is known to differ.
pub fn masked(step: &Step, text: &str, before: Before, replies: Both<Vec<Packet>>) -> Both<Vec<Packet>> {
    // A wire looks at sequence ids by itself; behind a result that lacks a row they are others.
    let unnumbered = |packets: Vec<Packet>| -> Vec<Packet> {
        packets.into_iter().map(|packet| Packet { sequence: 0, ..packet }).collect()
    };
    let [mut told, mut found] = replies.map(unnumbered);
    // ER_WRONG_ARGUMENTS, ER_DATA_TOO_LONG: MariaDB no longer takes the types that it was told before a CALL has set its parameters, or
    // takes them for as long as what was in them; the proxy says them again.
    const OF_OLD_TYPES: [&[u8]; 2] = [&[0xFF, 0xBA, 0x04], &[0xFF, 0x7E, 0x05]];
    if matches!(step, Step::Execute { .. })
        && text.starts_with("CALL outs(")
        && OF_OLD_TYPES.iter().any(|error| told[0].payload.starts_with(error))
    {
        found.clone_from(&told);
    }
    match step {
        Step::Prepare { .. } => [&mut told, &mut found].into_iter().for_each(|packets| {
            without_number(packets);
            packets.iter_mut().for_each(without_warnings);
            packets.iter_mut().for_each(without_modes);
            if text.contains('@') {
                // Columns of values that nobody has seen yet.
                packets.iter_mut().skip(1).for_each(without_type);
            }
        }),
        Step::FieldList(_) => {}
        // In place of a COM_STMT_RESET there may be a ping, which says that too, and does not make it 0.
        Step::InitDb(_) | Step::Ping | Step::SetOption(_) | Step::ResetStatement { .. } => {
            // How many warnings the statement before had: that may have been another one there.
            [&mut told, &mut found].into_iter().flatten().for_each(without_warnings);
        }
        _ => {
            let [mut one, mut other] = [told, found].map(results::shapes);
            for pair in one.iter_mut().zip(&mut other) {
                mask(step, text, before, pair.into());
            }
            [told, found] = [one, other].map(|shapes| shapes.into_iter().flat_map(Shape::into_packets).collect());
        }
    }
    if told != found {
        // "A session tracker of transactions says what that changed to the proxy, and not to the client."
        // Who sets its tracker among other things is told of changes from the first one on.
        let tracks = text.contains("session_track_state_change") && text.contains(';');
        // Ahead of what looks at variables the proxy may bring them, and behind an error it may ask whether the transaction is still open:
        // it is told what MySQL says late of a statement that failed.
        let is_behind_others = text.contains('@') || before.has_failed;
        [&mut told, &mut found]
            .into_iter()
            .flatten()
            .for_each(|packet| without_trackers(packet, |kind| is_behind_others || tracks && kind == STATE));
        [&mut told, &mut found].into_iter().flatten().for_each(without_end_of_near);
    }
    [told, found]
}

/// SESSION_TRACK_STATE_CHANGE
const STATE: u8 = 2;
/// SERVER_SESSION_STATE_CHANGED
const CHANGED: u16 = 0x4000;
/// SESSION_TRACK_TRANSACTION_CHARACTERISTICS and SESSION_TRACK_TRANSACTION_STATE
const TRANSACTION: [u8; 2] = [4, 5];

/// An OK without what trackers of transactions say, nor these others.
fn without_trackers(packet: &mut Packet, others: impl Fn(u8) -> bool) {
    if packet.first() == 0xFE && packet.payload.len() == 5 {
        // An EOF says no more of it.
        let payload = &packet.payload;
        packet.payload = vec![0xFE, payload[1], payload[2], payload[3], payload[4] & !(CHANGED >> 8) as u8].into();
        return;
    }
    if !matches!(packet.first(), 0x00 | 0xFE) || packet.payload.len() < 7 {
        return;
    }
    if let Some(kept) = without_changes(&packet.payload, |kind| TRANSACTION.contains(&kind) || others(kind)) {
        packet.payload = kept.into();
    }
}

/// What an OK says but for changes of these kinds. `None`: it is none, but a row that begins like one.
fn without_changes(payload: &Bytes, is_left_out: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
    let number = |rest: &mut Bytes| -> Option<u64> {
        let bytes = match *rest.first()? {
            0xFB | 0xFF => return None,
            0xFC => 3,
            0xFD => 4,
            0xFE => 9,
            _ => 1,
        };
        if rest.len() < bytes { None } else { length(rest) }
    };
    let string = |rest: &mut Bytes| -> Option<Bytes> {
        let length = usize::try_from(number(rest)?).ok()?;
        (length <= rest.len()).then(|| rest.split_to(length))
    };
    let mut rest = payload.slice(1..);
    let mut kept: Vec<u8> = vec![payload[0], number(&mut rest)? as u8, number(&mut rest)? as u8];
    if rest.len() < 4 {
        return None;
    }
    let status = rest.get_u16_le();
    kept.extend((status & !CHANGED).to_le_bytes());
    kept.extend(rest.split_to(2));
    // Without a word behind it all of it may be left out.
    kept.extend(if rest.is_empty() { Bytes::new() } else { string(&mut rest)? });
    let mut changes = if rest.is_empty() { Bytes::new() } else { string(&mut rest)? };
    while !changes.is_empty() && status & CHANGED != 0 {
        let kind = changes.get_u8();
        let said = string(&mut changes)?;
        if !is_left_out(kind) {
            kept.push(kind);
            kept.extend(said);
        }
    }
    Some(kept)
}

/// A syntax error tells where by 80 bytes of the text, and may cut off the name of a database, of which each side has its own.
fn without_end_of_near(packet: &mut Packet) {
    const SYNTAX_ERROR: &[u8] = &[0xFF, 0x28, 0x04];
    const SAME: usize = 40;
    const NEAR: &str = "near '";
    if packet.payload.starts_with(SYNTAX_ERROR)
        && let Some(near) = memchr::memmem::find(&packet.payload, NEAR.as_bytes())
    {
        packet.payload.truncate(near + NEAR.len() + SAME);
    }
}

fn mask(step: &Step, text: &str, before: Before, [told, found]: Both<&mut Shape>) {
    if before.has_typed_variables && text.contains('@') {
        for head in [&mut told.head, &mut found.head] {
            head.iter_mut().skip(1).for_each(without_type);
        }
    }
    if let Step::Fetch { .. } | Step::Execute { .. } = step {
        without_digits(&mut told.head);
        without_digits(&mut found.head);
        if text.contains('?') {
            // "A statement is prepared under the settings that its client has as it executes it."
            [&mut told.head, &mut found.head].into_iter().flatten().for_each(without_width);
        }
        if text.contains('@') && told.head != found.head && told.rows.len() == found.rows.len() {
            // "... with the variables ... that its client has as it executes it."
            [&mut told.head, &mut found.head]
                .into_iter()
                .for_each(|head| head.iter_mut().skip(1).for_each(without_type));
            found.rows.clone_from(&told.rows);
        }
        if text.starts_with("CALL outs(") && told.rows.len() == found.rows.len() {
            // MariaDB cuts a parameter off at the length that it had before, unless its type is said again, as the proxy does.
            found.rows.clone_from(&told.rows);
        }
    }
    if told.head.last().is_some_and(|eof| eof.first() == 0xFE && eof.payload.len() == 5 && eof.payload[4] & 0x10 != 0) {
        // MySQL forgets to say so behind the rows (SERVER_PS_OUT_PARAMS, SERVER_MORE_RESULTS_EXISTS).
        for eof in [&mut told.end, &mut found.end].into_iter().flatten().filter(|eof| eof.payload.len() == 5) {
            let said = eof.payload.clone();
            eof.payload = vec![said[0], said[1], said[2], said[3] | 0x08, said[4] | 0x10].into();
        }
    }
    for shape in [&mut *told, &mut *found] {
        // In front of rows a client that wants EOF packets is not told how many warnings there are.
        if let Some(eof) = shape.head.last_mut().filter(|packet| packet.first() == 0xFE && packet.payload.len() == 5) {
            // Nor that a transaction may only read (SERVER_STATUS_IN_TRANS_READONLY), that these are OUT
            // parameters, or of a `sql_mode` of MariaDB's for this statement alone.
            eof.payload = vec![0xFE, 0, 0, eof.payload[3], eof.payload[4] & !0xB2].into();
        }
    }
    if text.contains('?') && matches!(step, Step::Execute { .. }) {
        // What a NULL is compared as depends on what it was before, and with it whether that warns.
        [&mut told.end, &mut found.end].into_iter().flatten().for_each(without_warnings);
    }
    if matches!(step, Step::Execute { .. }) {
        // "A statement is prepared under the settings that its client has as it executes it."
        if text.contains("COLLATION('a')") || before.has_set_letters && text.contains("MD5(?)") {
            found.rows.clone_from(&told.rows);
        }
        if before.has_set_letters && text.contains('?') && told.rows != found.rows {
            [&mut told.rows, &mut found.rows].into_iter().flatten().for_each(without_letters);
        }
    }
    // By their columns these say the same, whatever follows.
    let tells_of_last = told.head == found.head && tells_of_last(&told.head);
    if text.contains(['@', '?']) && !tells_of_last {
        let is_binary = matches!(step, Step::Execute { .. });
        without_types_of_nulls(told, is_binary);
        without_types_of_nulls(found, is_binary);
    }
    if text.contains("WHERE id = @a") {
        [&mut told.head, &mut found.head].into_iter().flatten().for_each(without_matches);
    }
    if tells_of_last {
        [&mut told.rows, &mut found.rows].into_iter().flatten().for_each(without_row_number);
    }
    if tells_of_last && found.rows.iter().all(says_nothing) {
        found.rows.clone_from(&told.rows);
        may_have_no_warnings(&told.end, &mut found.end);
    }
}

/// An OK of nothing: MariaDB does not look for rows where a variable that must match is NULL, as one is that was unset for its client,
/// and looks where it is not there at all.
fn without_matches(packet: &mut Packet) {
    if let [0x00, 0, 0, status, flags, low, high, ..] = packet.payload[..] {
        // SERVER_QUERY_NO_GOOD_INDEX_USED, SERVER_QUERY_NO_INDEX_USED
        packet.payload = vec![0x00, 0, 0, status & !0x30, flags, low, high].into();
    }
}

/// "... for column 'x' at row 4": MariaDB counts on where it was before.
fn without_row_number(row: &mut Packet) {
    let mut payload = row.payload.to_vec();
    if let Some(at) = memchr::memmem::find(&payload, b" at row ") {
        payload.iter_mut().skip(at).filter(|byte| byte.is_ascii_digit()).for_each(|byte| *byte = b'1');
        row.payload = payload.into();
    }
}

/// An OK or an EOF without a number of warnings.
fn without_warnings(packet: &mut Packet) {
    let mut payload = packet.payload.to_vec();
    match payload[..] {
        [0x00, 0, 0, _, _, _, _, ..] => payload[5..7].fill(0),
        [0xFE, _, _, _, _] => payload[1..3].fill(0),
        [0xFE, 0, 0, _, _, _, _, ..] => payload[5..7].fill(0),
        _ => {}
    }
    packet.payload = payload.into();
}

/// An EOF behind columns tells of the `sql_mode` of the statement before (SERVER_STATUS_ANSI_QUOTES, SERVER_STATUS_NO_BACKSLASH_ESCAPES).
fn without_modes(packet: &mut Packet) {
    if packet.first() == 0xFE && packet.payload.len() == 5 {
        let said = packet.payload.clone();
        packet.payload = vec![said[0], said[1], said[2], said[3], said[4] & !0x82].into();
    }
}

/// The numbers of prepared statements are their own.
fn without_number(packets: &mut [Packet]) {
    if let Some(packet) = packets.first_mut().filter(|packet| packet.first() == 0) {
        packet.payload = [&[0; 5], &packet.payload[5..]].concat().into();
    }
}

/// In errors too: "The statement (5) has no open cursor".
fn without_digits(packets: &mut [Packet]) {
    if let Some(packet) = packets.first_mut().filter(|packet| packet.first() == 0xFF) {
        let kept = packet.payload.iter().enumerate().filter(|(at, byte)| *at < 9 || !byte.is_ascii_digit());
        packet.payload = kept.map(|(_, byte)| *byte).collect();
    }
}

/// Of a user variable that is not set, what type it seems to have depends on what has asked for it on that connection; of a parameter
/// that is NULL, on what it was there before.
fn without_types_of_nulls(shape: &mut Shape, is_binary: bool) {
    let columns = shape.columns();
    let mut all = vec![true; columns];
    for row in &shape.rows {
        let nulls = results::nulls(row, columns, is_binary);
        all.iter_mut().zip(nulls).for_each(|(all, is_null)| *all &= is_null);
    }
    let of_nulls = shape.head.iter_mut().skip(1).zip(all).filter(|(_, is_null)| *is_null);
    of_nulls.for_each(|(column, _)| without_type(column));
}

/// A row without what letters of parameters have become in other character sets, and without how long that is.
fn without_letters(row: &mut Packet) {
    let mut payload: Vec<u8> = row.payload.iter().copied().filter(|byte| byte.is_ascii() && *byte != b'?').collect();
    for word in parameters::LETTERS {
        let plain: Vec<u8> = word.iter().copied().filter(u8::is_ascii).collect();
        let places: Vec<usize> = memchr::memmem::find_iter(&payload, &plain).collect();
        places.into_iter().filter_map(|at| at.checked_sub(1)).for_each(|length| payload[length] = 0);
    }
    row.payload = payload.into();
}

/// A column's name stays. (What stands behind columns may be an EOF.)
fn without_type(column: &mut Packet) {
    if let Some(kept) = column.payload.len().checked_sub(13) {
        column.payload.truncate(kept);
    }
}

/// Of a column with parameters in it: as many letters as the bytes of the character set have room for, which that is, and whether it is one of bytes.
fn without_width(column: &mut Packet) {
    /// BINARY_FLAG
    const BINARY: u8 = 0x80;
    // What is of a fixed length: that, a character set, the width, a type, flags, decimals, nothing.
    let mut payload = column.payload.to_vec();
    if let Some([12, letters @ .., _, flags, _, _, _, _]) = payload.last_chunk_mut::<13>() {
        letters.fill(0);
        *flags &= !BINARY;
        column.payload = payload.into();
    }
}

/// How many warnings the statement before had: none on another connection. See [`tells_of_last`].
fn may_have_no_warnings(told: &[Packet], found: &mut [Packet]) {
    let ([one], [other]) = (told, found) else { return };
    let without = |packet: &Packet| {
        let mut payload = packet.payload.to_vec();
        payload.get_mut(5..7).unwrap_or_default().fill(0);
        payload
    };
    if one.first() == 0 && other.payload[..] == without(other)[..] && without(one)[..] == other.payload[..] {
        other.payload = one.payload.clone();
    }
}

/// "`FOUND_ROWS()`, `ROW_COUNT()` and `SHOW WARNINGS` are never another client's; on another connection than before they say
/// nothing."
fn tells_of_last(head: &[Packet]) -> bool {
    const NAMES: [&str; 6] = ["ROW_COUNT()", "FOUND_ROWS()", "Level", "warning_count", "error_count", "Message"];
    let has = |column: &Packet, name: &str| memchr::memmem::find(&column.payload, name.as_bytes()).is_some();
    head.iter().skip(1).any(|column| NAMES.iter().any(|name| has(column, name)))
}

/// Nothing but zeros and `-1`.
fn says_nothing(row: &Packet) -> bool {
    row.payload.iter().all(|byte| matches!(byte, 0 | 1 | 2 | b'0' | b'-' | b'1' | 0xFF))
}
