//! The results for an object of each kind, as an embedder sees them. The manifests of kube-ipvs test the fields and
//! messages.

use expect_test::{Expect, expect};
use k8s_openapi::{
    ListableResource, Resource,
    api::{
        core::v1::{Endpoints, Node, Pod, Service},
        discovery::v1::EndpointSlice,
        networking::v1::ServiceCIDR,
    },
};
use proxier::model::Event;
use proxier_kubernetes::{AnnotationPolicy, Invalid, Kind, Object, Remarks};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

type Outcome = Result<(Object, Remarks), Invalid>;

/// Reads the object from JSON and from `k8s_openapi`'s type: both results are equal.
fn read<T: Resource + Serialize + DeserializeOwned>(object: Value) -> Outcome {
    let policy = AnnotationPolicy::default();
    let kind = Kind::of(T::API_VERSION, T::KIND).expect("a kind that a proxy acts on");
    let read = Object::read(kind, &object.to_string(), &policy);
    let typed: T = serde_json::from_value(object).expect("an object of the API");
    assert_eq!(Object::from_resource(&typed, &policy), read);
    read
}

fn check(outcome: Outcome, expected: Expect) {
    let text = match outcome {
        Ok((object, remarks)) => {
            let event = object.event.as_ref().map_or("no event", |event| match event {
                Event::NodeApplied(_) => "NodeApplied",
                Event::ServiceCidrApplied(_) => "ServiceCidrApplied",
                Event::ServiceApplied(_) => "ServiceApplied",
                Event::SliceApplied(_) => "SliceApplied",
                _ => "another event",
            });
            let remarks: String = remarks.into_messages().map(|remark| format!("\n{remark}")).collect();
            format!("{}: {event}, then {:?}{remarks}", object.key, object.key.removed())
        }
        Err(invalid) => format!("invalid: {invalid}"),
    };
    expected.assert_eq(&text);
}

fn meta(labels: Value, annotations: Value) -> Value {
    json!({"name": "web", "namespace": "shop", "labels": labels, "annotations": annotations})
}

fn service(labels: Value, annotations: Value, external: &str) -> Value {
    let spec = json!({"clusterIP": "10.96.0.1", "externalIPs": [external], "ports": [{"port": 80}]});
    json!({"metadata": meta(labels, annotations), "spec": spec})
}

#[test]
fn services_become_events_with_remarks_or_are_invalid() {
    check(
        read::<Service>(service(json!({}), json!({}), "192.0.2.1")),
        expect![[r#"
            Service shop/web: ServiceApplied, then Some(ServiceRemoved(ServiceId { namespace: "shop", name: "web" }))"#]],
    );
    let annotations = json!({"kube-ipvs.io/forwarding": "ipip", "kube-ipvs.io/scheduler": "fastest"});
    check(
        read::<Service>(service(json!({}), annotations, "127.0.0.1")),
        expect![[r#"
            Service shop/web: ServiceApplied, then Some(ServiceRemoved(ServiceId { namespace: "shop", name: "web" }))
            metadata.annotations: annotation kube-ipvs.io/forwarding: this value needs --annotations=all, and this node has --annotations=safe; it is ignored
            metadata.annotations: annotation kube-ipvs.io/scheduler: "fastest" is not a scheduler of IPVS: use one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf, twos; it is ignored
            spec.externalIPs[0]: 127.0.0.1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it; it is left out, and the rest is applied"#]],
    );
    let labels = json!({"service.kubernetes.io/service-proxy-name": "other"});
    check(
        read::<Service>(service(labels, json!({}), "192.0.2.1")),
        expect![[r#"
            Service shop/web: no event, then Some(ServiceRemoved(ServiceId { namespace: "shop", name: "web" }))"#]],
    );
    check(
        read::<Service>(json!({"metadata": {"name": "web"}, "spec": {"ports": []}})),
        expect!["invalid: spec.ports: a Service needs at least one port"],
    );
}

#[test]
fn slices_become_events_and_endpoints_become_mirrored_slices() {
    let slice = |labels| {
        json!({
            "metadata": meta(labels, json!({"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-31T12:00:00Z"})),
            "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.0.0.1"]}],
        })
    };
    let good = read::<EndpointSlice>(slice(json!({"kubernetes.io/service-name": "web"})));
    let trigger_time = good.as_ref().ok().and_then(|(object, _)| object.trigger_time);
    assert_eq!(trigger_time, "2026-01-31T12:00:00Z".parse().ok());
    check(
        good,
        expect![[r#"
            EndpointSlice shop/web: SliceApplied, then Some(SliceRemoved(SliceId { namespace: "shop", name: "web" }))"#]],
    );
    check(
        read::<EndpointSlice>(slice(json!({}))),
        expect![[r#"
            EndpointSlice shop/web: no event, then Some(SliceRemoved(SliceId { namespace: "shop", name: "web" }))"#]],
    );
    let subsets = json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}]}]);
    let endpoints = read::<Endpoints>(json!({"metadata": meta(json!({}), json!({})), "subsets": subsets}));
    assert_eq!(endpoints.as_ref().map(|(object, _)| object.mirrored.len()), Ok(2));
    check(endpoints, expect!["Endpoints shop/web: no event, then None"]);
}

#[test]
fn cluster_scoped_objects_become_events() {
    let status = json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.256"}]});
    check(
        read::<Node>(json!({"metadata": {"name": "node-1"}, "status": status})),
        expect![[r#"
            Node node-1: NodeApplied, then Some(NodeRemoved("node-1"))
            status.addresses[0].address: "10.0.0.256" is not an IP address; it is left out, and the rest is applied"#]],
    );
    check(
        read::<ServiceCIDR>(json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}})),
        expect![[r#"ServiceCIDR kubernetes: ServiceCidrApplied, then Some(ServiceCidrRemoved("kubernetes"))"#]],
    );
}

#[test]
fn objects_of_other_kinds_and_non_mappings_are_rejected() {
    let policy = AnnotationPolicy::default();
    check(
        Object::from_resource(&Pod::default(), &policy),
        expect!["invalid: kind: a Service proxy does not use objects of the kind Pod"],
    );
    check(
        Object::read(Kind::Node, "7", &policy),
        expect!["invalid: this is integer `7`, not a mapping with fields such as `name: value`"],
    );
    assert_eq!(Kind::of("v1", <Service as ListableResource>::LIST_KIND), None);
}

/// kube-ipvs never ends because of an object. A part of an object that is left out has a reason.
#[test]
fn mutated_objects_are_read_or_refused_with_a_reason() {
    let annotations = json!({
        "kube-ipvs.io/scheduler": "sh", "kube-ipvs.io/hash-on": "address", "kube-ipvs.io/node-weights": "a=2,b=0",
        "kube-ipvs.io/max-drain-time": "1m30s", "kube-ipvs.io/forwarding": "gue:6080", "kube-ipvs.io/weight": "3",
    });
    let web = service(json!({"a": "b"}), annotations.clone(), "192.0.2.1");
    let balanced = json!({
        "metadata": meta(json!({}), annotations.clone()),
        "spec": {
            "type": "LoadBalancer", "clusterIPs": ["10.96.0.1", "fd00::1"], "externalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
            "loadBalancerSourceRanges": ["10.0.0.0/8", "2001:db8::/32"], "healthCheckNodePort": 30000,
            "ports": [{"name": "a", "port": 80, "nodePort": 30080, "protocol": "TCP"}, {"name": "b", "port": 53, "protocol": "UDP"}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "VIP"}]}},
    });
    let slice = json!({
        "metadata": meta(json!({"kubernetes.io/service-name": "web"}), annotations), "addressType": "IPv4",
        "ports": [{"name": "a", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": ["10.244.0.1"], "nodeName": "n", "zone": "z", "conditions": {"ready": true, "terminating": false},
            "hints": {"forZones": [{"name": "z"}], "forNodes": [{"name": "n"}]},
        }],
    });
    let endpoints = json!({
        "metadata": meta(json!({}), json!({})),
        "subsets": [{"addresses": [{"ip": "10.244.0.1", "nodeName": "n"}], "ports": [{"name": "a", "port": 8080}]}],
    });
    let node = json!({
        "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}},
        "spec": {"podCIDRs": ["10.244.0.0/24"], "taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    });
    let cidr = json!({"metadata": {"name": "c"}, "spec": {"cidrs": ["10.96.0.0/12", "fd00::/108"]}});
    // One value in each line, so that a mutation can move one of them.
    let seeds =
        [web, balanced, slice, endpoints, node, cidr].map(|object| serde_json::to_string_pretty(&object).unwrap());
    let kinds = [Kind::Service, Kind::EndpointSlice, Kind::Endpoints, Kind::Node, Kind::ServiceCidr];
    fuzz::fuzz("api-objects", seeds, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for kind in kinds {
            match Object::read(kind, &text, &AnnotationPolicy::default()) {
                Ok((_, remarks)) => remarks.into_messages().for_each(|remark| assert!(!remark.message.is_empty())),
                Err(invalid) => assert!(!invalid.message.is_empty()),
            }
        }
    });
}
