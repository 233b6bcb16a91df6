//! Remarks about a valid object. Their length is bounded, however large the object is.

use std::borrow::Cow;

use crate::Invalid;

/// How many reasons are reported for one object. The others are counted.
const MAX_REASONS: usize = 10;
const MAX_QUOTED: usize = 64;

/// Parts of a valid object that have no effect, and why. Report them to the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Annotations that are invalid or not allowed. They count as absent.
    pub ignored: Reasons,
    /// Parts that are invalid for every node, such as an external IP 127.0.0.1. A program that reads files can reject
    /// the object instead.
    pub left_out: Reasons,
}

impl Remarks {
    /// Sentences for a log. Their length is bounded.
    pub fn into_messages(self) -> impl Iterator<Item = Invalid> {
        let left_out = self.left_out.into_messages().map(|Invalid { field, message }| {
            let message = message + "; it is left out, and the rest is applied";
            Invalid { field, message }
        });
        self.ignored.into_messages().chain(left_out)
    }
}

/// Reasons why parts of an object have no effect. Each entry of the object can have one: the first few are kept, the
/// others counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasons {
    first: Vec<Invalid>,
    more: usize,
}

impl Reasons {
    /// The first reasons, and how many more there are.
    pub fn into_messages(self) -> impl Iterator<Item = Invalid> {
        // If all reasons are about one field, the count names it.
        let field = self.first.first().map(|reason| reason.field.clone()).unwrap_or_default();
        let is_one = self.first.iter().all(|reason| reason.field == field);
        let field = if is_one { field } else { String::new() };
        let more = (self.more > 0).then(|| Invalid::new(field, format!("and {} more", self.more)));
        self.first.into_iter().chain(more)
    }
}

impl Extend<Invalid> for Reasons {
    fn extend<T: IntoIterator<Item = Invalid>>(&mut self, reasons: T) {
        for reason in reasons {
            if self.first.len() < MAX_REASONS {
                self.first.push(reason);
            } else {
                self.more += 1;
            }
        }
    }
}

/// Quotes a value for a message, and shortens it.
pub(crate) fn quoted(value: &str) -> String {
    let beginning = beginning(value, MAX_QUOTED);
    let rest = if beginning.len() < value.len() { "…" } else { "" };
    format!("{beginning:?}{rest}")
}

pub(crate) fn cut(value: &str) -> Cow<'_, str> {
    cut_to(MAX_QUOTED, value)
}

pub(crate) fn cut_to(longest: usize, text: &str) -> Cow<'_, str> {
    match beginning(text, longest) {
        whole if whole.len() == text.len() => text.into(),
        beginning => format!("{beginning}…").into(),
    }
}

fn beginning(text: &str, longest: usize) -> &str {
    text.char_indices().nth(longest).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(fields: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut reasons = Reasons::default();
        reasons.extend(fields.into_iter().map(|field| Invalid::new(field, "is wrong")));
        reasons.into_messages().map(|reason| format!("{}: {}", reason.field, reason.message)).collect()
    }

    #[test]
    fn reasons_beyond_ten_are_only_counted() {
        assert!(reasons([]).is_empty());
        let messages = reasons((0..10).map(|number| format!("a[{number}]")));
        assert_eq!((messages.len(), messages[9].as_str()), (10, "a[9]: is wrong"));
        let messages = reasons((0..20_000).map(|number| format!("a[{number}]")));
        assert_eq!((messages.len(), messages[10].as_str()), (11, ": and 19990 more"));
        let messages = reasons((0..11).map(|_| "a".into()));
        assert_eq!(messages[10], "a: and 1 more");
    }

    #[test]
    fn quoted_values_are_cut_after_64_characters() {
        assert_eq!(quoted(&"x".repeat(64)), format!("{:?}", "x".repeat(64)));
        assert_eq!(quoted(&"ä".repeat(65)), format!("{:?}…", "ä".repeat(64)));
        assert!(quoted(&"\u{1}".repeat(1 << 18)).len() < 1000);
        assert_eq!(cut("short"), "short");
    }
}
