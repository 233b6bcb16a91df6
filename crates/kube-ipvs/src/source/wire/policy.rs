//! What of the annotations that can be followed the operator does not allow.

use std::mem::{replace, take};

use ipvs_netlink::Scheduler;
use proxier::model::{Choices, EndpointSlice, Forwarding, Service, UdpScheduling};

use super::{
    Invalid,
    annotations::{WEIGHT, invalid},
};
use crate::config::{AnnotationPolicy, Annotations, format_go_duration};

/// The schedulers that any Service may choose: kube-proxy's own examples, whose modules the kernel loads without harm.
const SAFE_SCHEDULERS: [Scheduler; 6] =
    [Scheduler::RR, Scheduler::WRR, Scheduler::LC, Scheduler::WLC, Scheduler::SH, Scheduler::MH];

impl AnnotationPolicy {
    /// Takes out of a Service what it may not choose, and says what that was.
    pub fn restrict_service(&self, service: &mut Service) -> Vec<Invalid> {
        let mut refused = Vec::new();
        let Some(choices) = service.choices.as_mut() else { return refused };
        self.restrict(choices, |name, message| refused.push(invalid(name, message)));
        service.choices.take_if(|choices| **choices == Choices::DEFAULT);
        refused
    }

    /// The same of a slice.
    pub fn restrict_slice(&self, slice: &mut EndpointSlice) -> Option<Invalid> {
        if self.annotations != Annotations::Off {
            return None;
        }
        let mut is_refused = false;
        for endpoint in &mut slice.endpoints {
            is_refused |= replace(&mut endpoint.weight, 1) != 1;
        }
        is_refused.then(|| invalid(WEIGHT, self.refusal()))
    }

    fn restrict(&self, choices: &mut Choices, mut refuse: impl FnMut(&str, String)) {
        if choices.max_drain_time.take_if(|time| *time > self.drain_cap).is_some() {
            let cap = format_go_duration(self.drain_cap);
            refuse("max-drain-time", format!("is longer than --drain-cap, {cap}, which counts instead"));
        }
        if self.annotations == Annotations::All {
            return;
        }
        let mut refuse = |name| refuse(name, self.refusal());
        if choices.scheduler.take_if(|scheduler| !self.allows(*scheduler)).is_some() {
            refuse("scheduler");
        }
        if take(&mut choices.forwarding) != Forwarding::Masq {
            refuse("forwarding");
        }
        if take(&mut choices.udp_scheduling) != UdpScheduling::Flow {
            refuse("udp-scheduling");
        }
        if self.annotations == Annotations::Off {
            let weights = [
                (choices.hash_on.is_some(), "hash-on"),
                (choices.hash_fallback.is_some(), "hash-fallback"),
                (choices.local_weight != 1, "local-endpoint-weight"),
                (!choices.node_weights.is_empty(), "node-weights"),
                (choices.max_drain_time.is_some(), "max-drain-time"),
            ];
            weights.iter().filter(|(is_chosen, _)| *is_chosen).for_each(|(_, name)| refuse(name));
            *choices = Choices::DEFAULT;
        }
    }

    fn allows(&self, scheduler: Scheduler) -> bool {
        self.annotations == Annotations::Safe && SAFE_SCHEDULERS.contains(&scheduler)
    }

    fn refusal(&self) -> String {
        match self.annotations {
            Annotations::Off => "no annotation counts on this node (--annotations=off)".into(),
            annotations => format!("this node allows it only with --annotations=all, and has {annotations}"),
        }
    }
}
