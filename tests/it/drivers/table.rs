//! The table in `docs/DRIVERS.md`: one row per driver and variant, each written by its test.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use super::{DRIVERS, Driver};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/DRIVERS.md");
/// What begins the table.
const HEAD: &str = "| driver | version | clients on connections | pins | errors | rows by portions | cancel | digest |\n\
                    |---|---|---|---|---|---|---|---|\n";

/// What was found.
pub struct Row {
    pub title: String,
    pub version: String,
    pub clients: u32,
    pub connections: u32,
    pub pins: BTreeMap<String, u64>,
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
        let (pins, errors, digest) = (counts(&self.pins), counts(&self.errors), &self.digest[..12]);
        write!(
            f,
            "| {title} | {version} | {clients} on {connections} | {pins} | {errors} | {portions} | {cancel} | {digest} |"
        )
    }
}

/// The title of a row.
pub fn title(row: &str) -> String {
    row.trim_start_matches("| ").split(" |").next().unwrap().to_owned()
}

/// The rows as they stand in the file.
pub fn rows() -> Vec<String> {
    let text = std::fs::read_to_string(FILE).unwrap();
    let (_, rest) = text.split_once(HEAD).unwrap();
    rest.lines().take_while(|line| line.starts_with("| ")).map(str::to_owned).collect()
}

/// Whether the rows are to be written, not compared.
pub fn is_written() -> bool {
    std::env::var_os("SLUICEGATE_WRITE_DRIVERS").is_some()
}

/// Fails if this row is not in the file; or writes it there, if that is asked for.
pub fn check(row: &Row) {
    let (own, row) = (&row.title, row.to_string());
    static WRITING: Mutex<()> = Mutex::new(());
    if !is_written() {
        let found = rows().into_iter().find(|row| title(row) == *own);
        assert_eq!(
            found.as_deref(),
            Some(row.as_str()),
            "docs/DRIVERS.md; SLUICEGATE_WRITE_DRIVERS=1 writes what was found"
        );
        return;
    }
    let _guard = WRITING.lock().unwrap();
    let text = std::fs::read_to_string(FILE).unwrap();
    let (before, rest) = text.split_once(HEAD).unwrap();
    let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
    let mut all = rows();
    all.retain(|row| title(row) != *own);
    all.push(row);
    let place = |row: &String| DRIVERS.iter().map(Driver::title).position(|known| known == title(row));
    all.retain(|row| place(row).is_some());
    all.sort_by_key(place);
    std::fs::write(FILE, format!("{before}{HEAD}{}\n\n{after}", all.join("\n"))).unwrap();
}
