//! Adds up the closing lines of many test executables: "test result: ok. 12 passed; 0 failed; 1 ignored; …".

use std::fmt;
use std::ops::AddAssign;

#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Counts {
    /// The count of one test with this result.
    pub(super) fn of(result: &str) -> Self {
        let mut counts = Self::default();
        match result {
            "ok" => counts.passed = 1,
            "FAILED" => counts.failed = 1,
            _ => counts.ignored = 1,
        }
        counts
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let result = line.strip_prefix("test result: ")?;
        let mut counts = Self::default();
        // "ok. 12 passed; 0 failed; …": the number comes before its word.
        let words: Vec<&str> = result.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let count = pair[0].parse().unwrap_or(0);
            match pair[1] {
                "passed" => counts.passed += count,
                "failed" => counts.failed += count,
                "ignored" => counts.ignored += count,
                _ => {}
            }
        }
        Some(counts)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, ignored } = self;
        let word = if *failed == 0 { "ok" } else { "FAILED" };
        write!(f, "test result: {word}. {passed} passed; {failed} failed; {ignored} ignored")
    }
}
