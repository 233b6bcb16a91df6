//! Parses `ipvsadm -Ln` and /proc/net/ip_vs.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail};

/// A real server of a virtual server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealServer {
    /// Address and port.
    pub address: SocketAddr,
    /// `Masq`, `Route` or `Tunnel`.
    pub forward: String,
    /// The weight.
    pub weight: u32,
    /// Active connections.
    pub active: u32,
    /// Inactive connections, or UDP flows.
    pub inactive: u32,
}

/// A virtual server with its real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServer {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Address and port.
    pub address: SocketAddr,
    /// The scheduler's name.
    pub scheduler: String,
    /// The text after the scheduler, such as `persistent 10800`.
    pub flags: String,
    /// The real servers, in the kernel's order.
    pub real_servers: Vec<RealServer>,
}

impl VirtualServer {
    /// The key by which tests name a virtual server: `TCP 10.96.0.7:80`.
    pub fn key(&self) -> String {
        format!("{} {}", self.protocol, self.address)
    }

    /// The real servers with their weights, sorted: `10.244.1.2:80 1`.
    pub fn weights(&self) -> Vec<String> {
        let mut weights: Vec<String> =
            self.real_servers.iter().map(|real| format!("{} {}", real.address, real.weight)).collect();
        weights.sort();
        weights
    }
}

/// All virtual servers of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table(pub Vec<VirtualServer>);

impl Table {
    /// Parses the output of `ipvsadm -Ln`.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_lines(text, |address| address.parse().with_context(|| format!("{address} is no address:port")))
    }

    /// Parses /proc/net/ip_vs, which has hexadecimal addresses and ports.
    pub fn parse_proc(text: &str) -> Result<Self> {
        Self::parse_lines(text, hexadecimal)
    }

    fn parse_lines(text: &str, address: impl Fn(&str) -> Result<SocketAddr>) -> Result<Self> {
        let mut table = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let parsed: Result<()> = match words.as_slice() {
                // The three header lines.
                [] | ["IP", ..] | ["Prot", ..] | ["->", "RemoteAddress:Port", ..] => continue,
                ["->", to, forward, weight, active, inactive] => (|| {
                    let service = table.0.last_mut().context("a real server before the first virtual server")?;
                    service.real_servers.push(RealServer {
                        address: address(to)?,
                        forward: (*forward).to_owned(),
                        weight: weight.parse()?,
                        active: active.parse()?,
                        inactive: inactive.parse()?,
                    });
                    Ok(())
                })(),
                [protocol @ ("TCP" | "UDP" | "SCTP"), at, scheduler, flags @ ..] => (|| {
                    table.0.push(VirtualServer {
                        protocol: (*protocol).to_owned(),
                        address: address(at)?,
                        scheduler: (*scheduler).to_owned(),
                        flags: flags.join(" "),
                        real_servers: Vec::new(),
                    });
                    Ok(())
                })(),
                _ => bail!("not understood: {line:?}"),
            };
            parsed.with_context(|| format!("in the line {line:?}"))?;
        }
        Ok(table)
    }

    /// The virtual server with this key, such as `TCP 10.96.0.7:80`.
    pub fn service(&self, key: &str) -> Option<&VirtualServer> {
        self.0.iter().find(|service| service.key() == key)
    }

    /// The real servers of a virtual server with their weights, sorted; `None` if it does not exist.
    pub fn weights(&self, key: &str) -> Option<Vec<String>> {
        self.service(key).map(VirtualServer::weights)
    }

    /// The keys of all virtual servers, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.0.iter().map(VirtualServer::key).collect();
        keys.sort();
        keys
    }

    /// The configuration, sorted and without counters. Equal texts mean equal configurations.
    pub fn configuration(&self) -> String {
        let mut services: Vec<String> = self.0.iter().map(configuration).collect();
        services.sort();
        services.concat()
    }
}

fn configuration(service: &VirtualServer) -> String {
    let mut text = format!("{} {} {}\n", service.key(), service.scheduler, service.flags);
    let mut real_servers: Vec<String> =
        service.real_servers.iter().map(|real| format!("{} {} {}", real.address, real.forward, real.weight)).collect();
    real_servers.sort();
    for real in real_servers {
        let _ = writeln!(text, "  -> {real}");
    }
    text
}

/// Parses `0A60000A:0035` or `[fd00:0096:0000:0000:0000:0000:0000:000a]:0035`.
fn hexadecimal(text: &str) -> Result<SocketAddr> {
    let (address, port) = text.rsplit_once(':').with_context(|| format!("{text} has no port"))?;
    let address: IpAddr = match address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse()?,
        None => Ipv4Addr::from_bits(u32::from_str_radix(address, 16)?).into(),
    };
    Ok(SocketAddr::new(address, u16::from_str_radix(port, 16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPVSADM: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.111.98.163:80 rr
  -> 10.244.1.57:80               Masq    1      0          3         
  -> 10.244.1.58:80               Masq    0      1          0         
UDP  10.96.0.10:53 rr persistent 10800
TCP  [fd00:96::a]:80 rr
  -> [fd00:10:244:1::57]:8080     Masq    1      0          0         
";

    const PROC: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A6F62A3:0050 rr  
  -> 0AF4013A:0050      Masq    0      1          0         
  -> 0AF40139:0050      Masq    1      0          3         
UDP  0A60000A:0035 rr persistent 10800 FFFFFFFF
TCP  [fd00:0096:0000:0000:0000:0000:0000:000a]:0050 rr
  -> [fd00:0010:0244:0001:0000:0000:0000:0057]:1F90      Masq    1      0          0         
";

    #[test]
    fn ipvsadm_listing_is_parsed() {
        let table = Table::parse(IPVSADM).unwrap();
        assert_eq!(table.keys(), ["TCP 10.111.98.163:80", "TCP [fd00:96::a]:80", "UDP 10.96.0.10:53"]);
        assert_eq!(
            table.weights("TCP 10.111.98.163:80").unwrap(),
            ["10.244.1.57:80 1".to_owned(), "10.244.1.58:80 0".to_owned()]
        );
        assert_eq!(table.service("UDP 10.96.0.10:53").unwrap().flags, "persistent 10800");
        let real = &table.service("TCP 10.111.98.163:80").unwrap().real_servers[0];
        assert_eq!((real.forward.as_str(), real.weight, real.active, real.inactive), ("Masq", 1, 0, 3));
    }

    #[test]
    fn proc_ip_vs_parses_to_the_same_table_as_ipvsadm() {
        let (proc, ipvsadm) = (Table::parse_proc(PROC).unwrap(), Table::parse(IPVSADM).unwrap());
        assert_eq!(proc.configuration().replace(" FFFFFFFF", ""), ipvsadm.configuration());
    }

    #[test]
    fn unknown_ipvsadm_lines_are_errors() {
        assert!(Table::parse("FWM  1 rr\n").is_err());
        assert!(Table::parse("  -> 10.0.0.1:80 Masq 1 0 0\n").is_err());
        assert!(Table::parse("TCP  10.0.0.1 rr\n").is_err());
    }
}
