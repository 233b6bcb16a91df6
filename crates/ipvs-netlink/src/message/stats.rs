use super::codec::{Codec, Native, attributes};
use crate::Stats;

attributes! {
    /// Counters as all kernels report them (`IPVS_STATS_ATTR_*` in `IPVS_SVC_ATTR_STATS`). All except the bytes have 32
    /// bits; newer kernels truncate them.
    StatsAttribute {
        /// Connections scheduled.
        Connections(u32) = 1 as Native,
        /// Packets from clients.
        PacketsIn(u32) = 2 as Native,
        /// Packets to clients.
        PacketsOut(u32) = 3 as Native,
        /// Bytes from clients.
        BytesIn(u64) = 4 as Native,
        /// Bytes to clients.
        BytesOut(u64) = 5 as Native,
        /// Connections a second.
        ConnectionRate(u32) = 6 as Native,
        /// Packets a second from clients.
        PacketRateIn(u32) = 7 as Native,
        /// Packets a second to clients.
        PacketRateOut(u32) = 8 as Native,
        /// Bytes a second from clients.
        ByteRateIn(u32) = 9 as Native,
        /// Bytes a second to clients.
        ByteRateOut(u32) = 10 as Native,
    }
}

attributes! {
    /// Counters in 64 bits (`IPVS_STATS_ATTR_*` in `IPVS_SVC_ATTR_STATS64`, Linux 4.1). If the processor needs
    /// alignment, the kernel inserts empty attributes of number 11, which stay `Other`.
    Stats64Attribute {
        /// Connections scheduled.
        Connections(u64) = 1 as Native,
        /// Packets from clients.
        PacketsIn(u64) = 2 as Native,
        /// Packets to clients.
        PacketsOut(u64) = 3 as Native,
        /// Bytes from clients.
        BytesIn(u64) = 4 as Native,
        /// Bytes to clients.
        BytesOut(u64) = 5 as Native,
        /// Connections a second.
        ConnectionRate(u64) = 6 as Native,
        /// Packets a second from clients.
        PacketRateIn(u64) = 7 as Native,
        /// Packets a second to clients.
        PacketRateOut(u64) = 8 as Native,
        /// Bytes a second from clients.
        ByteRateIn(u64) = 9 as Native,
        /// Bytes a second to clients.
        ByteRateOut(u64) = 10 as Native,
    }
}

macro_rules! collect {
    ($($attribute:ident)*) => {$(
        /// A missing counter is 0.
        impl From<&[$attribute]> for Stats {
            fn from(attributes: &[$attribute]) -> Self {
                use $attribute as A;
                let mut stats = Self::default();
                let Self { connections, packets_in, packets_out, bytes_in, bytes_out, rates } = &mut stats;
                for attribute in attributes {
                    match *attribute {
                        A::Connections(count) => *connections = count.into(),
                        A::PacketsIn(count) => *packets_in = count.into(),
                        A::PacketsOut(count) => *packets_out = count.into(),
                        A::BytesIn(count) => *bytes_in = count,
                        A::BytesOut(count) => *bytes_out = count,
                        A::ConnectionRate(rate) => rates.connections = rate.into(),
                        A::PacketRateIn(rate) => rates.packets_in = rate.into(),
                        A::PacketRateOut(rate) => rates.packets_out = rate.into(),
                        A::ByteRateIn(rate) => rates.bytes_in = rate.into(),
                        A::ByteRateOut(rate) => rates.bytes_out = rate.into(),
                        A::Other(_) => {}
                    }
                }
                stats
            }
        }
    )*};
}

collect! { StatsAttribute Stats64Attribute }
