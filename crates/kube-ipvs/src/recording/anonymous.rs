//! Other names and addresses for a recording. It replays as before, because the order of names and addresses stays, and
//! each address stays in the same ranges.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Context;
use serde_json::Value;

/// The lines of a recording with other names and addresses. Ports, numbers and the texts of errors stay.
///
/// # Errors
///
/// If a line is no JSON.
pub fn anonymous(text: &str) -> anyhow::Result<String> {
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).enumerate();
    let parsed = lines.map(|(number, line)| serde_json::from_str(line).with_context(|| format!("line {}", number + 1)));
    let mut values = parsed.collect::<anyhow::Result<Vec<Value>>>()?;
    let mut found = Found::default();
    values.iter_mut().for_each(|value| walk(value, Place::Text, &mut |text, place| found.take(text, place)));
    if let Some(Value::Object(start)) = values.first_mut().and_then(|entry| entry.get_mut("Start")) {
        start.insert("anonymous".to_owned(), true.into());
    }
    let known = found.sorted();
    values.iter_mut().for_each(|value| walk(value, Place::Text, &mut |text, place| known.replace(text, place)));
    Ok(values.iter().map(|value| format!("{value}\n")).collect())
}

/// The meaning of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The name of an object, of a zone or of a port.
    Name,
    /// Names between `/` and `:`.
    Path,
    /// Other text, with addresses. Paths are in quotes.
    Text,
    /// The name of a variant or of a field, or text of kube-ipvs.
    Fixed,
}

impl Place {
    /// The place of the values of a field.
    fn of(field: &str) -> Self {
        match field {
            "namespace" | "name" | "node" | "zone" | "hostname" | "zones" | "nodes" | "node_weights"
            | "NodeRemoved" | "ServiceCidrRemoved" => Self::Name,
            "comment" => Self::Path,
            "version" => Self::Fixed,
            _ => Self::Text,
        }
    }
}

/// Replaces each text of a value by the result of `work`.
fn walk(value: &mut Value, place: Place, work: &mut impl FnMut(&str, Place) -> String) {
    match value {
        Value::String(text) => *text = work(text, place),
        Value::Array(values) => values.iter_mut().for_each(|value| walk(value, place, work)),
        Value::Object(fields) => {
            for (field, mut value) in std::mem::take(fields) {
                walk(&mut value, Place::of(&field), work);
                fields.insert(work(&field, if place == Place::Name { Place::Name } else { Place::Text }), value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces the parts of a text that are addresses or ranges, and the paths in quotes.
fn parts(text: &str, address: &mut impl FnMut(&str) -> String, path: &mut impl FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    for (number, part) in text.split('"').enumerate() {
        match number % 2 {
            1 => out.extend(["\"", &path(part), "\""]),
            _ => {
                let is_separator = |c: char| !c.is_ascii_hexdigit() && !matches!(c, ':' | '.' | '/');
                out.extend(part.split_inclusive(is_separator).flat_map(|token| {
                    let end = token.trim_end_matches(is_separator).len();
                    [address(&token[..end]), token[end..].to_owned()]
                }));
            }
        }
    }
    out
}

/// The number of a text with an address: itself, an address with a port, or a range.
fn parse(text: &str) -> Option<(IpAddr, u8, String)> {
    let whole = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address, whole(address), String::new()));
    }
    if let Some((address, length)) = text.split_once('/') {
        let range: ipnet::IpNet = text.parse().ok()?;
        return Some((address.parse().ok()?, range.prefix_len(), format!("/{length}")));
    }
    let (address, rest) = text.split_at(text.find(':')?);
    let address: Ipv4Addr = address.parse().ok()?;
    Some((address.into(), 32, rest.to_owned()))
}

/// The names and addresses of a recording.
#[derive(Debug, Default)]
struct Found {
    names: BTreeSet<String>,
    ranges: BTreeSet<Prefix>,
}

impl Found {
    fn take(&mut self, text: &str, place: Place) -> String {
        let Self { names, ranges } = self;
        let mut address = |text: &str| {
            ranges.extend(parse(text).map(|(address, length, _)| Prefix::new(address, length)));
            String::new()
        };
        let mut path = |text: &str| {
            names.extend(text.split(['/', ':']).map(str::to_owned));
            String::new()
        };
        match place {
            Place::Name => drop(names.insert(text.to_owned())),
            Place::Path => drop(path(text)),
            Place::Text => drop(parts(text, &mut address, &mut path)),
            Place::Fixed => {}
        }
        text.to_owned()
    }

    fn sorted(mut self) -> Known {
        self.names.remove("");
        let width = self.names.len().to_string().len();
        let names = self.names.into_iter().enumerate();
        let names = names.map(|(number, name)| (name, format!("n{number:0width$}"))).collect();
        let prefixes = |texts: &[&str]| -> Vec<Prefix> {
            let parsed = texts.iter().filter_map(|text| parse(text));
            parsed.map(|(address, length, _)| Prefix::new(address, length)).collect()
        };
        let (kept, kept_whole) = (prefixes(&KEPT), prefixes(&KEPT_WHOLE));
        self.ranges.extend(kept.iter().chain(&kept_whole));
        Known { names, ranges: self.ranges, kept, kept_whole }
    }
}

/// Ranges with a meaning of their own: an address of one stays in it.
const KEPT: [&str; 7] =
    ["10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10", "ff00::/8"];
/// Ranges whose addresses stay the same: loopback, and netmasks.
const KEPT_WHOLE: [&str; 4] = ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/8"];

/// The first bits of an address. The others are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    is_v6: bool,
    bits: u128,
    length: u8,
}

impl Prefix {
    fn new(address: IpAddr, length: u8) -> Self {
        let (is_v6, bits) = match address {
            IpAddr::V4(address) => (false, u128::from(address.to_bits()) << 96),
            IpAddr::V6(address) => (true, address.to_bits()),
        };
        Self { is_v6, bits, length }.cut(length)
    }

    fn cut(self, length: u8) -> Self {
        let mask = u128::MAX.checked_shr(u32::from(length)).map_or(u128::MAX, |rest| !rest);
        Self { bits: self.bits & mask, length, ..self }
    }

    fn contains(self, other: Self) -> bool {
        self.length <= other.length && other.cut(self.length) == self
    }

    fn bit(self, at: u8) -> u128 {
        1 << (127 - at)
    }
}

#[derive(Debug)]
struct Known {
    names: BTreeMap<String, String>,
    /// The ranges of the recording, and those with a meaning of their own.
    ranges: BTreeSet<Prefix>,
    kept: Vec<Prefix>,
    kept_whole: Vec<Prefix>,
}

impl Known {
    fn replace(&self, text: &str, place: Place) -> String {
        let mut path = |text: &str| {
            let name = |part: &str| {
                let name = part.trim_end_matches(['/', ':']);
                self.name(name) + &part[name.len()..]
            };
            text.split_inclusive(['/', ':']).map(name).collect()
        };
        match place {
            Place::Name => self.name(text),
            Place::Path => path(text),
            Place::Text => parts(text, &mut |text| self.address(text), &mut path),
            Place::Fixed => text.to_owned(),
        }
    }

    fn name(&self, name: &str) -> String {
        self.names.get(name).cloned().unwrap_or_default()
    }

    fn address(&self, text: &str) -> String {
        let Some((address, length, rest)) = parse(text) else { return text.to_owned() };
        let whole = Prefix::new(address, if address.is_ipv4() { 32 } else { 128 });
        if length == 0 || self.kept_whole.iter().any(|kept| kept.contains(whole)) {
            return text.to_owned();
        }
        let mut bits = 0;
        for at in 0..length {
            // A bit is kept where the addresses of the recording differ. So their order and their ranges stay.
            let bit = whole.bit(at);
            let has = |bits| self.has(Prefix { bits, length: at + 1, ..whole });
            let prefix = whole.cut(at).bits;
            let is_meant = self.kept.iter().any(|kept| at < kept.length && kept.contains(whole));
            if is_meant || has(prefix) && has(prefix | bit) {
                bits |= whole.bits & bit;
            }
        }
        // A range can have an address within it.
        bits |= whole.bits & !Prefix { bits: u128::MAX, ..whole }.cut(length).bits;
        let address: IpAddr = match whole.is_v6 {
            true => Ipv6Addr::from_bits(bits).into(),
            false => Ipv4Addr::from_bits((bits >> 96) as u32).into(),
        };
        format!("{address}{rest}")
    }

    /// Whether a range of the recording lies within this one.
    fn has(&self, within: Prefix) -> bool {
        self.ranges.range(within..).next().is_some_and(|range| within.contains(*range))
    }
}
