//! Adds up the closing lines of many test executables: "test result: ok. 12 passed; 0 failed; 1 ignored; …".

use std::fmt;
use std::io::{self, Write};

/// Passes a stream through and counts the tests whose results it shows.
pub(crate) struct Tally<W> {
    out: W,
    line: Vec<u8>,
    pub(crate) counts: Counts,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl<W: Write> Tally<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, line: Vec::new(), counts: Counts::default() }
    }
}

impl<W: Write> Write for Tally<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buffer)?;
        for &byte in &buffer[..written] {
            if byte == b'\n' {
                self.counts.add(&String::from_utf8_lossy(&self.line));
                self.line.clear();
            } else {
                self.line.push(byte);
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Counts {
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        // "ok. 12 passed; 0 failed; …": the number stands before its word.
        let words: Vec<&str> = result.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let count = pair[0].parse().unwrap_or(0);
            match pair[1] {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, ignored } = self;
        let word = if *failed == 0 { "ok" } else { "FAILED" };
        write!(f, "test result: {word}. {passed} passed; {failed} failed; {ignored} ignored")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_results_whatever_the_chunks() {
        let text = "running 1 test\ntest result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s\n\
                    test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured\n";
        let mut tally = Tally::new(Vec::new());
        for chunk in text.as_bytes().chunks(7) {
            tally.write_all(chunk).unwrap();
        }
        assert_eq!(tally.counts, Counts { passed: 13, failed: 2, ignored: 1 });
        assert_eq!(tally.counts.to_string(), "test result: FAILED. 13 passed; 2 failed; 1 ignored");
        assert_eq!(tally.out, text.as_bytes());
    }
}
