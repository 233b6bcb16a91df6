//! Detects a refusal in answer to the first packet, through the kernel's retransmission counters instead of the time.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result, bail};

use crate::client::{Failure, echo_here, socket_address};
use crate::namespace::Namespace;
use crate::servers::Transport;

/// If the first packet was retransmitted in this many tries, that is no accident.
const TRIES: usize = 10;

impl Namespace {
    /// Fails unless the first packet of a connection is refused, as at a closed port. A drop causes a retransmission on
    /// every try. On a slow machine a refusal can also see a retransmission, by this client or another one in the
    /// namespace.
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

    /// How many first packets the namespace's clients have retransmitted.
    pub fn first_packets_resent(&self, transport: Transport) -> Result<u64> {
        self.enter(|| first_packets_resent(transport))
    }

    /// A kernel counter of this namespace, such as `Tcp:` `InSegs` in the file `snmp` of /proc/net.
    pub fn counter(&self, file: &str, protocol: &str, name: &str) -> Result<u64> {
        let path = format!("/proc/thread-self/net/{file}");
        self.enter(|| counter(&fs::read_to_string(&path)?, protocol, name))
    }
}

fn first_packets_resent(transport: Transport) -> Result<u64> {
    match transport {
        // UDP sends each datagram once.
        Transport::Udp => Ok(0),
        Transport::Tcp => counter(&fs::read_to_string("/proc/thread-self/net/netstat")?, "TcpExt:", "TCPSynRetrans"),
        Transport::Sctp => {
            let counters = match fs::read_to_string("/proc/thread-self/net/sctp/snmp") {
                // The kernel loads the SCTP module with the first socket.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
                counters => counters?,
            };
            let line = counters.lines().find_map(|line| line.strip_prefix("SctpT1InitExpireds"));
            Ok(line.context("no SctpT1InitExpireds")?.trim().parse()?)
        }
    }
}

/// Reads a counter from a file with a line of names and a line of numbers for each protocol.
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
    fn kernel_counter_is_found_by_its_name() {
        let text = "TcpExt: SyncookiesSent TCPSynRetrans TCPHPHits\nTcpExt: 1 22 3\nIpExt: InNoRoutes\nIpExt: 4\n";
        assert_eq!(counter(text, "TcpExt:", "TCPSynRetrans").unwrap(), 22);
        assert!(counter(text, "TcpExt:", "InNoRoutes").is_err());
    }
}
