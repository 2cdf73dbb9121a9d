//! What was measured: kept by cell, written down at once, and shown as tables of medians and of ratios within a round.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Result, Sample, median, ratio};

/// Samples by section, clients and variant, in the order of the rounds.
pub struct Results {
    /// Where every sample is written down.
    file: &'static str,
    /// The variant that the others are put beside, and its name in a heading.
    peer: (&'static str, &'static str),
    samples: BTreeMap<(String, u32), BTreeMap<&'static str, Vec<Sample>>>,
    lines: String,
}

impl Results {
    pub fn new(file: &'static str, peer: (&'static str, &'static str)) -> Self {
        Self { file, peer, samples: BTreeMap::new(), lines: String::new() }
    }

    pub fn add(&mut self, section: &str, clients: u32, variant: &'static str, sample: Sample) -> Result<()> {
        let cell = self.samples.entry((section.to_owned(), clients)).or_default().entry(variant).or_default();
        cell.push(sample);
        let Sample { per_second, p50_us, p99_us, cpu_us } = sample;
        let round = cell.len();
        let _ = writeln!(
            self.lines,
            "{section}\t{clients}\t{round}\t{variant}\t{per_second:.1}\t{p50_us:.1}\t{p99_us:.1}\t{cpu_us:.2}"
        );
        // At once, so that a run that is cut short leaves what it has.
        self.save().map(drop)
    }

    /// What there is of a section, with the variants in this order.
    pub fn table<'a>(&self, section: &str, variants: impl Iterator<Item = &'a str> + Clone, unit: &str) {
        let (peer, title) = self.peer;
        println!("\n## {section}\n");
        println!("| clients | variant | {unit} | p50 µs | p99 µs | cpu µs | cpu / {title}'s | {unit} / {title}'s |");
        println!("|---|---|---|---|---|---|---|---|");
        for ((of, clients), cells) in &self.samples {
            if of != section {
                continue;
            }
            for name in variants.clone().filter(|name| cells.contains_key(name)) {
                let all = |variant: &str, figure: fn(&Sample) -> f64| -> Vec<f64> {
                    cells.get(variant).into_iter().flatten().map(figure).collect()
                };
                let show = |figure: fn(&Sample) -> f64, digits: usize| {
                    let value = median(all(name, figure));
                    if value.is_nan() { "-".to_owned() } else { format!("{value:.digits$}") }
                };
                let beside = |figure: fn(&Sample) -> f64| ratio(&all(name, figure), &all(peer, figure));
                println!(
                    "| {clients} | {name} | {} | {} | {} | {} | {} | {} |",
                    show(|sample| sample.per_second, 0),
                    show(|sample| sample.p50_us, 0),
                    show(|sample| sample.p99_us, 0),
                    show(|sample| sample.cpu_us, 1),
                    beside(|sample| sample.cpu_us),
                    beside(|sample| sample.per_second),
                );
            }
        }
    }

    pub fn save(&self) -> Result<PathBuf> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?.join("bench");
        fs::create_dir_all(&folder)?;
        let file = folder.join(self.file);
        let head = "section\tclients\tround\tvariant\tper_second\tp50_us\tp99_us\tcpu_us\n";
        fs::write(&file, head.to_owned() + &self.lines)?;
        Ok(file)
    }
}
