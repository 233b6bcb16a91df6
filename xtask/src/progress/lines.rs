//! What a test executable prints, line by line.

use super::Counts;

/// The marks that scenarios make, see tests/src/mark.rs.
const BEGUN: &str = "\u{1}begun ";
const WHY: &str = "\u{1}why ";

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A test has begun.
    Begun(String),
    /// Why a test is about to fail.
    Why(String, String),
    /// A test has ended, with libtest's word for it: ok, FAILED, ignored.
    Ended(String, String),
    /// An executable has ended.
    Counted(Counts),
    /// What stands around the tests of an executable, and says nothing.
    Frame,
    /// Anything else, with its end of line.
    Other(Vec<u8>),
}

/// Cuts a stream into lines, whatever its chunks.
#[derive(Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    pub(super) fn events(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                events.push(event(std::mem::take(&mut self.begun)));
            }
        }
        events
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
    if text.is_empty()
        || (text.starts_with("running ") && (text.ends_with(" tests") || text.ends_with(" test")))
    {
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
    fn every_line_is_read_whatever_the_chunks() {
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
    fn marks_say_what_has_begun_and_why_it_fails() {
        let text = "\u{1}begun a::b\n\u{1}why a::b expected 1\u{1}seen 2\n";
        let expected = [Event::Begun("a::b".into()), Event::Why("a::b".into(), "expected 1\nseen 2".into())];
        assert_eq!(all(text, 5), expected);
    }
}
