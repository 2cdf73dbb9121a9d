//! Results, as far as masks must look into them.

use bytes::{Buf, Bytes};

use crate::harness::mysql::wire::{Packet, length};

/// A result of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What comes ahead of rows: how many columns, and those, or all there is.
    pub head: Vec<Packet>,
    pub rows: Vec<Packet>,
    pub end: Vec<Packet>,
}

/// All of them.
pub fn shapes(packets: Vec<Packet>) -> Vec<Shape> {
    let (mut packets, mut shapes) = (packets.into_iter().peekable(), Vec::new());
    while let Some(first) = packets.next() {
        let columns = if matches!(first.first(), 0x00 | 0xFB..) { 0 } else { usize::from(first.first()) };
        let mut head = vec![first];
        let (mut rows, mut end) = (Vec::new(), Vec::new());
        if columns > 0 {
            head.extend(packets.by_ref().take(columns));
            head.extend(packets.next_if(|packet| is_end(packet) && packet.payload.len() == 5));
            rows.extend(std::iter::from_fn(|| packets.next_if(|packet| !is_end(packet))));
            end.extend(packets.next());
        }
        shapes.push(Shape { head, rows, end });
    }
    shapes
}

impl Shape {
    pub fn columns(&self) -> usize {
        if self.end.is_empty() { 0 } else { usize::from(self.head[0].first()) }
    }

    pub fn into_packets(self) -> impl Iterator<Item = Packet> {
        self.head.into_iter().chain(self.rows).chain(self.end)
    }
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
