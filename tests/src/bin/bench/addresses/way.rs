//! Ways to make addresses local.

use std::{
    fmt,
    net::UdpSocket,
    ops::Range,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use netlink_batch::{Batch, Protocol, Socket, attribute::put};
use proxier::{
    Plan,
    kernel::Kernel,
    linux::{LinuxKernel, Settings},
    plan::Change,
};
use rustix::net::netdevice::name_to_index;

use crate::{node::config, world::vip};

/// The maximum number of addresses on a device, if there are several devices.
const ON_A_DEVICE: u32 = 4_096;

#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// The way of kube-ipvs: all addresses on one dummy device.
    Device,
    /// `ip route add local VIP dev kube-ipvs0`. The kernel rejects such a route through a device that is down.
    Routes,
    Devices,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Device, Self::Routes, Self::Devices];

    /// Binds `count` addresses in the namespace of this thread, and unbinds them. Returns both times.
    pub(super) fn measure(self, count: u32) -> Result<(Duration, Duration)> {
        match self {
            Self::Device => with_kube_ipvs(count),
            Self::Routes => {
                add_devices(1)?;
                with_messages(|way, batch| append(batch, way, Object::Route, device(0)?, 0..count))
            }
            Self::Devices => {
                let devices = count.div_ceil(ON_A_DEVICE);
                add_devices(devices)?;
                with_messages(|way, batch| {
                    (0..devices).try_for_each(|number| {
                        let first = number * ON_A_DEVICE;
                        let addresses = first..count.min(first + ON_A_DEVICE);
                        append(batch, way, Object::Address, device(number)?, addresses)
                    })
                })
            }
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "kube-ipvs, one device",
            Self::Routes => "local routes",
            Self::Devices => "devices with up to 4,096 addresses",
        })
    }
}

fn with_kube_ipvs(count: u32) -> Result<(Duration, Duration)> {
    let mut kernel = LinuxKernel::open(&config(), Settings::default())?;
    kernel.prepare()?;
    let mut apply = |change: fn(std::net::IpAddr) -> Change| {
        let plan = Plan::new((0..count).map(|number| change(vip(number).into())).collect());
        let start = Instant::now();
        let report = kernel.apply(&plan);
        let time = start.elapsed();
        ensure!(report.failures.is_empty(), "{}", report.failures[0].reason);
        Ok(time)
    };
    Ok((apply(Change::Bind)?, apply(Change::Unbind)?))
}

#[derive(Clone, Copy, PartialEq)]
enum Act {
    Add,
    Remove,
}

#[derive(Clone, Copy)]
enum Object {
    Address,
    Route,
}

fn with_messages(write: impl Fn(Act, &mut Batch) -> Result<()>) -> Result<(Duration, Duration)> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut execute = |act| {
        let mut batch = Batch::new();
        write(act, &mut batch)?;
        let start = Instant::now();
        let failures = socket.execute(batch)?;
        let time = start.elapsed();
        ensure!(failures.is_empty(), "{}", failures[0].error);
        Ok(time)
    };
    Ok((execute(Act::Add)?, execute(Act::Remove)?))
}

fn append(batch: &mut Batch, act: Act, object: Object, device: u32, addresses: Range<u32>) -> Result<()> {
    const AF_INET: u8 = 2;
    const WHOLE: u8 = 32;
    /// `RTM_NEWADDR`, `RTM_NEWROUTE`. The next number is that of the message that deletes.
    const NEW_ADDRESS: u16 = 20;
    const NEW_ROUTE: u16 = 24;
    /// `NLM_F_CREATE | NLM_F_EXCL`.
    const CREATE: u16 = 0x600;
    let (kind, flags) = match object {
        Object::Address => (NEW_ADDRESS, CREATE),
        Object::Route => (NEW_ROUTE, CREATE),
    };
    let (kind, flags) = if act == Act::Add { (kind, flags) } else { (kind + 1, 0) };
    for address in addresses.map(vip) {
        batch.push_with(kind, flags, |out| match object {
            Object::Address => {
                /// `IFA_ADDRESS`, `IFA_LOCAL`.
                const KINDS: [u16; 2] = [1, 2];
                out.extend([AF_INET, WHOLE, 0, 0]);
                out.extend(device.to_ne_bytes());
                KINDS.iter().for_each(|kind| put(out, *kind, address.octets()));
            }
            Object::Route => {
                /// `RT_TABLE_LOCAL`, `RTPROT_STATIC`, `RT_SCOPE_HOST`, `RTN_LOCAL`.
                const LOCAL: [u8; 4] = [255, 4, 254, 2];
                const DESTINATION: u16 = 1;
                const DEVICE: u16 = 4;
                out.extend([AF_INET, WHOLE, 0, 0]);
                out.extend(LOCAL);
                out.extend([0; 4]);
                put(out, DESTINATION, address.octets());
                put(out, DEVICE, device.to_ne_bytes());
            }
        });
    }
    Ok(())
}

fn add_devices(count: u32) -> Result<()> {
    for number in 0..count {
        let name = name(number);
        for arguments in [["link", "add", &name, "type", "dummy"], ["link", "set", "dev", &name, "up"]] {
            let status = Command::new("ip").args(arguments).status().context("starting ip")?;
            ensure!(status.success(), "ip {}: {status}", arguments.join(" "));
        }
    }
    Ok(())
}

fn name(number: u32) -> String {
    format!("kube-ipvs{number}")
}

fn device(number: u32) -> Result<u32> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    name_to_index(&socket, &name(number)).with_context(|| name(number))
}
