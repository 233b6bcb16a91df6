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
    "what nobody",
];

/// The list itself is here.
const LEFT_ALONE: &str = "xtask/src/tidy/";
/// A line of /etc/passwd for the user with this name.
const USER: &str = "nobody:x:";

pub(super) fn breaches(name: &str, text: &str) -> Vec<String> {
    if name.starts_with(LEFT_ALONE) {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.contains(USER)) {
        let line = line.to_lowercase();
        let found = BANNED.iter().filter(|form| mentions(&line, form));
        breaches.extend(found.map(|form| format!("{name}:{number}: \"{form}\": name the actor")));
    }
    breaches
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
}
