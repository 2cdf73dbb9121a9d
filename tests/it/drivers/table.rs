//! The tables in `docs/DRIVERS.md`: one row per driver and variant, each written by its test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::Driver;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/DRIVERS.md");
/// What begins a table.
const HEAD: &str = "| driver | version | clients on connections | pins | errors | rows by portions | cancel | digest |\n\
                    |---|---|---|---|---|---|---|---|\n";

/// What was found.
pub struct Row {
    pub title: String,
    pub version: String,
    pub clients: u32,
    pub connections: u32,
    /// Reasons for which clients kept their connection.
    pub pins: Vec<String>,
    pub errors: BTreeMap<String, u64>,
    pub portions: &'static str,
    pub cancel: &'static str,
    pub digest: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, version, clients, connections, portions, cancel, .. } = self;
        let counts = |counts: &BTreeMap<String, u64>| {
            let counts: Vec<String> = counts.iter().map(|(what, number)| format!("`{what}` {number}")).collect();
            if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
        };
        let pins: Vec<String> = self.pins.iter().map(|reason| format!("`{reason}`")).collect();
        let pins = if pins.is_empty() { "none".to_owned() } else { pins.join(", ") };
        let (pins, errors, digest) = (pins, counts(&self.errors), &self.digest[..12]);
        write!(
            f,
            "| {title} | {version} | {clients} on {connections} | {pins} | {errors} | {portions} | {cancel} | {digest} |"
        )
    }
}

/// One of the tables.
pub struct Table {
    /// What it stands under.
    pub heading: &'static str,
    /// Those that are in it, in their order.
    pub drivers: fn() -> Vec<&'static Driver>,
}

impl Table {
    fn titles(&self) -> Vec<String> {
        (self.drivers)().into_iter().map(Driver::title).collect()
    }

    /// What is before the rows, the rows, and what is behind them.
    fn parts(&self) -> (String, Vec<String>, String) {
        let text = std::fs::read_to_string(FILE).unwrap();
        let heading = text.find(&format!("{}\n", self.heading)).unwrap_or_else(|| panic!("no {}", self.heading));
        let begin = text[heading..].find(HEAD).map(|at| heading + at + HEAD.len()).unwrap();
        let (before, rest) = text.split_at(begin);
        let rows: Vec<String> = rest.lines().take_while(|line| line.starts_with("| ")).map(str::to_owned).collect();
        let length: usize = rows.iter().map(|row| row.len() + 1).sum();
        (before.to_owned(), rows, rest[length..].to_owned())
    }

    /// Fails if this row is not in the file; or writes it there, if that is asked for.
    pub fn check(&self, row: &Row) {
        let (own, row) = (&row.title, row.to_string());
        static WRITING: Mutex<()> = Mutex::new(());
        if !is_written() {
            let found = self.parts().1.into_iter().find(|row| title(row) == *own);
            assert_eq!(
                found.as_deref(),
                Some(row.as_str()),
                "docs/DRIVERS.md; SLUICEGATE_WRITE_DRIVERS=1 writes what was found"
            );
            return;
        }
        let _guard = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, mut all, after) = self.parts();
        all.retain(|row| title(row) != *own);
        all.push(row);
        let titles = self.titles();
        let place = |row: &String| titles.iter().position(|known| *known == title(row));
        all.retain(|row| place(row).is_some());
        all.sort_by_key(place);
        std::fs::write(FILE, format!("{before}{}\n{after}", all.join("\n"))).unwrap();
    }

    /// Every driver is there, and there are so many digests.
    pub fn check_whole(&self, digests: usize) {
        if is_written() {
            return;
        }
        let rows = self.parts().1;
        assert_eq!(rows.iter().map(|row| title(row)).collect::<Vec<_>>(), self.titles());
        let found: BTreeSet<&str> =
            rows.iter().map(|row| row.trim_end_matches(" |").rsplit("| ").next().unwrap()).collect();
        assert_eq!(found.len(), digests, "{found:?}");
    }
}

/// The title of a row.
fn title(row: &str) -> String {
    row.trim_start_matches("| ").split(" |").next().unwrap().to_owned()
}

/// Whether the rows are to be written, not compared.
fn is_written() -> bool {
    std::env::var_os("SLUICEGATE_WRITE_DRIVERS").is_some()
}
