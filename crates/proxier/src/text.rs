//! Keys, endpoints and sets of names as text, so that a map with such keys is a JSON object.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{
    cluster::EndpointAddress,
    model::{PortNumber, VirtualServerKey},
    set::{KeySet, KeySets},
};

fn socket(text: &str) -> Option<(std::net::IpAddr, PortNumber)> {
    let socket: SocketAddr = text.parse().ok()?;
    Some((socket.ip(), PortNumber::new(socket.port())?))
}

fn key(text: &str) -> Option<VirtualServerKey> {
    let (protocol, text) = text.split_once(' ')?;
    let (address, port) = socket(text)?;
    Some(VirtualServerKey { address, protocol: protocol.parse().ok()?, port })
}

impl Serialize for VirtualServerKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VirtualServerKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        key(&text).ok_or_else(|| D::Error::custom(format_args!("{text:?} is no virtual server: TCP 10.96.0.1:80 is")))
    }
}

impl Serialize for EndpointAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EndpointAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let endpoint = socket(&text).map(|(address, port)| Self { address, port });
        endpoint.ok_or_else(|| D::Error::custom(format_args!("{text:?} is no endpoint: 10.244.1.7:8080 is")))
    }
}

impl Serialize for KeySets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for KeySets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sets = Vec::<KeySet>::deserialize(deserializer)?;
        Ok(sets.into_iter().fold(Self::NONE, Self::with))
    }
}
