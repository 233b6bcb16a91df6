mod annotations;
mod broken;
mod broken_whole;
mod examples;
mod exposure;
mod folder;
mod good;
mod order;
mod scan;
mod topology;

use std::{fmt::Write as _, time::Duration};

use proxier::{
    Completeness, Config, Engine,
    fake::FakeKernel,
    model::{Affinity, Event, NodeAddress, Service, ServiceOptions, TrafficPolicy},
};

use super::{Changes, Content, Folder};

/// A valid Service with a slice, beside which the tests put other objects.
const GOOD: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.1.1]}]
";

fn load(folder: &mut Folder, files: &[(&str, &str)]) -> Changes {
    folder.load(files.iter().map(|(name, text)| (*name, Content::Bytes(text.as_bytes()))))
}

fn read(content: &[u8]) -> Changes {
    Folder::default().load([("f.yaml", Content::Bytes(content))])
}

fn render(changes: &Changes) -> String {
    let mut text: String = changes.events.iter().map(|event| render_event(event) + "\n").collect();
    text.extend(changes.problems.iter().map(|problem| format!("problem: {problem}\n")));
    text.extend(changes.notes.iter().map(|note| format!("note: {note}\n")));
    text
}

fn render_event(event: &Event) -> String {
    match event {
        Event::ServiceApplied(service) => {
            let mut text = format!("Service {} {:?}", service.id, service.cluster_ips);
            for port in &service.ports {
                let node_port = port.node_port.map(|port| format!(" nodePort {port}")).unwrap_or_default();
                let _ = write!(text, " [{} {} {:?}{node_port}]", port.protocol, port.port, port.name);
            }
            if let Affinity::ClientIp(seconds) = service.affinity {
                let _ = write!(text, " affinity {seconds}s");
            }
            text += &render_outside(service);
            if let Some(options) = &service.options {
                text += &render_options(options);
            }
            if service.created != 0 {
                let _ = write!(text, " created {}", service.created);
            }
            text
        }
        Event::SliceApplied(slice) => {
            let mut text = format!("Slice {} of {} {}", slice.id, slice.service, slice.family);
            for port in &slice.ports {
                let _ = write!(text, " [{} {} {:?}]", port.protocol, port.port, port.name);
            }
            for endpoint in &slice.endpoints {
                let _ = write!(text, "\n  {}", endpoint.address);
                let conditions = endpoint.conditions;
                let words = [
                    (conditions.ready, "ready"),
                    (conditions.serving, "serving"),
                    (conditions.terminating, "terminating"),
                ];
                for (_, word) in words.iter().filter(|(is, _)| *is) {
                    let _ = write!(text, " {word}");
                }
                if endpoint.weight != 1 {
                    let _ = write!(text, " weight {}", endpoint.weight);
                }
                if let Some(node) = &endpoint.node {
                    let _ = write!(text, " on {node}");
                }
                for (list, word) in [(endpoint.hints.zones(), "zones"), (endpoint.hints.nodes(), "nodes")] {
                    if !list.is_empty() {
                        let _ = write!(text, " for {word} {list:?}");
                    }
                }
            }
            text
        }
        Event::NodeApplied(node) => {
            let mut text = format!("Node {} {:?}", node.name, node.internal_ips);
            if node.addresses != node.internal_ips {
                let _ = write!(text, " addresses {:?}", node.addresses);
            }
            if let Some(zone) = &node.zone {
                let _ = write!(text, " zone {zone}");
            }
            if !node.pod_cidrs.is_empty() {
                let _ = write!(text, " pods {:?}", node.pod_cidrs);
            }
            if node.leaving {
                text += " leaving";
            }
            text
        }
        Event::ServiceRemoved(id) => format!("Service {id} is gone"),
        Event::SliceRemoved(id) => format!("Slice {id} is gone"),
        Event::ServiceCidrApplied(cidr) => format!("ServiceCIDR {} {:?}", cidr.name, cidr.ranges),
        Event::ServiceCidrRemoved(name) => format!("ServiceCIDR {name} is gone"),
        Event::NodeRemoved(name) => format!("Node {name} is gone"),
        Event::NodeAddresses(_) => "NodeAddresses".into(),
        Event::ApiServerAddresses(_) => "ApiServerAddresses".into(),
        other => panic!("{other:?}"),
    }
}

fn render_options(options: &ServiceOptions) -> String {
    let default = format!("{:?}", ServiceOptions::DEFAULT);
    let default: Vec<&str> = default.split_inclusive(", ").collect();
    let all = format!("{options:?}");
    let chosen: String = all.split_inclusive(", ").filter(|field| !default.contains(field)).collect();
    format!(" chooses {}", chosen.trim_start_matches("ServiceOptions { ").trim_end_matches([' ', '}', ',']))
}

fn render_outside(service: &Service) -> String {
    let mut text = String::new();
    for (ips, word) in [(&service.external_ips, "external"), (&service.load_balancer_ips, "balancer")] {
        if !ips.is_empty() {
            let _ = write!(text, " {word} {ips:?}");
        }
    }
    if !service.source_ranges.is_empty() {
        let _ = write!(text, " from {:?}", service.source_ranges);
    }
    if let Some(port) = service.health_check_port {
        let _ = write!(text, " health checks {port}");
    }
    let policies = [(service.internal_policy, "internal"), (service.external_policy, "external")];
    for (_, word) in policies.iter().filter(|(policy, _)| *policy == TrafficPolicy::Local) {
        let _ = write!(text, " {word} policy Local");
    }
    text
}

/// A rich Service in each file.
const SEEDS: [&str; 4] = [
    GOOD,
    "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"apiVersion\": \"v1\", \"kind\": \"Node\", \"metadata\": \
     {\"name\": \"node-1\"}, \"spec\": {\"podCIDRs\": [\"10.244.1.0/24\"]}}]}\n",
    "apiVersion: v1
kind: Service
metadata:
  name: lb
  annotations: {kube-ipvs.io/scheduler: mh, kube-ipvs.io/hash-on: address-and-port}
spec:
  type: LoadBalancer
  clusterIPs: [10.96.0.7, 'fd00::7']
  externalIPs: [192.0.2.7]
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  sessionAffinity: ClientIP
  loadBalancerSourceRanges:
  - 198.51.100.0/24
  - 198.51.100.7/32
  healthCheckNodePort: 30007
  ports:
  - {name: http, port: 80, nodePort: 30080}
  - {name: dns, port: 53, protocol: UDP, nodePort: 30053}
status: {loadBalancer: {ingress: [{ip: 203.0.113.7}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: lb-1, labels: {kubernetes.io/service-name: lb}}
addressType: IPv4
ports:
- {name: http, port: 8080}
- {name: dns, port: 5353, protocol: UDP}
endpoints:
- {addresses: [10.244.1.1], nodeName: node-1}
- {addresses: [10.244.2.1], nodeName: node-2, conditions: {ready: false, serving: true, terminating: true}}
",
    "apiVersion: v1
kind: Endpoints
metadata: {name: web}
subsets: [{addresses: [{ip: 10.244.1.1}], ports: [{port: 8080}]}]
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: a}
spec: {cidrs: [10.96.0.0/12]}
",
];

/// Whatever the objects are, the engine reaches a state after which it has nothing to change.
#[test]
fn mutated_manifests_lead_to_a_state_without_further_changes() {
    let addresses = [NodeAddress { address: "192.0.2.1".parse().unwrap(), global: true }];
    let mut config = Config::new("node-1");
    config.localhost_node_ports = true;
    fuzz::fuzz("manifests", SEEDS, |bytes| {
        let (mut folder, mut kernel) = (Folder::default(), FakeKernel::default());
        let mut engine = Engine::new(config.clone(), addresses.into());
        engine.set_complete(Completeness::Complete);
        // The second file changes objects of the first one.
        for (second, content) in [SEEDS[2].as_bytes(), bytes].into_iter().enumerate() {
            let changes = folder.load([("f.yaml", Content::Bytes(content))]);
            changes.events.into_iter().for_each(|event| engine.apply(event));
            let now = Duration::from_secs(second as u64);
            let report = engine.sync(&mut kernel, now);
            assert!(report.failures.is_empty(), "{:?}", report.failures);
            let (plan, _) = engine.plan(kernel.state(), now);
            assert!(plan.is_empty(), "after\n{}\nfollows\n{plan}", report.plan);
        }
    });
}
