//! Parses the output of a test executable, line by line.

use super::Counts;

/// The marks of scenarios, see tests/src/mark.rs.
const BEGUN: &str = "\u{1}begun ";
const WHY: &str = "\u{1}why ";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Begun(String),
    /// A test is about to fail, with the reason.
    Why(String, String),
    /// The output of a failed test: some lines from its panic or error on.
    Printed(String, String),
    /// A test has ended, with libtest's result: ok, FAILED, ignored.
    Ended(String, String),
    Counted(Counts),
    /// Lines around the tests of an executable that carry no information.
    Frame,
    /// Any other line, with its end of line.
    Other(Vec<u8>),
}

/// Splits a stream into lines. A chunk can end anywhere.
#[derive(Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    /// The test whose output libtest repeats, and its lines so far.
    printed: Option<(String, Vec<String>)>,
}

/// How many lines of a failed test are repeated at the end: the location and the message of the panic.
const REPEATED: usize = 8;

impl Lines {
    pub(super) fn events(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.begun);
                events.extend(self.print(&String::from_utf8_lossy(&line)));
                events.push(event(line));
            }
        }
        events
    }

    /// Collects the output that libtest repeats of a failed test, from `---- NAME stdout ----` on.
    fn print(&mut self, line: &str) -> Option<Event> {
        let line = line.trim_end();
        let name = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if name.is_none() && line != "failures:" {
            if let Some((_, lines)) = &mut self.printed {
                if line.contains("panicked at ") || line.starts_with("Error: ") {
                    lines.clear();
                }
                if lines.len() < REPEATED && !line.is_empty() {
                    lines.push(line.to_owned());
                }
            }
            return None;
        }
        let ended = std::mem::replace(&mut self.printed, name.map(|name| (name.to_owned(), Vec::new())));
        ended.map(|(name, lines)| Event::Printed(name, lines.join("\n")))
    }
}

fn event(line: Vec<u8>) -> Event {
    let text = String::from_utf8_lossy(&line);
    let text = text.trim_end_matches('\n');
    if let Some(name) = text.strip_prefix(BEGUN) {
        return Event::Begun(name.to_owned());
    }
    if let Some((name, why)) = text.strip_prefix(WHY).and_then(|rest| rest.split_once(' ')) {
        return Event::Why(name.to_owned(), why.replace('\u{1}', "\n"));
    }
    if let Some(counts) = Counts::parse(text) {
        return Event::Counted(counts);
    }
    if text.is_empty() || (text.starts_with("running ") && (text.ends_with(" tests") || text.ends_with(" test"))) {
        return Event::Frame;
    }
    if text.ends_with(" has been running for over 60 seconds") {
        return Event::Frame;
    }
    let ended = text.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "));
    match ended {
        Some((name, result)) => Event::Ended(name.to_owned(), result.to_owned()),
        None => Event::Other(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, chunk: usize) -> Vec<Event> {
        let mut lines = Lines::default();
        text.as_bytes().chunks(chunk).flat_map(|chunk| lines.events(chunk)).collect()
    }

    #[test]
    fn lines_parse_the_same_for_every_chunk_size() {
        let text = "\nrunning 2 tests\ntest a::b ... ok\ntest src/lib.rs - c (line 3) ... FAILED\nfailures:\n\
                    test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out\n";
        let expected = [
            Event::Frame,
            Event::Frame,
            Event::Ended("a::b".into(), "ok".into()),
            Event::Ended("src/lib.rs - c (line 3)".into(), "FAILED".into()),
            Event::Other(b"failures:\n".to_vec()),
            Event::Counted(Counts { passed: 1, failed: 1, ignored: 0 }),
        ];
        for chunk in [1, 7, 1000] {
            assert_eq!(all(text, chunk), expected);
        }
    }

    #[test]
    fn output_of_a_failed_test_is_repeated() {
        let text = "failures:\n\n---- a::b stdout ----\nlogged\n\npanicked at src/lib.rs:1:2:\nleft: 1\n\n---- c stdout ----\nno\n\n\nfailures:\n    \
                    a::b\n";
        let printed: Vec<Event> =
            all(text, 4).into_iter().filter(|event| matches!(event, Event::Printed(..))).collect();
        let expected = [
            Event::Printed("a::b".into(), "panicked at src/lib.rs:1:2:\nleft: 1".into()),
            Event::Printed("c".into(), "no".into()),
        ];
        assert_eq!(printed, expected);
    }

    #[test]
    fn scenario_marks_become_begun_and_why_events() {
        let text = "\u{1}begun a::b\n\u{1}why a::b expected 1\u{1}seen 2\n";
        let expected = [Event::Begun("a::b".into()), Event::Why("a::b".into(), "expected 1\nseen 2".into())];
        assert_eq!(all(text, 5), expected);
    }
}
