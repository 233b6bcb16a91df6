//! The cost of rules and connection tracking for packets: new connections, exchanges and throughput of a Service,
//! through kube-ipvs and through the same virtual servers by ipvsadm.

mod nodes;
mod traffic;

use anyhow::Result;

use self::{
    nodes::{Kind, bare, served},
    traffic::{Sample, answer, measure},
};
use crate::{network::Network, report::Report, rounds::rounds, shape::Shape};

/// The packets of a Service get at least 0.97 of the speed without rules.
const GOAL: f64 = 1.0 / 0.97;
/// Beside the size of the shape: shows whether the cost grows with the number of Services.
const FEW: u32 = 10;

type Figure = (&'static str, &'static str, fn(&Sample) -> f64);

const FIGURES: [Figure; 3] = [
    ("a new connection", "us", |sample| sample.connection),
    ("an exchange over an open connection", "us", |sample| sample.exchange),
    ("a megabyte", "ms", |sample| sample.megabyte),
];

/// The samples of one node, one for each [`Kind`].
type Samples = [Sample; Kind::ALL.len()];

pub(crate) fn run(shape: Shape, report: &mut Report) -> Result<()> {
    let network = Network::create()?;
    answer(network.old())?;
    let all = || -> Result<Samples> {
        let [first, second, third] = Kind::ALL.map(|kind| measure(kind.client(&network), kind.address()));
        Ok([first?, second?, third?])
    };
    let mut few = || served(&network, shape.with_services(FEW), all);
    let mut many = || served(&network, shape, all);
    let mut without_rules = || bare(&network, shape, false, all);
    let mut with_conntrack = || bare(&network, shape, true, all);
    let samples = rounds(shape, [&mut few, &mut many, &mut without_rules, &mut with_conntrack])?;

    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        let mut table = report.table("packets", shape.name, &format!("{shape}, {kind}"));
        for (name, unit, figure) in FIGURES {
            let of = |samples: &[Samples]| samples.iter().map(|sample| figure(&sample[number])).collect::<Vec<f64>>();
            let [few, many, without_rules, with_conntrack] = samples.each_ref().map(|samples| of(samples));
            table.figure(name, unit, &many);
            table.figure(&format!("{name}, ipvsadm"), unit, &without_rules);
            table.figure(&format!("{name}, ipvsadm and conntrack"), unit, &with_conntrack);
            table.ratio(&format!("{name} / ipvsadm"), &many, &without_rules, Some(GOAL));
            table.ratio(&format!("{name} / ipvsadm and conntrack"), &many, &with_conntrack, None);
            table.ratio(&format!("{name} among {FEW} Services / ipvsadm"), &few, &without_rules, Some(GOAL));
        }
    }
    Ok(())
}
