//! What the tour prints: a heading per step, what was done and what came out, and a table of all steps.
//!
//! Plain text; colour only for verdicts, and only on a terminal. If nobody reads it any more the tour goes on: its
//! exit code counts, and everything must be removed at the end anyway.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Columns of the result in the table; longer ones are cut.
const RESULT_WIDTH: usize = 62;
/// Columns of a step's name.
const NAME_WIDTH: usize = 24;

/// Prints, and remembers how the steps ended.
pub struct Report {
    colours: bool,
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    is_good: bool,
    result: String,
    took: Duration,
}

impl Report {
    /// On stdout.
    pub fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colours: wanted && io::stdout().is_terminal(), steps: Vec::new() }
    }

    /// A line as it is.
    pub fn line(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        // See the module's head.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// A fact with its name.
    pub fn fact(&mut self, name: &str, text: &str) {
        self.line(&format!("  {name:<9} {text}"));
    }

    /// The next step begins.
    pub fn begin(&mut self, name: &'static str) -> Instant {
        let number = self.steps.len() + 1;
        self.line(&format!("\n{number}  {name}"));
        Instant::now()
    }

    /// A command that is run.
    pub fn runs(&mut self, command: &str) {
        self.line(&format!("   $ {command}"));
    }

    /// What is done, where it is no command.
    pub fn does(&mut self, text: &str) {
        self.line(&format!("   - {text}"));
    }

    /// What came out.
    pub fn came(&mut self, text: &str) {
        self.line(&format!("     {text}"));
    }

    /// How the step that began `since` ended.
    pub fn end(&mut self, name: &'static str, since: Instant, outcome: Result<String, String>) {
        let is_good = outcome.is_ok();
        let result = outcome.unwrap_or_else(|error| error);
        let took = since.elapsed();
        let verdict = self.verdict(is_good);
        if is_good {
            self.line(&format!("   {verdict}"));
        } else {
            self.line(&format!("   {verdict}: {}", result.trim_end().replace('\n', "\n     ")));
        }
        self.steps.push(Step { name, is_good, result, took });
    }

    /// How many steps failed.
    pub fn failed(&self) -> usize {
        self.steps.iter().filter(|step| !step.is_good).count()
    }

    /// All steps.
    pub fn table(&mut self) {
        let rule =
            format!("   {}  {}  {}  {}", "-".repeat(NAME_WIDTH), "-".repeat(RESULT_WIDTH), "-".repeat(6), "------");
        self.line(&format!(
            "\n   {:<NAME_WIDTH$}  {:<RESULT_WIDTH$}  {:<6}  {:>6}",
            "step", "what came out", "", "took"
        ));
        self.line(&rule);
        let steps = std::mem::take(&mut self.steps);
        for (place, Step { name, is_good, result, took }) in steps.iter().enumerate() {
            let name = format!("{} {name}", place + 1);
            let first = result.lines().next().unwrap_or_default();
            let result: String = first.chars().take(RESULT_WIDTH).collect();
            // Codes count as characters: pad the word, not what is printed.
            let pad = if *is_good { "    " } else { "" };
            let verdict = self.verdict(*is_good);
            let seconds = took.as_secs_f64();
            self.line(&format!("   {name:<NAME_WIDTH$}  {result:<RESULT_WIDTH$}  {verdict}{pad}  {seconds:>4.1} s"));
        }
        self.steps = steps;
        self.line(&rule);
    }

    /// The tour is over.
    pub fn leave(&mut self) {
        self.line("\nStopping the proxy and the databases, removing their folders ...");
    }

    fn verdict(&self, is_good: bool) -> &'static str {
        match (is_good, self.colours) {
            (true, false) => "ok",
            (true, true) => "\x1b[32mok\x1b[0m",
            (false, false) => "FAILED",
            (false, true) => "\x1b[31mFAILED\x1b[0m",
        }
    }
}
