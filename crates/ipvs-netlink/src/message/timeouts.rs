use super::{Command, CommandAttribute, Message};
use crate::Timeouts;

/// Encodes the `SetConfig` that sets these timeouts. A timeout of 0 is left out: the kernel keeps its value.
impl From<&Timeouts> for Message {
    fn from(timeouts: &Timeouts) -> Self {
        let attributes = [
            (timeouts.tcp != 0).then_some(CommandAttribute::TimeoutTcp(timeouts.tcp)),
            (timeouts.tcp_fin != 0).then_some(CommandAttribute::TimeoutTcpFin(timeouts.tcp_fin)),
            (timeouts.udp != 0).then_some(CommandAttribute::TimeoutUdp(timeouts.udp)),
        ];
        Self::new(Command::SetConfig, attributes.into_iter().flatten().collect())
    }
}

/// Reads the answer to `GetConfig`. A kernel without a protocol does not report the timeouts of that protocol.
impl From<&Message> for Timeouts {
    fn from(message: &Message) -> Self {
        let mut timeouts = Self::default();
        for attribute in message.command_attributes() {
            match attribute {
                CommandAttribute::TimeoutTcp(seconds) => timeouts.tcp = *seconds,
                CommandAttribute::TimeoutTcpFin(seconds) => timeouts.tcp_fin = *seconds,
                CommandAttribute::TimeoutUdp(seconds) => timeouts.udp = *seconds,
                _ => {}
            }
        }
        timeouts
    }
}
