//! `cargo xtask tidy`: the layering and the house rules that the compiler does not check.

mod dependencies;
mod features;
mod surface;
mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::workspace::Workspace;

/// The libraries, the lowest first: direct and indirect dependencies point down.
const LAYERS: [&str; 4] = ["netlink-batch", "ipvs-netlink", "kube-ipvs-proxier", "kube-ipvs-proxier-kubernetes"];

/// No library depends on these: a program that embeds a library gets no runtime.
const ABOVE: [&str; 5] = ["kube-ipvs", "tokio", "kube", "k8s-openapi", "rtnetlink"];

/// Forbidden in the pure part of proxier (outside linux/), which does no I/O and has no clock.
const IMPURE: &[&str] = &[
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "Instant::now",
    "SystemTime::now",
    "std::thread",
    "std::fs",
    "std::process",
    "netlink_",
    "rustix",
    "tokio",
    "kube::",
    "k8s_openapi",
];

const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// The scenarios that pages name as `module::test`.
const SCENARIOS: &str = "tests/tests/scenarios";

const LONGEST_FILE: usize = 500;
/// Maximum characters of a line in comments and in the text of pages. rustfmt limits code.
const WIDEST: usize = 120;

pub(crate) fn run() -> Result<ExitCode> {
    check(&Workspace::load()?)?;
    Ok(ExitCode::SUCCESS)
}

/// Reports every breach, not only the first.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(&workspace.root);
    let mut breaches = Vec::new();
    for (krate, higher) in LAYERS.iter().zip(1..) {
        let tree = cmd!(sh, "cargo tree --quiet --package {krate} --edges normal --prefix none").quiet().read()?;
        breaches.extend(layer_breaches(krate, &tree, &[&LAYERS[higher..], &ABOVE].concat()));
    }
    breaches.extend(features::breaches(&sh)?);
    breaches.extend(dependencies::breaches(&sh)?);
    breaches.extend(surface::breaches(&workspace.root)?);
    let listed = cmd!(sh, "git ls-files --cached --others --exclude-standard").quiet().read()?;
    for name in listed.lines() {
        let path = workspace.root.join(name);
        // git lists a deleted file until the deletion is committed.
        if path.is_file() && name.ends_with(".rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {name}"))?;
            breaches.extend(source_breaches(name, &text));
            breaches.extend(words::breaches(name, &text));
            let comments = |line: &str| line.trim_start().starts_with("//");
            breaches.extend(width_breaches(name, &text, comments));
        } else if path.is_file() && name.ends_with(".md") {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {name}"))?;
            breaches.extend(link_breaches(name, &text, |target| target.exists(), &workspace.root));
            breaches.extend(shown_by_breaches(name, &text, &workspace.root));
            breaches.extend(width_breaches(name, &text, prose()));
            breaches.extend(words::breaches(name, &text));
        }
    }
    for breach in &breaches {
        eprintln!("tidy: {breach}");
    }
    ensure!(breaches.is_empty(), "{} breaches of the project's rules", breaches.len());
    Ok(())
}

/// `tree` is the output of cargo tree: "name version (…)" a line, the crate itself first.
fn layer_breaches(krate: &str, tree: &str, forbidden: &[&str]) -> Vec<String> {
    let mut found: Vec<&str> = tree
        .lines()
        .skip(1)
        .filter_map(|line| line.split(' ').next())
        .filter(|name| forbidden.contains(name))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|name| format!("{krate} must not depend on {name}")).collect()
}

/// Tells which lines of a page are text: neither code nor a table, whose lines cannot be wrapped.
fn prose() -> impl FnMut(&str) -> bool {
    let mut is_code = false;
    move |line| {
        let fence = line.trim_start().starts_with("```");
        is_code ^= fence;
        !is_code && !fence && !line.starts_with('|')
    }
}

fn width_breaches(name: &str, text: &str, mut counts: impl FnMut(&str) -> bool) -> Vec<String> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| counts(line));
    let wide = lines.filter(|(_, line)| line.chars().count() > WIDEST);
    wide.map(|(number, _)| format!("{name}:{number}: longer than {WIDEST} characters")).collect()
}

fn source_breaches(name: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        breaches.push(format!("{name} has {lines} lines; {LONGEST_FILE} is the limit"));
    }
    // These rules are about the project's code. In xtask the words occur in rules and tests.
    if name.starts_with("xtask/") {
        return breaches;
    }
    let pure = name.strip_prefix("crates/proxier/src/").is_some_and(|rest| !rest.starts_with("linux"));
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        let mut forbid = |words: &[&str], why: &str| {
            for word in words.iter().filter(|word| mentions(code, word)) {
                breaches.push(format!("{name}:{number}: {word}: {why}"));
            }
        };
        forbid(UNFINISHED, "unfinished");
        if name.starts_with("crates/") {
            forbid(&["unsafe"], "the crates have no unsafe code");
        }
        if pure {
            forbid(IMPURE, "outside linux/ proxier does no I/O and has no clock");
        }
    }
    breaches
}

/// Tests that a table of `name` names must exist: `module::test` of the scenarios, or `file.rs::test` of any crate.
fn shown_by_breaches(name: &str, text: &str, root: &Path) -> Vec<String> {
    let rows = text.lines().filter(|line| name.starts_with("docs/") && line.starts_with('|'));
    let named = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter_map(|code| code.split_once("::"));
    let exists = |(place, test): &(&str, &str)| {
        let files = match place.ends_with(".rs") {
            true => vec![root.join(place)],
            false => ["", "/mod"].map(|end| root.join(SCENARIOS).join(format!("{place}{end}.rs"))).into(),
        };
        let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
        texts.into_iter().any(|text| text.contains(&format!("fn {test}()")))
    };
    let missing = named.filter(|test| !exists(test));
    missing.map(|(place, test)| format!("{name}: there is no test {place}::{test}")).collect()
}

/// Whether `word` occurs in the code, not as the end of a longer name (nor, for `unsafe`, as the start of one).
fn mentions(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(part) && (word.ends_with(['_', ':', '!']) || !after.is_some_and(part))
    })
}

/// Links `[text](path#anchor)` of a Markdown page to missing files. Code blocks are skipped.
fn link_breaches(name: &str, text: &str, exists: impl Fn(&Path) -> bool, root: &Path) -> Vec<String> {
    let directory = Path::new(name).parent().unwrap_or(Path::new(""));
    let mut breaches = Vec::new();
    let mut in_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        for (at, _) in line.match_indices("](").filter(|_| !in_code) {
            let target = line[at + 2..].split(')').next().unwrap_or_default();
            let path = target.split(['#', ' ']).next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            let file: PathBuf = match path.strip_prefix('/') {
                Some(absolute) => root.join(absolute),
                None => root.join(directory).join(path),
            };
            if !exists(&file) {
                breaches.push(format!("{name}:{number}: the link {target} is dead"));
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_dependency_is_reported() {
        let tree = "proxier v0.1.0 (/x/proxier)\nipnet v2.11.0\ntokio v1.0.0\nfutures v0.3.0\ntokio v1.0.0 (*)\n";
        assert_eq!(layer_breaches("proxier", tree, &["tokio", "kube"]), ["proxier must not depend on tokio"]);
        assert!(layer_breaches("proxier", "proxier v0.1.0\nipnet v2.11.0\n", &["tokio", "proxier"]).is_empty());
    }

    #[test]
    fn overlong_file_is_reported() {
        assert_eq!(source_breaches("xtask/src/a.rs", &"\n".repeat(LONGEST_FILE)).len(), 0);
        assert_eq!(source_breaches("xtask/src/a.rs", &"\n".repeat(LONGEST_FILE + 1)).len(), 1);
    }

    #[test]
    fn unfinished_and_unsafe_code_is_reported() {
        for call in UNFINISHED {
            assert_eq!(source_breaches("tests/src/lib.rs", &format!("fn a() {{ {call}() }}\n")).len(), 1, "{call}");
        }
        assert_eq!(source_breaches("crates/a/src/lib.rs", "unsafe { x() }\n").len(), 1);
        assert!(source_breaches("crates/a/src/lib.rs", "#![forbid(unsafe_code)]\n// todo! and unsafe\n").is_empty());
    }

    #[test]
    fn impure_code_in_pure_proxier_is_reported() {
        for line in [
            "let now = Instant::now();",
            "use std::fs;",
            "use netlink_sys::Socket;",
            "use tokio::time;",
            "use kube::Api;",
        ] {
            assert_eq!(source_breaches("crates/proxier/src/engine.rs", line).len(), 1, "{line}");
            assert!(source_breaches("crates/proxier/src/linux/ipvs.rs", line).is_empty(), "{line}");
        }
        assert!(source_breaches("crates/proxier/src/kernel.rs", "use std::net::IpAddr; let my_tokio = 1;").is_empty());
    }

    #[test]
    fn overlong_lines_of_text_are_reported() {
        let long = "word ".repeat(30);
        let page = format!("{long}\n| {long} |\n```\n{long}\n```\nshort\n");
        assert_eq!(width_breaches("a.md", &page, prose()), ["a.md:1: longer than 120 characters"]);
        assert_eq!(width_breaches("a.rs", &format!("x();\n// {long}\n"), |_| true).len(), 1);
    }

    #[test]
    fn tests_that_pages_name_must_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let check = |text| shown_by_breaches("docs/page.md", text, &root);
        assert_eq!(check("| `spread::three_hundred_requests_are_spread_evenly_over_three_pods`, `nothing` |"), [""; 0]);
        assert_eq!(check("| `a::b` |"), ["docs/page.md: there is no test a::b"]);
        assert_eq!(check("| `crates/kube-ipvs/src/command/tests.rs::kops_command_line_is_accepted` |"), [""; 0]);
        assert_eq!(check("| `xtask/a.rs::b` |"), ["docs/page.md: there is no test xtask/a.rs::b"]);
    }

    #[test]
    fn dead_link_is_reported() {
        let exists = |path: &Path| path == Path::new("/r/docs/a.md");
        let text =
            "[a](a.md#x) [up](../docs/a.md) [web](https://x.y/z) [here](#there) [dead](b.md)\n```\n[code](c.md)\n```\n";
        let breaches =
            link_breaches("docs/i.md", text, |path| exists(path) || path.ends_with("../docs/a.md"), Path::new("/r"));
        assert_eq!(breaches, ["docs/i.md:1: the link b.md is dead"]);
    }
}
