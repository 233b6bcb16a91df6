//! A new process on a kernel that has the whole state already.

use anyhow::{Result, ensure};
use netlink_batch::Protocol;
use proxier::{Engine, linux::LinuxKernel, model::Event};

use crate::{
    clock::{measure, milliseconds},
    node::{Node, config, open},
    replay::{Datagram, replay},
    report::Report,
    rounds::rounds,
    shape::Shape,
};

pub(crate) fn run(shape: Shape, report: &mut Report) -> Result<()> {
    let Node { place, .. } = Node::start("full", config(), shape.events())?;
    let mut node = Node::open(place, config())?;
    let recording = node.record();
    node.enter(|engine, kernel| sync_without_changes(engine, kernel, shape.events()))?;
    let dump: Vec<Datagram> = recording.take().into_iter().filter(is_of_the_dump).collect();
    let place = node.place;

    let mut ours = || {
        let events = shape.events();
        let ((), spent) = place.enter(|| {
            measure(|| {
                let (mut engine, mut kernel) = open(config())?;
                sync_without_changes(&mut engine, &mut kernel, events)
            })
        })?;
        Ok(milliseconds(spent.wall))
    };
    let mut raw = || Ok(milliseconds(place.enter(|| replay(&dump))?));
    let [ours, raw] = rounds(shape, [&mut ours, &mut raw])?;

    let mut table = report.table("warm-start", shape.name, &shape.to_string());
    table.figure("kube-ipvs, from the events to the end of the sync", "ms", &ours);
    table.figure("a raw dump: servers, elements, addresses", "ms", &raw);
    table.ratio("kube-ipvs / raw dump", &ours, &raw, Some(1.25));
    Ok(())
}

fn sync_without_changes(engine: &mut Engine, kernel: &mut LinuxKernel, events: Vec<Event>) -> Result<()> {
    events.into_iter().for_each(|event| engine.apply(event));
    let report = engine.sync(kernel, Default::default());
    ensure!(report.unavailable.is_none(), "{:?}", report.unavailable);
    ensure!(report.is_full && report.plan.is_empty(), "the kernel differs:\n{}", report.plan);
    Ok(())
}

/// Whether a message lists virtual servers, real servers, set elements or addresses. The others check prerequisites.
fn is_of_the_dump((protocol, bytes): &Datagram) -> bool {
    /// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM`.
    const GET_ELEMENTS: u16 = 10 << 8 | 13;
    const RTM_GETADDR: u16 = 22;
    const NLM_F_DUMP: u16 = 0x300;
    // The type and the flags of the header.
    let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let is_dump = number(6) & NLM_F_DUMP == NLM_F_DUMP;
    is_dump
        && match protocol {
            Protocol::Netfilter => number(4) == GET_ELEMENTS,
            Protocol::Route => number(4) == RTM_GETADDR,
            _ => true,
        }
}
