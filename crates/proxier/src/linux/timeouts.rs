//! Timeouts of idle connections in IPVS.

use std::{fs, time::Duration};

use ipvs_netlink::{Client, Error};

use super::Timeouts;

/// The longest timeout that every kernel accepts: it counts up to 1,000 ticks a second in 31 bits.
const LONGEST: u32 = (i32::MAX / 1000) as u32;

pub(super) fn prepare(client: &mut Client, wanted: &Timeouts) -> Result<(), Error> {
    let wanted = ipvs_netlink::Timeouts {
        tcp: choose(wanted.tcp, "tcp_timeout_established"),
        tcp_fin: choose(wanted.tcp_fin, "tcp_timeout_fin_wait"),
        udp: choose(wanted.udp, "udp_timeout_stream"),
    };
    let found = client.timeouts()?;
    // 0 leaves a timeout unchanged.
    let is_right = |wanted: u32, found: u32| wanted == 0 || wanted == found;
    if is_right(wanted.tcp, found.tcp) && is_right(wanted.tcp_fin, found.tcp_fin) && is_right(wanted.udp, found.udp) {
        return Ok(());
    }
    client.set_timeouts(wanted)
}

/// The configured timeout, or else conntrack's, in seconds. 0 if conntrack has none.
fn choose(asked: Option<Duration>, name: &str) -> u32 {
    let seconds = match asked {
        Some(asked) => asked.as_secs().max(1),
        None => {
            let text = fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
            text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        }
    };
    u32::try_from(seconds).unwrap_or(LONGEST).min(LONGEST)
}
