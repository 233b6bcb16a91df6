//! Words that hide the actor. A reader of this field would not use them.

use super::mentions;

/// Name the actor instead: kube-ipvs, the kernel, the Service, the node, you.
const BANNED: &[&str] = &[
    "nobody",
    "somebody",
    "whoever",
    "everybody",
    "anew",
    "but for",
    "as good as",
    "cannot be had",
    "is said",
    "is told",
];

/// "what is missing" hides a noun, such as "the missing rules". A file may have as many of these as a heading needs.
const NOUN: &str = "what";
const MAX_NOUNS: usize = 1;

/// The list itself is here.
const LEFT_ALONE: &str = "xtask/src/tidy/";
/// A line of /etc/passwd for the user with this name.
const USER: &str = "nobody:x:";

pub(super) fn breaches(name: &str, text: &str) -> Vec<String> {
    if name.starts_with(LEFT_ALONE) {
        return Vec::new();
    }
    let mut breaches = nouns(name, text);
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.contains(USER)) {
        let line = line.to_lowercase();
        let found = BANNED.iter().filter(|form| mentions(&line, form));
        breaches.extend(found.map(|form| format!("{name}:{number}: \"{form}\": name the actor")));
    }
    breaches
}

/// The lines with [`NOUN`] in comments and in the text of pages, if there are too many of them.
fn nouns(name: &str, text: &str) -> Vec<String> {
    let is_page = name.ends_with(".md");
    let is_text = |line: &str| if is_page { !line.starts_with('|') } else { line.trim_start().starts_with("//") };
    // Quoted messages and code stay as they are.
    let plain = |line: &str| line.split(['`', '"']).step_by(2).collect::<String>().to_lowercase();
    let lines = (1..).zip(text.lines()).filter(|(_, line)| is_text(line) && mentions(&plain(line), NOUN));
    let found: Vec<_> = lines.map(|(number, _)| format!("{name}:{number}: \"{NOUN}\": use a noun")).collect();
    if found.len() > MAX_NOUNS { found } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banned_forms_are_reported_by_line_except_in_identifiers() {
        let text = "The kernel rejects it.\n// Nobody serves it, but for you.\nfn nobody_there() {}\n";
        let expected = ["a.rs:2: \"nobody\": name the actor", "a.rs:2: \"but for\": name the actor"];
        assert_eq!(breaches("a.rs", text), expected);
    }

    #[test]
    fn repeated_what_is_reported_in_comments_and_prose() {
        let comments = "// What is missing.\nlet what = 1; // what\n/// That is what it has.\n";
        let reported = ["a.rs:1: \"what\": use a noun", "a.rs:3: \"what\": use a noun"];
        assert_eq!(breaches("a.rs", comments), reported);
        assert_eq!(breaches("a.rs", "// What it changes\n"), [""; 0]);
        let page = "what is here\n| what | what |\nit says `what` and \"what\"\nand what not\n";
        assert_eq!(breaches("a.md", page).len(), 2);
    }
}
