//! All Services are deleted in one delivery.

use anyhow::Result;

use crate::{
    clock::{milliseconds, settle},
    node::{Node, Place, config},
    replay::replay,
    report::Report,
    rounds::rounds,
    shape::Shape,
};

pub(crate) fn run(shape: Shape, report: &mut Report) -> Result<()> {
    let mut node = Node::open(Place::new("recorded")?, config())?;
    let recording = node.record();
    node.deliver(shape.events())?;
    let creation = recording.take();
    node.deliver(shape.removal())?;
    let (removal, empty) = (recording.take(), node.place.state()?);
    drop(node);

    let mut ours = || {
        let mut node = Node::start("ours", config(), shape.events())?;
        settle()?;
        let spent = node.deliver(shape.removal())?;
        node.place.check(&empty)?;
        Ok(milliseconds(spent.wall))
    };
    let mut raw = || {
        let place = Place::new("raw")?;
        place.enter(|| replay(&creation))?;
        settle()?;
        let time = place.enter(|| replay(&removal))?;
        place.check(&empty)?;
        Ok(milliseconds(time))
    };
    let [ours, raw] = rounds(shape, [&mut ours, &mut raw])?;

    let mut table = report.table("delete-all", shape.name, &shape.to_string());
    table.figure("kube-ipvs, from the events to the last reply", "ms", &ours);
    table.figure("the same messages in raw sends", "ms", &raw);
    table.ratio("kube-ipvs / raw sends", &ours, &raw, Some(1.25));
    Ok(())
}
