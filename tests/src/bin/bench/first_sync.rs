//! The first sync: from the events to the kernel's last reply, on an empty kernel.

use anyhow::Result;

use crate::{
    clock::{measure, milliseconds},
    node::{Node, Place, config, open, sync},
    replay::replay,
    report::Report,
    rivals::Rivals,
    rounds::rounds,
    shape::Shape,
};

pub(crate) fn run(shape: Shape, report: &mut Report) -> Result<()> {
    let mut node = Node::open(Place::new("recorded")?, config())?;
    let recording = node.record();
    node.deliver(shape.events())?;
    let (datagrams, state) = (recording.take(), node.place.state()?);
    let rivals = Rivals::of(&node.place)?;
    drop(node);

    let mut ours = || {
        let place = Place::new("ours")?;
        let events = shape.events();
        let ((), spent) = place.enter(|| {
            measure(|| {
                let (mut engine, mut kernel) = open(config())?;
                sync(&mut engine, &mut kernel, events, Default::default()).map(drop)
            })
        })?;
        place.check(&state)?;
        Ok(milliseconds(spent.wall))
    };
    let mut raw = || {
        let place = Place::new("raw")?;
        let time = place.enter(|| replay(&datagrams))?;
        place.check(&state)?;
        Ok(milliseconds(time))
    };
    let mut theirs = || {
        let place = Place::new("rivals")?;
        let time = place.enter(|| rivals.load())?;
        place.check(&state)?;
        Ok(milliseconds(time))
    };
    let [ours, raw, theirs] = rounds(shape, [&mut ours, &mut raw, &mut theirs])?;

    let mut table = report.table("first-sync", shape.name, &shape.to_string());
    table.figure("kube-ipvs, from the events to the last reply", "ms", &ours);
    table.figure("the same messages in raw sends", "ms", &raw);
    table.figure("nft -f, ipvsadm -R and ip -batch of the same state", "ms", &theirs);
    table.ratio("kube-ipvs / raw sends", &ours, &raw, Some(1.25));
    table.ratio("kube-ipvs / nft, ipvsadm and ip", &ours, &theirs, Some(0.08));
    Ok(())
}
