//! Refused in answer to the first packet: the kernel's retransmission counters show it, not the time.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result, bail};

use crate::client::{Failure, echo_here, socket_address};
use crate::namespace::Namespace;
use crate::servers::Transport;

/// How often a client is to be refused whose first packet was sent again, until that is no accident.
const TRIES: usize = 10;

impl Namespace {
    /// Fails unless a connection is refused in answer to its first packet, as at a closed port. A dropped first
    /// packet is retransmitted on every try. A refusal on a slow machine is retransmitted now and then, by this client
    /// or another of the namespace.
    pub fn expect_refused(&self, transport: Transport, to: &str) -> Result<()> {
        let address = socket_address(to)?;
        for _ in 0..TRIES {
            let (outcome, resent) = self.enter(|| {
                let before = first_packets_resent(transport)?;
                let outcome = echo_here(transport, address);
                Ok((outcome, first_packets_resent(transport)? - before))
            })?;
            match outcome {
                Err(Failure::Refused) if resent == 0 => return Ok(()),
                Err(Failure::Refused) => {}
                other => bail!("{transport:?} {to} from {}: should be refused, but {other:?}", self.name()),
            }
        }
        bail!("{to} refuses {} only when the first packet is sent again", self.name())
    }

    /// How many first packets its clients have sent again because there was no answer.
    pub fn first_packets_resent(&self, transport: Transport) -> Result<u64> {
        self.enter(|| first_packets_resent(transport))
    }

    /// A counter of the kernel's for this namespace, such as `Tcp:` `InSegs` in the file `snmp` of /proc/net.
    pub fn counter(&self, file: &str, protocol: &str, name: &str) -> Result<u64> {
        let path = format!("/proc/thread-self/net/{file}");
        self.enter(|| counter(&fs::read_to_string(&path)?, protocol, name))
    }
}

/// How many first packets of connections have been sent again in the namespace of the calling thread.
fn first_packets_resent(transport: Transport) -> Result<u64> {
    match transport {
        // Each datagram is sent once.
        Transport::Udp => Ok(0),
        Transport::Tcp => counter(&fs::read_to_string("/proc/thread-self/net/netstat")?, "TcpExt:", "TCPSynRetrans"),
        Transport::Sctp => {
            let counters = match fs::read_to_string("/proc/thread-self/net/sctp/snmp") {
                // The kernel loads SCTP with the first socket.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
                counters => counters?,
            };
            let line = counters.lines().find_map(|line| line.strip_prefix("SctpT1InitExpireds"));
            Ok(line.context("no SctpT1InitExpireds")?.trim().parse()?)
        }
    }
}

/// A counter of a file that has a line of names and then a line of numbers for each protocol.
fn counter(text: &str, protocol: &str, name: &str) -> Result<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol)).map(str::split_whitespace);
    let (names, numbers) = (lines.next().context("no names")?, lines.next().context("no numbers")?);
    let number = names.zip(numbers).find_map(|(found, number)| (found == name).then_some(number));
    Ok(number.with_context(|| format!("no {name}"))?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "TcpExt: SyncookiesSent TCPSynRetrans TCPHPHits\nTcpExt: 1 22 3\nIpExt: InNoRoutes\nIpExt: 4\n";
        assert_eq!(counter(text, "TcpExt:", "TCPSynRetrans").unwrap(), 22);
        assert!(counter(text, "TcpExt:", "InNoRoutes").is_err());
    }
}
