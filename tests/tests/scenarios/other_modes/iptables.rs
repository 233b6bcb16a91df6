//! The rules of kube-proxy 1.36 in iptables mode, and chains of other programs whose names begin alike.

use std::fmt::Write as _;

use anyhow::Result;
use scenarios::Namespace;

use super::kube_proxy::{Endpoint, Family, ServicePort, hash, service_ports, sh};

/// Chains of the kubelet and of kube-router's network policies.
const OTHERS: &str = "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n\
                      *nat\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n\
                      *filter\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-FIREWALL - [0:0]\n:KUBE-ROUTER-INPUT - [0:0]\n\
                      :KUBE-NWPLCY-DEFAULT - [0:0]\n:KUBE-POD-FW-4BDGZEWEU32YM75H - [0:0]\n\
                      -A INPUT -j KUBE-FIREWALL\n-A OUTPUT -j KUBE-FIREWALL\n-A INPUT -j KUBE-ROUTER-INPUT\n\
                      -A KUBE-ROUTER-INPUT -j KUBE-NWPLCY-DEFAULT\n\
                      -A KUBE-FIREWALL ! -s LO -d LO -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n\
                      COMMIT\n";

/// The lines of other programs that a takeover must leave in each family.
pub(super) const LINES_OF_OTHERS: [&str; 9] = [
    ":KUBE-KUBELET-CANARY",
    ":KUBE-IPTABLES-HINT",
    ":KUBE-NWPLCY-DEFAULT",
    ":KUBE-POD-FW-4BDGZEWEU32YM75H",
    "-A INPUT -j KUBE-FIREWALL",
    "-A INPUT -j KUBE-ROUTER-INPUT",
    "-A OUTPUT -j KUBE-FIREWALL",
    "-A KUBE-ROUTER-INPUT -j KUBE-NWPLCY-DEFAULT",
    "-A KUBE-FIREWALL",
];

const NAT: &str = r#"*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-PROXY-CANARY - [0:0]
-I OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
"#;

const FILTER: &str = r#"*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-PROXY-CANARY - [0:0]
-I INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-I FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-I INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-I FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-I INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-I OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-I FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/local health check node port" -m tcp --dport 32083 -j ACCEPT
"#;

const NODE_PORTS_LAST: &str = "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be \
                               the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n";

fn program(family: Family) -> String {
    family.of("iptables", "ip6tables")
}

pub(super) fn write_others(node: &Namespace) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let rules = OTHERS.replace("LO ", &family.of("127.0.0.0/8 ", "::1/128 "));
        sh(node, &format!("{}-nft-restore --noflush <<'END'\n{rules}END\n", program(family)))?;
    }
    Ok(())
}

/// All rules of both families.
pub(super) fn rules(node: &Namespace, kind: &str) -> Result<String> {
    sh(node, &format!("iptables-{kind}-save; ip6tables-{kind}-save"))
}

pub(super) fn write(node: &Namespace, family: Family, kind: &str) -> Result<()> {
    let (mut nat, mut filter) = (NAT.to_owned(), FILTER.to_owned());
    for port in service_ports(family) {
        match port.endpoints.is_empty() {
            true => write_without_endpoints(&mut filter, &port)?,
            false => write_nat(&mut nat, family, &port)?,
        }
        if !port.ranges.is_empty() {
            let (ip, number, name) = (port.outer_ip.as_deref().unwrap_or_default(), port.port, port.name);
            writeln!(
                filter,
                "-A KUBE-PROXY-FIREWALL -d {ip} -p tcp -m comment --comment \"default/{name} traffic not accepted by KUBE-FW-{}\" -m tcp --dport {number} -j DROP",
                hash(name)
            )?;
        }
    }
    nat.push_str(NODE_PORTS_LAST);
    // A chain must exist before a rule jumps to it.
    let (chains, rules): (Vec<&str>, Vec<&str>) = nat.lines().partition(|line| !line.starts_with('-'));
    let nat = [chains, rules].concat().join("\n") + "\n";
    let program = program(family);
    let all = format!("{nat}COMMIT\n{filter}COMMIT\n*mangle\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n");
    sh(node, &format!("{program}-{kind}-restore --noflush <<'END'\n{all}END\n")).map(drop)
}

fn write_without_endpoints(filter: &mut String, port: &ServicePort) -> Result<()> {
    let ServicePort { name, protocol, cluster_ip, port, node_port, .. } = port;
    let comment = format!("-m comment --comment \"default/{name} has no endpoints\"");
    writeln!(
        filter,
        "-A KUBE-SERVICES -d {cluster_ip} -p {protocol} {comment} -m {protocol} --dport {port} -j REJECT"
    )?;
    if let Some(node_port) = node_port {
        writeln!(
            filter,
            "-A KUBE-EXTERNAL-SERVICES -p {protocol} {comment} -m addrtype --dst-type LOCAL -m {protocol} --dport {node_port} -j REJECT"
        )?;
    }
    Ok(())
}

fn write_nat(nat: &mut String, family: Family, service: &ServicePort) -> Result<()> {
    let ServicePort { name, protocol, cluster_ip, port, .. } = service;
    let (id, pods) = (hash(name), family.pods());
    let to = |ip: &str| {
        format!(
            "-A KUBE-SERVICES -d {ip} -p {protocol} -m comment --comment \"default/{name}\" -m {protocol} --dport {port}"
        )
    };
    writeln!(nat, ":KUBE-SVC-{id} - [0:0]\n{} -j KUBE-SVC-{id}", to(cluster_ip))?;
    if service.outer_ip.is_some() || service.node_port.is_some() {
        write_external(nat, &pods, service)?;
    }
    if let Some(ip) = &service.outer_ip {
        let chain = if service.ranges.is_empty() { "EXT" } else { "FW" };
        writeln!(nat, "{} -j KUBE-{chain}-{id}", to(ip))?;
    }
    if let Some(node_port) = service.node_port {
        writeln!(
            nat,
            "-A KUBE-NODEPORTS -p {protocol} -m comment --comment \"default/{name}\" -m {protocol} --dport {node_port} -j KUBE-EXT-{id}"
        )?;
    }
    writeln!(
        nat,
        "-A KUBE-SVC-{id} ! -s {pods} -d {cluster_ip} -p {protocol} -m comment --comment \"default/{name} cluster IP\" -m {protocol} --dport {port} -j KUBE-MARK-MASQ"
    )?;
    write_choice(nat, service, "SVC", |_| true)?;
    for endpoint in &service.endpoints {
        let chain = format!("KUBE-SEP-{}", endpoint.hash(service));
        let at = family.at(&endpoint.address, endpoint.port);
        let set =
            if service.has_affinity { format!(" -m recent --name {chain} --set --rsource") } else { String::new() };
        writeln!(nat, ":{chain} - [0:0]\n-A {chain} -s {} -j KUBE-MARK-MASQ", endpoint.address)?;
        writeln!(nat, "-A {chain} -p {protocol}{set} -m {protocol} -j DNAT --to-destination {at}")?;
    }
    Ok(())
}

/// The chains for clients outside, which differ by the policy.
fn write_external(nat: &mut String, pods: &str, service: &ServicePort) -> Result<()> {
    let ServicePort { name, .. } = service;
    let id = hash(name);
    let chain = format!("KUBE-EXT-{id}");
    writeln!(nat, ":{chain} - [0:0]")?;
    if service.is_local {
        writeln!(nat, ":KUBE-SVL-{id} - [0:0]")?;
        writeln!(nat, "-A {chain} -s {pods} -j KUBE-SVC-{id}")?;
        writeln!(nat, "-A {chain} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ")?;
        writeln!(nat, "-A {chain} -m addrtype --src-type LOCAL -j KUBE-SVC-{id}")?;
        writeln!(nat, "-A {chain} -j KUBE-SVL-{id}")?;
        write_choice(nat, service, "SVL", |node| node == 3)?;
    } else {
        writeln!(nat, "-A {chain} -j KUBE-MARK-MASQ\n-A {chain} -j KUBE-SVC-{id}")?;
    }
    if !service.ranges.is_empty() {
        writeln!(nat, ":KUBE-FW-{id} - [0:0]")?;
        service.ranges.iter().try_for_each(|range| writeln!(nat, "-A KUBE-FW-{id} -s {range} -j {chain}"))?;
    }
    Ok(())
}

/// The rules that choose an endpoint at random, or the one that the client had before.
fn write_choice(nat: &mut String, service: &ServicePort, kind: &str, is_chosen: fn(u8) -> bool) -> Result<()> {
    let ServicePort { name, has_affinity, endpoints, .. } = service;
    let chosen: Vec<_> = endpoints.iter().filter(|endpoint| is_chosen(endpoint.node)).collect();
    let chain = format!("KUBE-{kind}-{}", hash(name));
    let target = |endpoint: &Endpoint| format!("KUBE-SEP-{}", endpoint.hash(service));
    if *has_affinity {
        for endpoint in &chosen {
            let target = target(endpoint);
            writeln!(
                nat,
                "-A {chain} -m recent --name {target} --rcheck --seconds 10800 --reap --rsource -j {target}"
            )?;
        }
    }
    for (at, endpoint) in chosen.iter().enumerate() {
        let left = chosen.len() - at;
        let dice = match left {
            1 => String::new(),
            _ => format!(" -m statistic --mode random --probability {:.10}", 1.0 / f64::from(u16::try_from(left)?)),
        };
        writeln!(nat, "-A {chain}{dice} -j {}", target(endpoint))?;
    }
    Ok(())
}
