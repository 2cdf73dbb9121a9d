//! What a client may see beside a direct connection: each difference is one that `docs/MYSQL.md` or `docs/STATUS.md` has by name.

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
