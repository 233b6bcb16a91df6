//! The order of the first sync: the API server's Service comes before all others.
//!
//! On a node that joins, every pod that talks to the API server waits for this Service. With many Services it would
//! otherwise be served last of all.

use proxier::model::{Event, ServiceId};

/// The Service that the API server makes for itself.
pub(super) fn api_server() -> ServiceId {
    ServiceId::new("default", "kubernetes")
}

/// Splits the first events into those that the API server's Service needs, and all others. Each part keeps its order.
///
/// The ServiceCIDRs are among the others: with them, kube-ipvs rejects connections to the ClusterIPs of all Services
/// that it does not know yet. Until it knows them, another proxy can still serve them.
pub(super) fn split(events: Vec<Event>) -> (Vec<Event>, Vec<Event>) {
    let api_server = api_server();
    // An object that was removed already must not come back.
    if events.iter().any(|event| matches!(event, Event::ServiceRemoved(_) | Event::SliceRemoved(_))) {
        return (Vec::new(), events);
    }
    events.into_iter().partition(|event| match event {
        Event::ServiceApplied(service) => service.id == api_server,
        Event::SliceApplied(slice) => slice.service == api_server,
        Event::ServiceCidrApplied(_) => false,
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use proxier::model::{EndpointSlice, Family, Service, ServiceCidr, SliceId};

    use super::*;

    #[test]
    fn events_of_the_api_server_and_of_the_node_come_first() {
        let service =
            |namespace: &str, name: &str| Event::ServiceApplied(Service::new(ServiceId::new(namespace, name)));
        let slice = |service: ServiceId| {
            Event::SliceApplied(EndpointSlice::new(SliceId::new(&service.namespace, "slice"), service, Family::V4))
        };
        let events = vec![
            service("default", "web"),
            service("tenant", "kubernetes"),
            slice(api_server()),
            Event::NodeAddresses([].into()),
            slice(ServiceId::new("default", "web")),
            service("default", "kubernetes"),
            Event::ServiceCidrApplied(ServiceCidr { name: "kubernetes".into(), ranges: vec![] }),
        ];
        let (first, rest) = split(events.clone());
        assert_eq!(first, [2, 3, 5].map(|index: usize| events[index].clone()));
        assert_eq!(rest, [0, 1, 4, 6].map(|index: usize| events[index].clone()));
        let removed = [events, vec![Event::ServiceRemoved(api_server())]].concat();
        assert_eq!(split(removed.clone()), (vec![], removed));
    }
}
