//! Results, as far as masks must look into them.

use std::ops::Range;

use bytes::{Buf, Bytes};

use crate::harness::mysql::wire::{Packet, length};

/// One of a reply's: where in it its columns are, and its rows.
pub struct Shape {
    pub columns: Range<usize>,
    pub rows: Range<usize>,
}

/// All results with columns.
pub fn shapes(packets: &[Packet]) -> Vec<Shape> {
    let (mut at, mut shapes) = (0, Vec::new());
    while let Some(first) = packets.get(at) {
        at += 1;
        if matches!(first.first(), 0x00 | 0xFB..) {
            continue;
        }
        let columns = at..(at + usize::from(first.first())).min(packets.len());
        at = columns.end;
        at += usize::from(packets.get(at).is_some_and(|packet| is_end(packet) && packet.payload.len() == 5));
        let begins = at.min(packets.len());
        let rows = packets[begins..].iter().take_while(|packet| !is_end(packet)).count();
        shapes.push(Shape { columns, rows: begins..begins + rows });
        at += rows + 1;
    }
    shapes
}

fn is_end(packet: &Packet) -> bool {
    matches!(packet.first(), 0xFE | 0xFF) && packet.payload.len() < 0xFF_FFFF
}

/// Of each column of a row: it is NULL.
pub fn nulls(row: &Packet, columns: usize, is_binary: bool) -> Vec<bool> {
    if is_binary {
        let has = |column: usize| row.payload.get(1 + (column + 2) / 8).map(|byte| byte >> ((column + 2) % 8) & 1);
        return (0..columns).map(|column| has(column) == Some(1)).collect();
    }
    let mut rest: Bytes = row.payload.clone();
    let mut next = || {
        let length = (!rest.is_empty()).then(|| length(&mut rest))?;
        length.inspect(|length| rest.advance(usize::try_from(*length).unwrap().min(rest.len())))
    };
    (0..columns).map(|_| next().is_none()).collect()
}
