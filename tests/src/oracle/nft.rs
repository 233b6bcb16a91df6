//! Parses `nft -j list table`: sets and maps with their elements as lines of text.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::namespace::Namespace;

/// The elements of every set and map, sorted. The key is `FAMILY SET`.
pub type Sets = BTreeMap<String, Vec<String>>;

pub(super) fn sets(namespace: &Namespace) -> Result<Sets> {
    let mut sets = Sets::new();
    for family in ["ip", "ip6"] {
        let output = namespace.output("nft", &["-j", "list", "table", family, "kube-ipvs"])?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            if said.contains("No such file or directory") {
                continue;
            }
            bail!("nft list table {family} kube-ipvs: {said}");
        }
        parse(family, &String::from_utf8_lossy(&output.stdout), &mut sets)?;
    }
    Ok(sets)
}

pub(super) fn packets(namespace: &Namespace, comment: &str) -> Result<u64> {
    // `-t` omits the elements of sets, which can be many.
    let rules = namespace.run("nft", &["-t", "list", "ruleset"])?;
    let comment = format!("comment \"{comment}\"");
    let counted = rules.lines().filter(|line| line.ends_with(&comment)).map(|line| {
        let packets = line.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        packets.with_context(|| format!("no counter: {line}"))?.parse::<u64>().context("a counter")
    });
    let counted = counted.collect::<Result<Vec<u64>>>()?;
    anyhow::ensure!(!counted.is_empty(), "no rule has the {comment} on {}", namespace.name());
    Ok(counted.iter().sum())
}

fn parse(family: &str, text: &str, sets: &mut Sets) -> Result<()> {
    let listing: Value = serde_json::from_str(text).context("the output of nft -j")?;
    for item in listing["nftables"].as_array().context("nft -j printed no list")? {
        let Some(set) = ["set", "map"].into_iter().find_map(|kind| item.get(kind)) else { continue };
        let name = set["name"].as_str().context("a set without a name")?;
        let mut elements: Vec<String> =
            set["elem"].as_array().into_iter().flatten().map(element).collect::<Result<_>>()?;
        elements.sort();
        sets.insert(format!("{family} {name}"), elements);
    }
    Ok(())
}

/// One element, as nft's text output writes it.
fn element(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Array(pair) if pair.len() == 2 => Ok(format!("{} : {}", element(&pair[0])?, element(&pair[1])?)),
        Value::Object(object) => {
            if let Some(Value::Array(parts)) = object.get("concat") {
                let parts: Vec<String> = parts.iter().map(element).collect::<Result<_>>()?;
                Ok(parts.join(" . "))
            } else if let Some(inner) = object.get("elem") {
                element(&inner["val"])
            } else if let Some(prefix) = object.get("prefix") {
                Ok(format!("{}/{}", element(&prefix["addr"])?, element(&prefix["len"])?))
            } else if let Some(Value::Array(range)) = object.get("range") {
                Ok(range.iter().map(element).collect::<Result<Vec<_>>>()?.join("-"))
            } else {
                // Verdicts and other expressions.
                Ok(value.to_string())
            }
        }
        _ => Ok(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFT: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "ip", "name": "kube-ipvs", "handle": 4}},
        {"set": {"family": "ip", "name": "vips", "table": "kube-ipvs", "type": "ipv4_addr", "handle": 1,
            "elem": ["10.96.0.10", "10.96.0.1"]}},
        {"set": {"family": "ip", "name": "served", "table": "kube-ipvs", "handle": 2,
            "elem": [{"concat": ["10.96.0.10", "udp", 53]}, {"elem": {"val": {"concat": ["10.96.0.1", "tcp", 443]},
            "counter": {"packets": 1, "bytes": 2}}}]}},
        {"set": {"family": "ip", "name": "firewall-allowed", "table": "kube-ipvs", "handle": 3,
            "elem": [{"concat": ["10.96.0.1", "tcp", 443, {"prefix": {"addr": "10.0.0.0", "len": 8}}]}]}},
        {"map": {"family": "ip", "name": "short-cut", "table": "kube-ipvs", "handle": 5, "map": "ipv4_addr",
            "elem": [[{"concat": ["1.2.3.4", "tcp", 80]}, {"concat": ["10.96.0.1", 443]}]]}},
        {"set": {"family": "ip", "name": "empty", "table": "kube-ipvs", "type": "ipv4_addr", "handle": 6}},
        {"chain": {"family": "ip", "table": "kube-ipvs", "name": "input", "handle": 9}}]}"#;

    #[test]
    fn nft_sets_and_maps_are_parsed() {
        let mut sets = Sets::new();
        parse("ip", NFT, &mut sets).unwrap();
        let lines: Vec<String> =
            sets.iter().map(|(name, elements)| format!("{name}: {}", elements.join(", "))).collect();
        assert_eq!(
            lines,
            [
                "ip empty: ",
                "ip firewall-allowed: 10.96.0.1 . tcp . 443 . 10.0.0.0/8",
                "ip served: 10.96.0.1 . tcp . 443, 10.96.0.10 . udp . 53",
                "ip short-cut: 1.2.3.4 . tcp . 80 : 10.96.0.1 . 443",
                "ip vips: 10.96.0.1, 10.96.0.10",
            ]
        );
    }
}
