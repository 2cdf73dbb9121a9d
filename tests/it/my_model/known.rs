//! What a client may see beside a direct connection: each difference is one that `docs/MYSQL.md` or `docs/STATUS.md` has by name.

use super::results;
use super::steps::Step;
use super::twins::Both;
use crate::harness::mysql::wire::Packet;

/// Of one session.
#[derive(Default)]
pub struct Known {}

impl Known {
    /// The replies without what is known to differ.
    pub fn masked(
        &mut self,
        step: &Step,
        text: &str,
        in_transaction: bool,
        replies: Both<Vec<Packet>>,
    ) -> Both<Vec<Packet>> {
        let [mut told, mut found] = replies;
        if let Step::Prepare { .. } = step {
            [&mut told, &mut found].into_iter().for_each(|packets| without_number(packets));
        }
        if let Step::Fetch { .. } | Step::Execute { .. } = step {
            [&mut told, &mut found].into_iter().for_each(|packets| without_digits(packets));
        }
        if text.contains('@') {
            without_types_of_nulls(matches!(step, Step::Execute { .. }), [&mut told, &mut found]);
        }
        if let Step::InitDb(_) | Step::Ping | Step::SetOption(_) | Step::ResetStatement { .. } = step {
            may_have_no_warnings(&told, &mut found);
        }
        let _ = in_transaction;
        if asks_for_last(text) && says_nothing(&told, &found) {
            found.clone_from(&told);
        }
        [told, found]
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

/// Of a user variable that is not set, what type it seems to have depends on what has asked for it on that connection.
fn without_types_of_nulls(is_binary: bool, replies: Both<&mut Vec<Packet>>) {
    for packets in replies {
        for shape in results::shapes(packets) {
            let columns = shape.columns.len();
            let mut all = vec![true; columns];
            for row in &packets[shape.rows] {
                let nulls = results::nulls(row, columns, is_binary);
                all.iter_mut().zip(nulls).for_each(|(all, is_null)| *all &= is_null);
            }
            let of_nulls = shape.columns.zip(all).filter(|(_, is_null)| *is_null).map(|(at, _)| at);
            of_nulls.for_each(|at| without_type(&mut packets[at]));
        }
        // Behind the numbers of a statement there are columns too, of values that nobody has seen.
        if packets.first().is_some_and(|packet| packet.first() == 0 && packet.payload.len() == 12) {
            packets[1..].iter_mut().filter(|packet| packet.payload.len() > 12).for_each(without_type);
        }
    }
}

/// A column's name stays.
fn without_type(column: &mut Packet) {
    column.payload.truncate(column.payload.len().saturating_sub(13));
}

/// The same is so of how many warnings the statement before had, which replies to commands tell that are none.
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
fn asks_for_last(text: &str) -> bool {
    let asks = ["ROW_COUNT()", "FOUND_ROWS()", "SHOW WARNINGS", "SHOW ERRORS", "SHOW COUNT(*)", "@@warning_count"];
    asks.iter().any(|word| text.contains(word)) && !text.contains(';')
}

/// They have the same columns, and in the second one there are no rows, or nothing but zeros and `-1`.
fn says_nothing(told: &[Packet], found: &[Packet]) -> bool {
    let [Some(one), Some(other)] = [told.first(), found.first()] else { return false };
    let columns = usize::from(one.first());
    if one != other || matches!(columns, 0 | 0xFB..) || told[..=columns] != found[..=columns] {
        return false;
    }
    let is_row = |packet: &&Packet| packet.first() < 0xFB;
    let is_value = |byte: &u8| matches!(byte, 0 | 1 | 2 | b'0' | b'-' | b'1' | 0xFF);
    found[columns + 1..].iter().filter(is_row).all(|row| row.payload.iter().all(is_value))
}
