//! Conversion of keys to and from those of IPVS.

use ipvs_netlink::{DestinationKey, Protocol as IpvsProtocol, VirtualServerKey as IpvsKey};

use crate::{
    cluster::EndpointAddress,
    model::{PortNumber, Protocol, VirtualServerKey},
};

impl From<VirtualServerKey> for IpvsKey {
    fn from(VirtualServerKey { address, protocol, port }: VirtualServerKey) -> Self {
        Self::Address { address, port: port.get(), protocol: IpvsProtocol::from_number(protocol.number()) }
    }
}

impl VirtualServerKey {
    /// The key of a virtual server that IPVS lists. `None` for a firewall mark, port 0 or a protocol that no Service
    /// can have.
    pub fn from_ipvs(key: IpvsKey) -> Option<Self> {
        let IpvsKey::Address { address, port, protocol } = key else { return None };
        Some(Self { address, protocol: Protocol::from_number(protocol.number())?, port: PortNumber::new(port)? })
    }
}

impl From<EndpointAddress> for DestinationKey {
    fn from(EndpointAddress { address, port }: EndpointAddress) -> Self {
        Self { address, port: port.get() }
    }
}

impl EndpointAddress {
    /// The address of a real server that IPVS lists; `None` for port 0.
    pub(super) fn from_ipvs(key: DestinationKey) -> Option<Self> {
        Some(Self { address: key.address, port: PortNumber::new(key.port)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;

    #[test]
    fn service_keys_round_trip_through_ipvs_and_others_are_none() {
        for ours in ["TCP 10.96.0.1:80", "UDP [fd00::1]:53", "SCTP 10.96.0.1:65535"].map(key) {
            assert_eq!(VirtualServerKey::from_ipvs(ours.into()), Some(ours));
        }
        let address = "10.96.0.1".parse().unwrap();
        let port_0 = IpvsKey::Address { address, port: 0, protocol: IpvsProtocol::Tcp };
        let mark = IpvsKey::FirewallMark { mark: 1, family: ipvs_netlink::Family::V4 };
        assert_eq!([port_0, mark].map(VirtualServerKey::from_ipvs), [None, None]);
    }
}
