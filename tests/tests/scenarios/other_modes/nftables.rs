//! The tables of kube-proxy 1.36 in nftables mode.

use std::fmt::Write as _;

use anyhow::Result;
use scenarios::Namespace;

use super::kube_proxy::{Endpoint, Family, ServicePort, hash, service_ports, sh};

/// `FAMILY`, `ADDR`, `IP` and `PODS` differ by family.
const FRAME: &str = r#"
table FAMILY kube-proxy {
    comment "rules for kube-proxy"
    set cluster-ips { type ADDR; comment "Active ClusterIPs"; }
    set nodeport-ips { type ADDR; comment "IPs that accept NodePort traffic"; elements = { NODE }; }
    map no-endpoint-services { type ADDR . inet_proto . inet_service : verdict; }
    map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
    map firewall-ips { type ADDR . inet_proto . inet_service : verdict; }
    map service-ips { type ADDR . inet_proto . inet_service : verdict; }
    map service-nodeports { type inet_proto . inet_service : verdict; }
    chain mark-for-masquerade { mark set mark or 0x4000; }
    chain masquerading {
        mark and 0x4000 == 0 return
        mark set mark xor 0x4000
        masquerade fully-random
    }
    chain reject-chain { reject; }
    chain services {
        IP daddr . meta l4proto . th dport vmap @service-ips
        IP daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
    }
    chain service-endpoints-check { IP daddr . meta l4proto . th dport vmap @no-endpoint-services; }
    chain nodeport-endpoints-check { IP daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
    chain firewall-check { IP daddr . meta l4proto . th dport vmap @firewall-ips; }
    chain cluster-ips-check {
        IP daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
        IP daddr { CIDR } drop comment "Drop traffic to unallocated ClusterIPs"
    }
    chain filter-prerouting-pre-dnat {
        type filter hook prerouting priority dstnat - 10;
        ct state new jump firewall-check
    }
    chain filter-output-pre-dnat {
        type filter hook output priority -110;
        ct state new jump firewall-check
    }
    chain filter-input {
        type filter hook input priority filter;
        ct state new jump nodeport-endpoints-check
        ct state new jump service-endpoints-check
    }
    chain filter-forward {
        type filter hook forward priority filter;
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
    }
    chain filter-output {
        type filter hook output priority filter;
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
    }
    chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
    chain nat-output { type nat hook output priority -100; jump services; }
    chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
SERVICES}
ELEMENTS"#;

pub(super) fn write(node: &Namespace, family: Family) -> Result<()> {
    let name = family.of("ip", "ip6");
    let (mut chains, mut elements) = (String::new(), String::new());
    for port in service_ports(family) {
        let add = |map: &str, element: &str| format!("add element {name} kube-proxy {map} {{ {element} }}\n");
        let ServicePort { protocol, cluster_ip, port: number, .. } = &port;
        elements += &add("cluster-ips", cluster_ip);
        let (internal, external) = match port.endpoints.is_empty() {
            true => ("goto reject-chain".to_owned(), "goto reject-chain".to_owned()),
            false => (format!("goto {}", chain("service", &port)), format!("goto {}", chain("external", &port))),
        };
        let (ips, node_ports) = match port.endpoints.is_empty() {
            true => ("no-endpoint-services", "no-endpoint-nodeports"),
            false => ("service-ips", "service-nodeports"),
        };
        if !port.endpoints.is_empty() {
            write_chains(&mut chains, family, &port)?;
        }
        elements += &add(ips, &format!("{cluster_ip} . {protocol} . {number} : {internal}"));
        if let Some(ip) = &port.outer_ip {
            elements += &add(ips, &format!("{ip} . {protocol} . {number} : {external}"));
            if !port.ranges.is_empty() {
                let firewall = chain("firewall", &port);
                elements += &add("firewall-ips", &format!("{ip} . {protocol} . {number} : goto {firewall}"));
            }
        }
        if let Some(node_port) = port.node_port {
            elements += &add(node_ports, &format!("{protocol} . {node_port} : {external}"));
        }
    }
    let ruleset = FRAME
        .replace("FAMILY", &name)
        .replace("ADDR", &family.of("ipv4_addr", "ipv6_addr"))
        .replace("IP daddr", &format!("{name} daddr"))
        .replace("NODE", &family.node())
        .replace("CIDR", &family.of("10.96.0.0/16", "fd00:10:96::/112"))
        .replace("SERVICES", &chains)
        .replace("ELEMENTS", &elements);
    sh(node, &format!("nft -f - <<'END'\n{ruleset}END\n")).map(drop)
}

fn chain(kind: &str, port: &ServicePort) -> String {
    let ServicePort { name, protocol, .. } = port;
    format!("{kind}-{}-default/{name}/{protocol}/", &hash(name)[..8])
}

fn write_chains(out: &mut String, family: Family, port: &ServicePort) -> Result<()> {
    let (ip, pods) = (family.of("ip", "ip6"), family.pods());
    let ServicePort { name, protocol, cluster_ip, port: number, .. } = port;
    let service = chain("service", port);
    let endpoint_chain = |endpoint: &Endpoint| {
        format!(
            "endpoint-{}-default/{name}/{protocol}/__{}",
            &endpoint.hash(port)[..8],
            endpoint.address.replace(':', ".")
        )
    };
    let choice = |targets: Vec<String>| {
        let all: Vec<String> = targets.iter().enumerate().map(|(at, to)| format!("{at} : goto {to}")).collect();
        format!("numgen random mod {} vmap {{ {} }}", all.len(), all.join(", "))
    };
    let mut affinity = String::new();
    for endpoint in &port.endpoints {
        let (address, chain) = (&endpoint.address, endpoint_chain(endpoint));
        let mut update = String::new();
        if port.has_affinity {
            let set = format!("affinity-{}", &endpoint.hash(port)[..8]);
            let kind = family.of("ipv4_addr", "ipv6_addr");
            writeln!(out, "set {set} {{ type {kind}; flags dynamic,timeout; timeout 3h; }}")?;
            writeln!(affinity, "{ip} saddr @{set} goto {chain}")?;
            update = format!("update @{set} {{ {ip} saddr }}");
        }
        let at = family.at(address, endpoint.port);
        writeln!(out, "chain {chain} {{\n{ip} saddr {address} jump mark-for-masquerade\n{update}")?;
        writeln!(out, "meta l4proto {protocol} dnat to {at}\n}}")?;
    }
    let all = choice(port.endpoints.iter().map(endpoint_chain).collect());
    writeln!(
        out,
        "chain {service} {{\n{ip} daddr {cluster_ip} {protocol} dport {number} {ip} saddr != {pods} jump mark-for-masquerade"
    )?;
    writeln!(out, "{affinity}{all}\n}}")?;
    let external = chain("external", port);
    if port.is_local {
        let here = port.endpoints.iter().filter(|endpoint| endpoint.node == 3);
        let here = choice(here.map(endpoint_chain).collect());
        let local = chain("local", port);
        writeln!(out, "chain {local} {{\n{here}\n}}")?;
        writeln!(
            out,
            "chain {external} {{\n{ip} saddr {pods} goto {service}\nfib saddr type local jump mark-for-masquerade"
        )?;
        writeln!(out, "fib saddr type local goto {service}\ngoto {local}\n}}")?;
    } else {
        writeln!(out, "chain {external} {{\njump mark-for-masquerade\ngoto {service}\n}}")?;
    }
    if !port.ranges.is_empty() {
        let firewall = chain("firewall", port);
        writeln!(out, "chain {firewall} {{\n{ip} saddr != {{ {} }} drop\n}}", port.ranges.join(", "))?;
    }
    Ok(())
}
