//! Ensures that `docs/drop-in-surface.md` has a verdict for every name in the lists of kube-proxy's releases.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// One list for each release, `1.37.txt`. A line is a kind and a name.
const LISTS: &str = "docs/surface";
const PAGE: &str = "docs/drop-in-surface.md";

/// Each kind has a table whose first column has its name.
const KINDS: [&str; 7] = ["flag", "field", "gate", "metric", "path", "file", "variable"];

const VERDICTS: [&str; 6] =
    ["same", "same, other default", "accepted without effect", "rejected with a reason", "not applicable", "missing"];

/// A kind and a name.
type Thing<'a> = (&'a str, &'a str);

pub(super) fn breaches(root: &Path) -> Result<Vec<String>> {
    let mut lists = BTreeMap::new();
    for entry in fs::read_dir(root.join(LISTS)).context(LISTS)? {
        let path = entry?.path();
        let release = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        lists.insert(release, fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?);
    }
    Ok(differences(&lists, &fs::read_to_string(root.join(PAGE)).context(PAGE)?))
}

/// `lists` are the texts by release.
fn differences(lists: &BTreeMap<String, String>, page: &str) -> Vec<String> {
    let releases: Vec<&str> = lists.keys().map(String::as_str).collect();
    let (mut listed, mut breaches) = (BTreeMap::<Thing<'_>, Vec<&str>>::new(), Vec::new());
    for (release, list) in lists {
        if !list.starts_with("# ") {
            breaches.push(format!("{LISTS}/{release}.txt: no head names its sources"));
        }
        for line in list.lines().filter(|line| !line.starts_with('#')) {
            match line.split_once(' ').filter(|(kind, _)| KINDS.contains(kind)) {
                Some(thing) => listed.entry(thing).or_default().push(release),
                None => breaches.push(format!("{LISTS}/{release}.txt: {line:?} does not begin with one of {KINDS:?}")),
            }
        }
    }
    let mut rows = BTreeSet::new();
    for (thing @ (kind, name), cells) in table_rows(page) {
        let of = format!("{PAGE}: the {kind} {name}");
        if !rows.insert(thing) {
            breaches.push(format!("{of} has two rows"));
        }
        match listed.get(&thing).map(|having| span(&releases, having)) {
            None => breaches.push(format!("{of} is in no list of {LISTS}")),
            Some(known) if cells.first() != Some(&&*known) => breaches.push(format!("{of} exists in {known}")),
            Some(_) => {}
        }
        if !cells.get(1).is_some_and(|verdict| VERDICTS.contains(verdict)) {
            breaches.push(format!("{of} has none of the verdicts {VERDICTS:?}"));
        }
    }
    let lacking = listed.keys().filter(|thing| !rows.contains(*thing));
    breaches.extend(lacking.map(|(kind, name)| format!("{PAGE}: the {kind} {name} has no row")));
    breaches
}

/// The rows of all tables about a kind, with the cells after the name.
fn table_rows(page: &str) -> Vec<(Thing<'_>, Vec<&str>)> {
    let (mut table, mut rows) = (None, Vec::new());
    for line in page.lines() {
        let mut cells = line.strip_prefix('|').into_iter().flat_map(|row| row.split('|')).map(str::trim);
        match (cells.next(), table) {
            (None, _) => table = None,
            (Some(first), None) => table = Some(KINDS.into_iter().find(|kind| *kind == first)),
            (Some(first), Some(Some(kind))) if first.starts_with('`') => {
                rows.push(((kind, first.trim_matches('`')), cells.collect()));
            }
            _ => {}
        }
    }
    rows
}

/// `1.34–1.37`, or `1.34`, or `1.34, 1.36`.
fn span(all: &[&str], having: &[&str]) -> String {
    match having {
        [first, .., last] if all.windows(having.len()).any(|window| window == having) => format!("{first}–{last}"),
        _ => having.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lists: [&str; 3], rows: &str) -> String {
        let lists =
            ["1.34", "1.35", "1.36"].into_iter().zip(lists).map(|(a, b)| (a.to_owned(), format!("# head\n{b}")));
        let page = format!(
            "| verdict | meaning |\n|---|---|\n| `x` | y |\n\n| flag | releases | verdict |\n|---|---|---|\n{rows}"
        );
        differences(&lists.collect(), &page).join("\n").replace(PAGE, "page").replace(LISTS, "lists")
    }

    const LISTED: [&str; 3] = ["flag --a\n", "flag --a\nflag --b\n", "flag --a\nflag --b\nflag --c\n"];

    #[test]
    fn page_with_a_row_for_each_name_is_tidy() {
        let rows = "| `--a` | 1.34–1.36 | same |\n| `--b` | 1.35–1.36 | missing |\n| `--c` | 1.36 | not applicable |\n";
        assert_eq!(check(LISTED, rows), "");
        assert_eq!(check(["flag --a\n", "", "flag --a\n"], "| `--a` | 1.34, 1.36 | same, other default |\n"), "");
    }

    #[test]
    fn missing_unknown_and_wrong_rows_are_reported() {
        let rows = "| `--a` | 1.34–1.35 | same |\n| `--b` | 1.35–1.36 | good |\n| `--d` | 1.36 | same |\n| `--a` | 1.34–1.36 | same |\n";
        let expected = [
            "page: the flag --a exists in 1.34–1.36",
            "page: the flag --b has none of the verdicts",
            "page: the flag --d is in no list of lists",
            "page: the flag --a has two rows",
            "page: the flag --c has no row",
        ];
        let found = check(LISTED, rows);
        assert_eq!(found.lines().count(), expected.len(), "{found}");
        assert!(found.lines().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{found}");
    }

    #[test]
    fn list_without_head_or_with_an_unknown_kind_is_reported() {
        let lists = BTreeMap::from([("1.34".to_owned(), "flags --a\n".to_owned())]);
        let found = differences(&lists, "").join("\n");
        assert!(found.starts_with("docs/surface/1.34.txt: no head"), "{found}");
        assert!(found.contains("\"flags --a\" does not begin with one of"), "{found}");
    }
}
