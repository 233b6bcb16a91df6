//! How kube-ipvs parses objects of the API server, and the problems it reports about them.

use std::time::Duration;

use proptest::prelude::*;
use proxier::{Completeness, model::Event};
use proxier_kubernetes::{AnnotationPolicy, Annotations};
use serde_json::{Value, json, value::RawValue};

use super::{
    cache::{Cache, Update},
    resource::{Object, Resource},
};
use crate::source::Changes;

fn raw(object: &Value) -> Box<RawValue> {
    RawValue::from_string(object.to_string()).unwrap()
}

fn read(resource: Resource, object: &Value) -> Object {
    resource.read(&raw(object), &AnnotationPolicy::default())
}

fn cache() -> Cache {
    Cache::new("https://api")
}

fn apply(cache: &mut Cache, resource: Resource, object: &Value) -> Changes {
    let mut changes = Changes::default();
    cache.take(resource, Update::Applied(Box::new(read(resource, object))), &mut changes);
    changes
}

fn list(cache: &mut Cache, resource: Resource, objects: &[Value]) -> Changes {
    let mut changes = Changes::default();
    let objects = objects.iter().map(|object| read(resource, object)).collect();
    cache.take(resource, Update::Listed(objects), &mut changes);
    changes
}

fn said(changes: &Changes) -> Vec<String> {
    changes.problems.iter().map(ToString::to_string).collect()
}

fn service(annotations: Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    })
}

fn slice(ports: usize) -> Value {
    let ports: Vec<Value> = (0..ports).map(|port| json!({"name": format!("p{port}"), "port": 80})).collect();
    json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": ["10.0.0.1"]}],
    })
}

fn unknown(count: usize, prefix: &str) -> Value {
    let named = |number| (format!("kube-ipvs.io/{prefix}{number:05}"), json!(""));
    Value::Object((0..count).map(named).collect())
}

#[test]
fn disallowed_annotation_is_reported_on_its_service() {
    let annotations = json!({"kube-ipvs.io/forwarding": "ipip", "kube-ipvs.io/scheduler": "wrr"});
    let mut cache = cache();
    let changes = apply(&mut cache, Resource::Services, &service(annotations.clone()));
    let [Event::ServiceApplied(applied)] = &changes.events[..] else { panic!("{changes:?}") };
    assert_eq!(applied.options().forwarding, Default::default());
    assert!(applied.options().scheduler.is_some());
    let [event_note] = &changes.event_notes[..] else { panic!("{changes:?}") };
    assert_eq!(event_note.reason, "PartIgnored");
    assert!(event_note.note.contains("--annotations=all"), "{}", event_note.note);
    // kube-ipvs reports nothing about an unchanged object.
    assert_eq!(said(&apply(&mut cache, Resource::Services, &service(annotations))), [""; 0]);
}

#[test]
fn slice_weight_annotation_counts_unless_annotations_are_off() {
    for (annotations, weight) in [(Annotations::Safe, 5), (Annotations::Off, 1)] {
        let policy = AnnotationPolicy { annotations, ..AnnotationPolicy::default() };
        let mut weighted = slice(1);
        weighted["metadata"]["annotations"] = json!({"kube-ipvs.io/weight": "5"});
        let weighted = Resource::EndpointSlices.read(&raw(&weighted), &policy);
        let mut changes = Changes::default();
        cache().take(Resource::EndpointSlices, Update::Applied(Box::new(weighted)), &mut changes);
        let [Event::SliceApplied(slice)] = &changes.events[..] else { panic!("{changes:?}") };
        assert_eq!((slice.endpoints[0].weight, changes.problems.len()), (weight, usize::from(weight == 1)));
    }
}

/// A tenant who keeps renaming 14,000 invalid annotations costs ten lines each time.
#[test]
fn report_about_one_object_is_bounded() {
    let mut cache = cache();
    // The line with the count of the others is not repeated.
    for (prefix, lines) in [("a", 11), ("b", 10), ("c", 10)] {
        let changes = apply(&mut cache, Resource::Services, &service(unknown(14_000, prefix)));
        let said = said(&changes);
        assert_eq!((said.len(), changes.event_notes.len()), (lines, lines));
        let counts = said.iter().any(|line| line.ends_with("metadata.annotations: and 13990 more"));
        assert_eq!(counts, prefix == "a", "{said:?}");
    }
    let long = "\u{1}".repeat(1 << 18);
    let changes = apply(&mut cache, Resource::Services, &service(json!({"kube-ipvs.io/scheduler": long})));
    assert!(said(&changes)[0].len() < 1000, "{:?}", said(&changes));
    // The parser quotes a value of the wrong type.
    let mut broken = service(json!({}));
    broken["spec"]["ports"] = json!(long);
    let changes = apply(&mut cache, Resource::Services, &broken);
    assert!(said(&changes)[0].len() < 4000, "{}", said(&changes)[0].len());
}

/// Only the Service that cannot be parsed is excluded from completeness.
#[test]
fn unparsed_service_is_excluded_from_completeness() {
    let mut cache = cache();
    let mut broken = service(json!({}));
    broken["spec"]["type"] = json!("Wormhole");
    list(&mut cache, Resource::EndpointSlices, &[json!({"metadata": {"name": "odd", "namespace": "shop"}})]);
    let changes = list(&mut cache, Resource::Services, &[broken]);
    let Completeness::Except(services) = &changes.complete else { panic!("{:?}", changes.complete) };
    assert_eq!(services.iter().map(ToString::to_string).collect::<Vec<_>>(), ["shop/web"]);
    assert_eq!(changes.unread.len(), 2);
    list(&mut cache, Resource::EndpointSlices, &[]);
    assert_eq!(list(&mut cache, Resource::Services, &[]).complete, Completeness::Complete);
}

#[test]
fn problem_of_a_recreated_object_is_reported_again() {
    let mut stray = slice(1);
    stray["metadata"]["labels"] = json!({"kubernetes.io/service-name": "My_Service"});
    let mut cache = cache();
    for _ in 0..2 {
        let changes = list(&mut cache, Resource::EndpointSlices, std::slice::from_ref(&stray));
        assert_eq!((changes.events.len(), said(&changes).len()), (0, 1));
        list(&mut cache, Resource::EndpointSlices, &[]);
    }
}

/// An agent can publish all VIPs of a large cluster as addresses of its Node. That Node still has a zone.
#[test]
fn node_with_thousands_of_addresses_is_parsed() {
    let address = |number: u32| std::net::Ipv4Addr::from_bits(0x0a60_0000 + number).to_string();
    let addresses: Vec<Value> =
        (0..2_000).map(|number| json!({"type": "ExternalIP", "address": address(number)})).collect();
    let node = json!({"metadata": {"name": "node-1"}, "status": {"addresses": addresses}});
    let Ok(Some(Event::NodeApplied(node))) = read(Resource::OwnNode, &node).content else { panic!("it is not read") };
    assert_eq!(node.addresses.len(), 2_000);
}

/// The CPU time of this thread, independent of other load on the machine.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap()
}

/// The cost of parsing an object at the limits of the API, relative to an eighth of it. A quadratic parser takes 64
/// times as long.
fn growth(resource: Resource, of: impl Fn(usize) -> Value, most: usize) -> f64 {
    let work = |size| {
        let object = raw(&of(size));
        let once = || {
            let start = processor_time();
            let mut cache = cache();
            for _ in 0..2 {
                let object = resource.read(&object, &AnnotationPolicy::default());
                cache.take(resource, Update::Applied(Box::new(object)), &mut Changes::default());
            }
            processor_time() - start
        };
        (0..5).map(|_| once()).min().unwrap_or_default()
    };
    work(most).as_secs_f64() / work(most / 8).max(Duration::from_micros(1)).as_secs_f64()
}

#[test]
fn parse_time_grows_linearly_with_the_object() {
    let ports = |count| {
        let port = |port: usize| json!({"name": format!("p{port}"), "port": port + 1, "nodePort": port + 1});
        json!({
            "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "ports": (0..count).map(port).collect::<Vec<_>>()},
        })
    };
    let bad_addresses = |count: usize| {
        let endpoint = json!({"addresses": vec!["255.255.255.255"; 80]});
        let mut slice = slice(1);
        slice["endpoints"] = json!(vec![endpoint; count / 80]);
        slice
    };
    let node_weights = |count: usize| {
        let weights: Vec<String> = (0..count).map(|number| format!("n{number}=1")).collect();
        service(json!({"kube-ipvs.io/node-weights": weights.join(",")}))
    };
    let node_addresses = |count: usize| {
        let ip = |number| std::net::Ipv4Addr::from_bits(0x0a60_0000 + number as u32);
        let addresses: Vec<_> =
            (0..count).map(|number| json!({"type": "ExternalIP", "address": ip(number).to_string()})).collect();
        json!({"metadata": {"name": "node-1"}, "status": {"addresses": addresses}})
    };
    let growths = [
        ("ports of a slice", growth(Resource::EndpointSlices, slice, 20_000)),
        ("ports of a Service", growth(Resource::Services, ports, 20_000)),
        ("annotations", growth(Resource::Services, |count| service(unknown(count, "a")), 14_000)),
        ("addresses that no node can have", growth(Resource::EndpointSlices, bad_addresses, 80_000)),
        ("weights of Nodes", growth(Resource::Services, node_weights, 1000)),
        ("addresses of a Node", growth(Resource::OwnNode, node_addresses, 20_000)),
    ];
    for (what, growth) in growths {
        assert!(growth < 30.0, "{what}: {growth}");
    }
}

/// Values of all shapes, some of them valid in a field.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        prop::sample::select(vec!["", "None", "10.0.0.1", "fd00::1", "10.0.0.0/8", "TCP", "Local", "IPv4"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z.]{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn graft(into: &mut Value, place: &mut impl FnMut(usize) -> usize, value: Value) {
    let children: Vec<&mut Value> = match into {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    let chosen = place(children.len() + 1);
    let child = children.into_iter().nth(chosen);
    match child {
        Some(child) => graft(child, place, value),
        None => *into = value,
    }
}

/// One object of each kind, with every field that kube-ipvs parses.
fn whole() -> [(Resource, Value); 4] {
    let meta = json!({
        "name": "web", "namespace": "shop", "uid": "1", "resourceVersion": "7",
        "creationTimestamp": "2026-01-31T12:00:00Z", "deletionTimestamp": "2026-01-31T12:00:00Z",
        "labels": {"kubernetes.io/service-name": "web", "topology.kubernetes.io/zone": "a"},
        "annotations": {
            "kube-ipvs.io/scheduler": "mh", "kube-ipvs.io/node-weights": "a=1,b=2", "kube-ipvs.io/weight": "2",
            "kube-ipvs.io/max-drain-time": "1m", "kube-ipvs.io/forwarding": "gue:1",
            "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-31T12:00:00Z",
        },
    });
    let service = json!({
        "metadata": meta,
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
            "selector": {"app": "web"}, "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "ports": [{"name": "a", "port": 80, "nodePort": 30080, "protocol": "TCP"}, {"name": "b", "port": 81}],
            "externalIPs": ["192.0.2.1"], "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2", "ipMode": "VIP"}]}},
    });
    let slice = json!({
        "metadata": meta, "addressType": "IPv4", "ports": [{"name": "a", "port": 80, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": ["10.0.0.1"], "nodeName": "n", "conditions": {"ready": true, "serving": true, "terminating": false},
            "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n"}]},
        }],
    });
    let node = json!({
        "metadata": meta, "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "taints": [{"key": "a"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
    });
    let range = json!({"metadata": meta, "spec": {"cidrs": ["10.96.0.0/12"]}});
    [
        (Resource::Services, service),
        (Resource::EndpointSlices, slice),
        (Resource::OwnNode, node),
        (Resource::ServiceCidrs, range),
    ]
}

#[test]
fn object_with_every_field_is_parsed_without_problems() {
    for (resource, object) in whole() {
        assert!(matches!(read(resource, &object).content, Ok(Some(_))), "{object}");
    }
}

proptest! {
    /// Whatever the API server sends, kube-ipvs does not panic and reports a bounded amount.
    #[test]
    fn arbitrary_object_causes_no_panic_and_a_bounded_report(
        kind in 0..4usize,
        grafts in prop::collection::vec((value(), prop::collection::vec(any::<prop::sample::Index>(), 8)), 0..4),
    ) {
        let (resource, mut object) = whole()[kind].clone();
        for (value, places) in grafts {
            let mut places = places.into_iter();
            graft(&mut object, &mut |count| places.next().map_or(count, |place| place.index(count)), value);
        }
        let mut cache = cache();
        let changes = apply(&mut cache, resource, &object);
        prop_assert!(said(&changes).len() <= 22 + 8, "{:?}", changes);
        prop_assert!(said(&changes).iter().all(|line| line.len() < 2000));
        prop_assert!(said(&apply(&mut cache, resource, &object)).is_empty(), "said twice");
    }
}
