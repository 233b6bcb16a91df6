//! Parses `ip -j addr show`.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::namespace::Namespace;

/// The device that carries the VIPs.
pub const VIP_DEVICE: &str = "kube-ipvs0";

pub(super) fn vips(namespace: &Namespace) -> Result<Vec<IpAddr>> {
    let output = namespace.output("ip", &["-j", "addr", "show", "dev", VIP_DEVICE])?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("does not exist") {
            return Ok(Vec::new());
        }
        bail!("ip addr show {VIP_DEVICE}: {said}");
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// All addresses, sorted. A VIP is a /32 or a /128; any other prefix length is an error.
fn parse(text: &str) -> Result<Vec<IpAddr>> {
    let devices: Value = serde_json::from_str(text).context("the output of ip -j")?;
    let mut vips = Vec::new();
    for entry in devices.as_array().into_iter().flatten().filter_map(|device| device["addr_info"].as_array()).flatten()
    {
        let local = entry["local"].as_str().context("an address without a value")?;
        let address: IpAddr = local.parse()?;
        if entry["scope"] == "link" {
            continue;
        }
        if entry["prefixlen"] != (if address.is_ipv4() { 32 } else { 128 }) {
            bail!("{address} is bound with the prefix length {}", entry["prefixlen"]);
        }
        vips.push(address);
    }
    vips.sort_unstable();
    Ok(vips)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: &str = r#"[{"ifindex":3,"ifname":"kube-ipvs0","flags":["BROADCAST","NOARP"],"mtu":1500,
        "addr_info":[{"family":"inet","local":"10.96.0.10","prefixlen":32,"scope":"global","label":"kube-ipvs0"},
        {"family":"inet","local":"10.96.0.1","prefixlen":32,"scope":"global","label":"kube-ipvs0"},
        {"family":"inet6","local":"fd00:96::a","prefixlen":128,"scope":"global"}]}]"#;

    #[test]
    fn vips_from_ip_json_are_sorted() {
        let expected: Vec<IpAddr> =
            ["10.96.0.1", "10.96.0.10", "fd00:96::a"].map(|address| address.parse().unwrap()).to_vec();
        assert_eq!(parse(IP).unwrap(), expected);
    }

    #[test]
    fn vip_with_a_short_prefix_is_an_error() {
        assert!(parse(&IP.replace(":32", ":24")).is_err());
    }

    #[test]
    fn device_without_addresses_has_no_vips() {
        assert_eq!(parse(r#"[{"ifname":"kube-ipvs0","addr_info":[]}]"#).unwrap(), Vec::<IpAddr>::new());
    }
}
