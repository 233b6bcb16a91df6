//! Generates runs from seeds.

use fastrand::Rng;

use super::{
    cluster::{PODS, SERVICES},
    objects::{PodState, Port, Shape, Transport, Which},
    step::{Act, Fault, Run, Step, World},
};

/// The run of a seed, with `length` steps. The last one is [`Step::Settle`].
pub(super) fn run(seed: u64, length: usize) -> Run {
    let mut source = Source { random: Rng::with_seed(seed), services: 1 };
    let world = source.world();
    source.services = source.random.u8(1..=SERVICES);
    let mut steps = Vec::with_capacity(length);
    for service in 0..source.random.u8(1..=source.services.min(3)) {
        steps.push(Step::Service(Shape { name: service, ..source.shape() }));
        for pod in 0..2 {
            steps.push(Step::Pod { service, pod, local: source.random.bool(), state: PodState::Ready });
        }
    }
    steps.extend([Step::DeliverAll, Step::Advance(0)]);
    while steps.len() + 1 < length {
        steps.push(source.step());
    }
    steps.push(Step::Settle);
    Run { world, steps }
}

struct Source {
    random: Rng,
    services: u8,
}

const PORTS: [&[Port]; 6] = [
    &[(Transport::Tcp, 80)],
    &[(Transport::Udp, 53)],
    &[(Transport::Tcp, 80), (Transport::Tcp, 443)],
    &[(Transport::Udp, 53), (Transport::Tcp, 53)],
    &[(Transport::Sctp, 80)],
    &[(Transport::Tcp, 80), (Transport::Udp, 80)],
];

/// Texts of changes, for [`Step::Reject`] and [`Step::Ignore`].
const CHANGES: [&str; 16] = [
    "",
    "- address",
    "+ address",
    "- virtual server",
    "+ virtual server",
    "~ virtual server",
    "+ real server",
    "- real server",
    "~ real server",
    "- flows",
    "+ element served",
    "+ element vips",
    "element firewall",
    "element short-circuits",
    "- element served",
    "- element",
];

/// Texts of objects, for [`Step::Unlist`].
const OBJECTS: [&str; 8] = [
    "virtual server",
    "real server",
    "element",
    "element served",
    "element vips",
    "element firewall",
    "element short-circuits",
    "element pod-sources",
];

impl Source {
    fn one_in(&mut self, count: u8) -> bool {
        self.random.u8(0..count) == 0
    }

    fn one<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.random.usize(0..all.len())].clone()
    }

    fn world(&mut self) -> World {
        World {
            period: self.one(&[30, 30, 30, 10, 300]),
            min_sync: self.one(&[0, 0, 0, 1_000, 10_000]),
            drain: self.one(&[60, 60, 600, 5]),
            scoped_arp: self.one_in(3),
            localhost: self.one_in(4),
            lacks_sh: self.one_in(4),
        }
    }

    fn shape(&mut self) -> Shape {
        let balancer = self.one_in(3).then(|| self.random.u8(1..4));
        Shape {
            name: self.service(),
            ports: self.one(&PORTS).to_vec(),
            ip: self.random.u8(0..SERVICES),
            v6: self.one_in(4),
            external: self.one_in(4).then(|| self.random.u8(1..3)),
            balancer,
            ranges: if balancer.is_some() && self.random.bool() { self.random.u8(0..16) } else { 0 },
            node_ports: self.one_in(4),
            affinity: if self.one_in(4) { self.one(&[10, 3_600]) } else { 0 },
            local: self.one_in(3),
            local_inside: self.one_in(6),
            hashed: self.one_in(8),
        }
    }

    fn service(&mut self) -> u8 {
        self.random.u8(0..self.services)
    }

    fn pod(&mut self) -> (u8, u8) {
        (self.service(), self.random.u8(0..PODS))
    }

    fn which(&mut self) -> Which {
        use Which::{Cidrs, Node, Services, Slices};
        self.one(&[Services, Services, Services, Slices, Slices, Slices, Node, Cidrs])
    }

    fn time(&mut self) -> u32 {
        self.one(&[0, 0, 1, 100, 1_000, 2_000, 3_000, 5_000, 10_000, 31_000, 61_000, 200_000])
    }

    fn step(&mut self) -> Step {
        let services = |source: &mut Self| match source.random.u8(0..30) {
            0..5 => Step::Service(source.shape()),
            5..7 => Step::DeleteService(source.service()),
            7..18 => {
                use PodState::{NotReady, Ready, Stopping, Terminating, Unselected};
                let (service, pod) = source.pod();
                let state =
                    source.one(&[Ready, Ready, Ready, NotReady, Terminating, Terminating, Stopping, Unselected]);
                Step::Pod { service, pod, local: source.random.bool(), state }
            }
            18..23 => {
                let (service, pod) = source.pod();
                Step::Gone { service, pod }
            }
            23 | 24 => Step::Slices { service: source.service(), parts: source.random.u8(0..3) },
            25 => Step::DeleteSlices(source.service()),
            26 => Step::Invalid { which: source.one(&[Which::Services, Which::Slices]), service: source.service() },
            27 if source.one_in(3) => Step::DeleteNode,
            27 => Step::Node { pods: source.random.u8(0..3), leaving: source.one_in(3) },
            28 => Step::Cidr(source.random.u8(0..3)),
            _ => Step::DeleteCidr(source.random.u8(0..3)),
        };
        let api = |source: &mut Self| match source.random.u8(0..20) {
            0..5 => Step::Deliver { which: source.which(), count: source.random.u8(1..5) },
            5..12 => Step::DeliverAll,
            12 => Step::Again { which: source.which(), back: source.random.u8(0..4) },
            13 => Step::Lose(source.which()),
            14 | 15 => Step::Relist(source.which()),
            16 => Step::Outage,
            17 | 18 => Step::Answers,
            _ => Step::Restore(source.random.u8(1..8)),
        };
        match self.random.u8(0..100) {
            0..26 => services(self),
            26..45 => api(self),
            45..65 => Step::Advance(self.time()),
            65 => Step::Hang(self.time()),
            66 if self.one_in(2) => Step::Wall(self.one(&[-3_600, 3_600, -1, 86_400])),
            66 => Step::Kill,
            67..83 => self.fault(),
            83..96 => {
                let (client, server, inside) = (self.random.u8(0..4), self.random.u8(0..24), self.random.bool());
                Step::Open { client, server, inside }
            }
            96..99 => Step::Close(self.random.u8(0..8)),
            _ => Step::Settle,
        }
    }

    fn fault(&mut self) -> Step {
        let at = self.random.u8(0..40);
        match self.random.u8(0..16) {
            0..4 => {
                // ENOBUFS, ENOMEM, EPERM, EBUSY, EINTR
                let errno = self.one(&[105, 12, 1, 16, 4]);
                let kinds =
                    [Fault::Reject(errno), Fault::Unanswered, Fault::AnswerLost, Fault::AnswersLost, Fault::Kill];
                Step::Fault { at, kind: self.one(&kinds) }
            }
            4 => Step::Reject(self.one(&CHANGES).into()),
            // nftables answers either all changes of a phase or none.
            5 if self.one_in(2) => Step::Ignore(self.one(&CHANGES[..10]).replace("- flows", "element")),
            5 => Step::Unreadable,
            6 => Step::Unlist(self.one(&OBJECTS).into()),
            7..11 => Step::Calm,
            11..14 => Step::Others(self.act()),
            _ => Step::During { at, act: self.act() },
        }
    }

    fn act(&mut self) -> Act {
        let pick = self.random.u8(..);
        self.one(&[
            Act::ClearIpvs,
            Act::FlushRuleset,
            Act::DeleteDevice,
            Act::DeleteServer(pick),
            Act::DeleteServer(pick),
            Act::DeleteRealServer(pick),
            Act::DisableRealServer(pick),
            Act::DeleteElement(pick),
            Act::RenameElement(pick),
            Act::DeleteAddress(pick),
            Act::AddElement(pick),
            Act::AddServer(pick),
            Act::AddServer(pick),
            Act::AddAddress(pick),
            Act::RemoveOwnServer(pick),
        ])
    }
}
