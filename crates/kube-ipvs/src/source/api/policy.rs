//! What of the annotations that can be followed the operator does not allow.

use std::mem::{replace, take};

use ipvs_netlink::Scheduler;
use proxier::model::{EndpointSlice, Forwarding, Service, ServiceOptions, UdpScheduling};

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
        let Some(options) = service.options.as_mut() else { return refused };
        self.restrict(options, |name, message| refused.push(invalid(name, message)));
        service.options.take_if(|options| **options == ServiceOptions::DEFAULT);
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

    fn restrict(&self, options: &mut ServiceOptions, mut refuse: impl FnMut(&str, String)) {
        if options.max_drain_time.take_if(|time| *time > self.drain_cap).is_some() {
            let cap = format_go_duration(self.drain_cap);
            refuse("max-drain-time", format!("is longer than --drain-cap, {cap}, which counts instead"));
        }
        if self.annotations == Annotations::All {
            return;
        }
        let mut refuse = |name| refuse(name, self.refusal());
        if options.scheduler.take_if(|scheduler| !self.allows(*scheduler)).is_some() {
            refuse("scheduler");
        }
        if take(&mut options.forwarding) != Forwarding::Masq {
            refuse("forwarding");
        }
        if take(&mut options.udp_scheduling) != UdpScheduling::Flow {
            refuse("udp-scheduling");
        }
        if self.annotations == Annotations::Off {
            let weights = [
                (options.hash_on.is_some(), "hash-on"),
                (options.hash_fallback.is_some(), "hash-fallback"),
                (options.local_weight != 1, "local-endpoint-weight"),
                (!options.node_weights.is_empty(), "node-weights"),
                (options.max_drain_time.is_some(), "max-drain-time"),
            ];
            weights.iter().filter(|(is_chosen, _)| *is_chosen).for_each(|(_, name)| refuse(name));
            *options = ServiceOptions::DEFAULT;
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
