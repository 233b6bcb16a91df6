//! The scenarios on a cluster with real pods, as steps.

use super::step::{Expected, Step, apply, kubectl, visitor};

#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) steps: Vec<Step>,
}

pub(super) fn pods() -> Vec<Step> {
    vec![
        // A new namespace has no service account yet. Without it the API server admits no pod.
        kubectl("get serviceaccount default -o jsonpath={.metadata.name}", Expected::Kept("account")),
        apply(include_str!("web.yaml")),
        kubectl("rollout status deployment web --timeout=30m", Expected::Success),
        kubectl("wait pod visitor --for=condition=Ready --timeout=30m", Expected::Success),
        names_of_pods(),
    ]
}

fn names_of_pods() -> Step {
    kubectl(
        "get pods -l app=web --field-selector=status.phase=Running -o jsonpath={.items[*].metadata.name}",
        Expected::Kept("pods"),
    )
}

fn cluster_ip(service: &str) -> Step {
    kubectl(&format!("get service {service} -o jsonpath={{.spec.clusterIP}}"), Expected::Kept("ip"))
}

/// A Service of the pods `web`; `more` extends its spec.
fn service(name: &str, more: &str) -> Step {
    apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {{app: web}}\n  ports:\n  - {{port: 80, \
         targetPort: 8080}}\n{more}"
    ))
}

/// Sends `times` requests, each answered by a line with a name. No request can fail.
fn ask(times: u32, url: &str, expected: Expected) -> Step {
    visitor(
        &format!("for i in $(seq {times}); do curl -sS --max-time 5 {url}/hostname || exit 1; echo; done"),
        expected,
    )
}

/// curl's exit status is 7 if the connection is rejected at once, and another if curl times out.
fn refused(url: &str) -> Step {
    visitor(&format!("curl -sS --max-time 3 {url} 2>/dev/null; echo $?"), Expected::Exactly("7"))
}

/// Checks of a node's kernel, such as `ipvsadm -Ln`, belong to the bench.
pub(super) fn all() -> Vec<Scenario> {
    let scenario = |name, steps| Scenario { name, steps };
    vec![
        scenario("hostnames", hostnames()),
        scenario("both-families", both_families()),
        scenario("node-port", node_port()),
        scenario("load-balancer", load_balancer()),
        scenario("nothing-to-serve", nothing_to_serve()),
        scenario("no-selector", no_selector()),
        scenario("no-endpoints", no_endpoints()),
        scenario("affinity", affinity()),
        scenario("udp", udp()),
    ]
}

/// Requests spread over the pods, also by the Service's name, which the cluster's DNS resolves. Then a pod is replaced.
fn hostnames() -> Vec<Step> {
    vec![
        service("hostnames", ""),
        cluster_ip("hostnames"),
        ask(12, "http://{ip}", Expected::All("pods")),
        ask(6, "http://hostnames", Expected::Some("pods")),
        kubectl("get pods -l app=web -o jsonpath={.items[0].metadata.name}", Expected::Kept("first")),
        kubectl("delete pod {first} --wait", Expected::Success),
        kubectl("rollout status deployment web --timeout=30m", Expected::Success),
        names_of_pods(),
        ask(12, "http://{ip}", Expected::All("pods")),
    ]
}

/// Requests to each ClusterIP: a cluster of one family has one.
fn both_families() -> Vec<Step> {
    let each = "for ip in {ips}; do case $ip in *:*) ip=\"[$ip]\";; esac; for i in $(seq 6); do \
                curl -sS --max-time 5 http://$ip/hostname || exit 1; echo; done; done";
    vec![
        service("web-both", "  ipFamilyPolicy: PreferDualStack\n"),
        kubectl("get service web-both -o jsonpath={.spec.clusterIPs[*]}", Expected::Kept("ips")),
        visitor(each, Expected::All("pods")),
    ]
}

fn node_port() -> Vec<Step> {
    let nodes = "get nodes -o jsonpath={.items[*].status.addresses[?(@.type==\"InternalIP\")].address}";
    let each = "for node in {nodes}; do case $node in *:*) continue;; esac; \
                curl -sS --max-time 5 http://$node:{port}/hostname || exit 1; echo; done";
    vec![
        service("web-nodeport", "  type: NodePort\n  ipFamilies: [IPv4]\n"),
        kubectl("get service web-nodeport -o jsonpath={.spec.ports[0].nodePort}", Expected::Kept("port")),
        kubectl(nodes, Expected::Kept("nodes")),
        visitor(each, Expected::Some("pods")),
    ]
}

/// The class keeps the cluster's load-balancer controllers away from the Service.
fn load_balancer() -> Vec<Step> {
    let status = "{\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"203.0.113.10\"}]}}}";
    vec![
        service("web-lb", "  type: LoadBalancer\n  loadBalancerClass: kube-ipvs.io/e2e\n  ipFamilies: [IPv4]\n"),
        kubectl(&format!("patch service web-lb --subresource=status --type=merge --patch={status}"), Expected::Success),
        ask(6, "http://203.0.113.10", Expected::Some("pods")),
    ]
}

/// ExternalName and headless Services cause no events.
fn nothing_to_serve() -> Vec<Step> {
    let external = "apiVersion: v1\nkind: Service\nmetadata: {name: baidu}\nspec: {type: ExternalName, externalName: www.baidu.com}\n";
    vec![
        apply(external),
        service("web-headless", "  clusterIP: None\n"),
        kubectl(
            "get events.events.k8s.io -o jsonpath={.items[?(@.reportingController==\"kube-ipvs\")].note}",
            Expected::Exactly(""),
        ),
    ]
}

/// Without endpoints connections are rejected; then kube-ipvs serves a hand-written EndpointSlice.
fn no_selector() -> Vec<Step> {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: database}\nspec:\n  ports: [{port: 3306}]\n";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: database-1\n  labels: \
                 {kubernetes.io/service-name: database}\naddressType: IPv4\nports: [{port: 8080}]\nendpoints:\n- addresses: \
                 [\"{address}\"]\n";
    vec![
        apply(service),
        cluster_ip("database"),
        refused("http://{ip}:3306"),
        kubectl("get pod visitor -o jsonpath={.status.podIP}", Expected::Kept("address")),
        apply(slice),
        ask(3, "http://{ip}:3306", Expected::Exactly("visitor\nvisitor\nvisitor")),
    ]
}

/// The selector matches no pod until a pod gets the label.
fn no_endpoints() -> Vec<Step> {
    vec![
        apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: no-match}\nspec:\n  selector: {wanted: \"yes\"}\n  ports: [{port: 80, \
             targetPort: 8080}]\n",
        ),
        cluster_ip("no-match"),
        refused("http://{ip}"),
        kubectl("label pod visitor wanted=yes", Expected::Success),
        ask(1, "http://{ip}", Expected::Exactly("visitor")),
    ]
}

fn affinity() -> Vec<Step> {
    vec![
        service("web-sticky", "  sessionAffinity: ClientIP\n"),
        cluster_ip("web-sticky"),
        ask(9, "http://{ip}", Expected::One("pods")),
    ]
}

/// The visitor's server sends a request over UDP and reports who answered: `{"responses":["web-1"]}`.
fn udp() -> Vec<Step> {
    let dial = "curl -sS --max-time 20 'http://127.0.0.1:8080/dial?request=hostname&protocol=udp&host={ip}&port=80&tries=1' \
                | cut -d '\"' -f 4";
    vec![
        apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: web-udp}\nspec:\n  selector: {app: web}\n  ipFamilies: [IPv4]\n  ports: \
             [{protocol: UDP, port: 80, targetPort: 8080}]\n",
        ),
        cluster_ip("web-udp"),
        visitor(dial, Expected::Some("pods")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::step::Known;

    /// Fills in all steps of a scenario with a made-up value for each value that a step reads.
    fn filled(steps: &[Step], known: &mut Known) -> Vec<Step> {
        let fill = |step: &Step| {
            let step = step.with(known).unwrap();
            if let Expected::Kept(name) = step.expected {
                known.insert(name, format!("some-{name}"));
            }
            step
        };
        steps.iter().map(fill).collect()
    }

    #[test]
    fn scenario_steps_have_known_values_and_valid_manifests() {
        let mut known = Known::new();
        filled(&pods(), &mut known);
        for Scenario { name, steps } in all() {
            let mut known = known.clone();
            for step in filled(&steps, &mut known) {
                let Some(input) = &step.input else { continue };
                let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(input).unwrap();
                for object in objects {
                    assert!(object["metadata"]["name"].is_string(), "{name}: {input}");
                    assert!(object["metadata"]["namespace"].is_null(), "{name} would leave its namespace: {input}");
                }
            }
            assert!(
                steps.iter().any(|step| !matches!(step.expected, Expected::Success | Expected::Kept(_))),
                "{name} checks nothing"
            );
        }
    }

    #[test]
    fn pods_are_created_after_their_service_account_exists() {
        // Only a step with an expected output is repeated until it is right.
        let before: Vec<Step> = pods().into_iter().take_while(|step| step.input.is_none()).collect();
        let [account] = before.as_slice() else { panic!("{before:?}") };
        assert_eq!(account.words[..3], ["get", "serviceaccount", "default"]);
        assert_ne!(account.expected, Expected::Success);
    }

    #[test]
    fn scenario_pods_have_the_labels_that_services_select() {
        let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(include_str!("web.yaml")).unwrap();
        assert_eq!(objects[0]["spec"]["template"]["metadata"]["labels"]["app"], "web");
        assert_eq!(objects[1]["metadata"]["name"], "visitor");
        let Some(made) = &service("any", "  type: NodePort\n").input else { panic!("it has a manifest") };
        let made: serde_json::Value = serde_saphyr::from_str(made).unwrap();
        assert_eq!(made["spec"]["selector"]["app"], "web");
        assert_eq!(made["spec"]["type"], "NodePort");
    }
}
