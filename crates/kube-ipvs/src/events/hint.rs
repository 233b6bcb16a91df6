use proxier::desired::{Rejection, Skipped};

/// The reason why a part of a Service is not served, with the flag or annotation that decides it.
pub fn with_hint(skipped: &Skipped) -> String {
    format!("{skipped}{}", hint(skipped))
}

fn hint(skipped: &Skipped) -> &'static str {
    match skipped {
        Skipped::TooManyVirtualServers { .. } => " (--max-virtual-servers-per-service)",
        Skipped::MoreOmitted { .. } => "; `kube-ipvs explain` lists them",
        Skipped::AddressRejected { why: Rejection::ExternalIpsDisabled, .. } => {
            " (feature gate AllowServiceExternalIPs)"
        }
        Skipped::AddressRejected { why: Rejection::OutsideExternalIpRanges, .. } => " (--external-ip-ranges)",
        Skipped::ReservedPort { .. } => " (--reserved-ports, or the API server's port)",
        Skipped::NoNodePortAddress { .. } => " (--nodeport-addresses)",
        Skipped::ForwardingIgnored { .. } => " (annotation kube-ipvs.io/forwarding)",
        Skipped::DatagramSchedulingIgnored { .. } => {
            " (annotations kube-ipvs.io/forwarding, or kube-ipvs.io/udp-scheduling: one-way-datagram)"
        }
        Skipped::WeightsIgnored { .. } => ". Set for example the annotation kube-ipvs.io/scheduler: wrr",
        Skipped::HashOptionsIgnored { .. } => " (annotation kube-ipvs.io/scheduler)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use proxier::model::{Family, ServiceId, ServicePortId};

    use super::*;

    #[test]
    fn skipped_reason_names_the_flag_that_decides_it() {
        let service = ServiceId::new("default", "web");
        let address = "203.0.113.7".parse().unwrap();
        let refused = |why| with_hint(&Skipped::AddressRejected { service: service.clone(), address, why });
        assert_eq!(
            refused(Rejection::OutsideExternalIpRanges),
            "Service default/web is not served on 203.0.113.7: no range for external IPs contains it \
             (--external-ip-ranges)"
        );
        assert_eq!(
            refused(Rejection::ExternalIpsDisabled),
            "Service default/web is not served on 203.0.113.7: external IPs are not allowed (feature gate \
             AllowServiceExternalIPs)"
        );
        assert_eq!(
            refused(Rejection::ApiServerAddress),
            "Service default/web is not served on 203.0.113.7: this node reaches the API server at that address"
        );
        let port = ServicePortId { service: service.clone(), port: "".into() };
        assert_eq!(
            with_hint(&Skipped::NoNodePortAddress { port, family: Family::V4 }),
            "Service default/web has a node port, and no IPv4 address of this node serves node ports \
             (--nodeport-addresses)"
        );
        assert_eq!(
            with_hint(&Skipped::TooManyVirtualServers { service: service.clone(), limit: 2, left_out: 3 }),
            "Service default/web is served on 2 addresses and ports; 3 more are left out \
             (--max-virtual-servers-per-service)"
        );
        assert_eq!(
            with_hint(&Skipped::MoreOmitted { service, count: 3 }),
            "Service default/web has 3 more parts that are not served as specified; `kube-ipvs explain` lists them"
        );
    }
}
