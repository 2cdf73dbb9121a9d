//! What the clients of one run said, and whether it is the same as what others said.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};

/// What the clients of one run said, by their numbers.
#[derive(Debug, Default)]
pub struct Said {
    /// What the driver calls its version.
    pub version: String,
    pub lines: BTreeMap<u32, Vec<String>>,
    /// SHA-256 of all lines, as the client made it.
    pub digests: BTreeMap<u32, String>,
    pub failures: Vec<String>,
}

impl Said {
    /// Reads what a program printed.
    pub fn read(&mut self, printed: &str) {
        for line in printed.lines() {
            let mut words = line.splitn(3, ' ');
            let mut next = || words.next().unwrap_or_default();
            let (what, about, text) = (next(), next(), next());
            let number = about.parse().unwrap_or_default();
            match what {
                "version" => self.version = text.to_owned(),
                "line" => self.lines.entry(number).or_default().push(text.to_owned()),
                "digest" => drop(self.digests.insert(number, text.to_owned())),
                "failed" => self.failures.push(line.to_owned()),
                // A driver's own words.
                _ => {}
            }
        }
    }

    /// The digest that so many clients printed; all the same.
    pub fn digest(&self, clients: u32) -> &str {
        assert!(self.failures.is_empty(), "{:#?}", self.failures);
        let all: Vec<u32> = (0..clients).collect();
        assert_eq!(self.digests.keys().copied().collect::<Vec<_>>(), all);
        let (first, lines) = (&self.digests[&0], &self.lines[&0]);
        assert_eq!(*first, of_lines(lines));
        for (number, digest) in &self.digests {
            same(lines, &self.lines[number], &format!("client 0 and client {number}"));
            assert_eq!(digest, first);
        }
        first
    }
}

/// Fails where two clients differ.
pub fn same(one: &[String], other: &[String], who: &str) {
    for (one, other) in one.iter().zip(other) {
        assert_eq!(one, other, "{who}");
    }
    assert_eq!(one.len(), other.len(), "{who}");
}

/// What a client prints as its digest.
pub fn of_lines(lines: &[String]) -> String {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
