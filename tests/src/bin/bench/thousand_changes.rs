//! An endpoint of each of many Services changes, in one delivery, as when a node fails.

use anyhow::Result;
use proxier::model::Event;

use crate::{
    clock::milliseconds,
    node::{Node, Place, config},
    replay::replay,
    report::Report,
    rounds::rounds,
    shape::Shape,
};

const CHANGES: u32 = 1_000;

pub(crate) fn run(shape: Shape, report: &mut Report) -> Result<()> {
    if shape.services < CHANGES {
        println!("\nthousand-changes, {shape}: needs {CHANGES} Services");
        return Ok(());
    }
    let moved = |is_away| -> Vec<Event> { (0..CHANGES).map(|number| shape.moved(number, is_away)).collect() };
    let mut node = Node::open(Place::new("ours")?, config())?;
    let recording = node.record();
    node.deliver(shape.events())?;
    // The endpoints drain, so from the second move on only weights change.
    node.deliver(moved(true))?;
    node.deliver(moved(false))?;
    let preparation = recording.take();
    let [away, back] = [true, false].map(|is_away| node.deliver(moved(is_away)).map(|_| recording.take()));
    let changes = [away?, back?];
    let place = Place::new("raw")?;
    place.enter(|| replay(&preparation))?;
    place.check(&node.place.state()?)?;
    // The measured node does not record, because copying takes time.
    let mut node = Node::start("measured", config(), shape.events())?;
    node.deliver(moved(true))?;
    node.deliver(moved(false))?;

    let (mut is_away, mut turn) = (false, 0);
    let mut ours = || {
        is_away = !is_away;
        Ok(milliseconds(node.deliver(moved(is_away))?.wall))
    };
    let mut raw = || {
        turn += 1;
        Ok(milliseconds(place.enter(|| replay(&changes[(turn + 1) % 2]))?))
    };
    let [ours, raw] = rounds(shape, [&mut ours, &mut raw])?;
    place.check(&node.place.state()?)?;

    let mut table = report.table("thousand-changes", shape.name, &format!("{shape}, {CHANGES} of them change"));
    table.figure("kube-ipvs, from the events to the last reply", "ms", &ours);
    table.figure("the same messages in raw sends", "ms", &raw);
    table.ratio("kube-ipvs / raw sends", &ours, &raw, Some(1.25));
    Ok(())
}
