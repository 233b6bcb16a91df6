//! kube-ipvs skips an object that it cannot follow, and follows the others.

use std::collections::BTreeSet;

use anyhow::Result;
use scenarios::{ApiServer, Kind, Service, StreamingLists};

use crate::follower::Follower;

fn good(name: &str) -> Service {
    Service::new(name).cluster_ip("10.96.0.7").port(80)
}

fn bad(name: &str) -> String {
    good(name).to_string().replace("port: 80", "port: 70000")
}

#[test]
fn unreadable_object_is_reported_and_the_others_are_followed() -> Result<()> {
    for streaming in [StreamingLists::Served, StreamingLists::Refused] {
        let api = ApiServer::start()?;
        api.streaming(streaming);
        api.apply(&bad("broken"))?;
        api.apply(&"kind: EndpointSlice\nmetadata: { name: odd, labels: [not, a, map] }\nendpoints: 7\n")?;
        api.apply(&good("web"))?;
        let follower = Follower::start(&api);
        follower.eventually(|world| world.services.contains_key("default/web"))?;
        let world = follower.world().clone();
        assert_eq!(world.services.len(), 1);
        let said = |what: &str| world.problems.iter().filter(|problem| problem.contains(what)).count();
        let expected =
            format!("{}/: Service default/broken: spec.ports[0].port: 70000 is not a port: 1 to 65535", api.url());
        assert_eq!(said(&expected), 1, "{:#?}", world.problems);
        assert_eq!(said("EndpointSlice default/odd: "), 1, "{:#?}", world.problems);
        // The purpose of the broken slice is unknown, so kube-ipvs must not clean up.
        assert!(!world.complete);
        api.delete(Kind::EndpointSlice, "odd")?;
        api.apply(&good("broken"))?;
        follower.eventually(|world| world.complete && world.services.len() == 2)?;
    }
    Ok(())
}

#[test]
fn last_good_version_of_a_broken_object_stays_in_force() -> Result<()> {
    let mut api = ApiServer::start()?;
    api.apply(&good("web"))?;
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1)?;
    api.apply(&bad("web"))?;
    follower.eventually(|world| world.problems.len() == 1)?;
    // kube-ipvs does not report the object again after another list, and keeps it.
    api.away();
    api.apply(&good("other"))?;
    api.compact();
    api.back()?;
    follower.eventually(|world| world.services.contains_key("default/other"))?;
    let world = follower.world().clone();
    assert_eq!((world.services.len(), world.problems.len(), world.complete), (2, 1, true));
    api.delete(Kind::Service, "web")?;
    follower.eventually(|world| world.services.keys().eq(["default/other"]))
}

/// The API server accepts values that no node can serve. kube-ipvs omits and reports them, and serves the rest.
#[test]
fn invalid_part_of_an_object_is_omitted_and_the_rest_followed() -> Result<()> {
    let api = ApiServer::start()?;
    let many: Vec<String> = (1..=101).map(|number| format!("\"198.51.101.{number}\"")).collect();
    let addresses = r#"externalIPs: ["198.051.100.001", "224.0.1.1", "198.51.100.2"]"#;
    api.apply(&good("web").line(addresses))?;
    api.apply(&good("many").line(&format!("externalIPs: [{}]", many.join(", "))))?;
    let balanced = good("balanced").line("type: LoadBalancer").to_string();
    api.apply(&format!(
        "{balanced}status: {{ loadBalancer: {{ ingress: [{{ ip: 127.0.0.1 }}, {{ ip: 198.51.100.3 }}] }} }}\n"
    ))?;
    api.apply(
        &"kind: EndpointSlice\nmetadata: { name: web-1, labels: { kubernetes.io/service-name: web } }\n\
          addressType: IPv4\nports: [{ port: 80 }]\n\
          endpoints: [{ addresses: [255.255.255.255] }, { addresses: [10.244.1.2] }]\n",
    )?;
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 3 && world.slices.len() == 1)?;
    let world = follower.world().clone();
    assert_eq!(world.services["default/web"], ["10.96.0.7", "198.51.100.1", "198.51.100.2"]);
    assert_eq!(world.services["default/balanced"], ["10.96.0.7", "198.51.100.3"]);
    assert_eq!(world.services["default/many"].len(), 1 + 100);
    assert_eq!(world.slices["default/web-1"], "default/web: 10.244.1.2");
    let said: BTreeSet<&str> =
        world.problems.iter().filter_map(|problem| problem.split_once("/: ")).map(|(_, said)| said).collect();
    let left_out = "neither a Service nor an endpoint can have it; it is left out, and the rest is applied";
    let expected = [
        format!(
            "EndpointSlice default/web-1: endpoints[0].addresses[0]: 255.255.255.255 is the broadcast address: {left_out}"
        ),
        format!(
            "Service default/balanced: status.loadBalancer.ingress[0].ip: 127.0.0.1 is a loopback address (127.0.0.0/8, \
             ::1): {left_out}"
        ),
        "Service default/many: spec.externalIPs: too many entries: at most 100 are allowed; it is left out, and the rest is \
         applied"
            .to_owned(),
        format!(
            "Service default/web: spec.externalIPs[1]: 224.0.1.1 is a multicast address (224.0.0.0/4, ff00::/8): {left_out}"
        ),
    ];
    assert_eq!(said, expected.iter().map(String::as_str).collect());
    // The state is complete, so kube-ipvs can remove the entries of kube-proxy.
    assert!(world.complete);
    Ok(())
}

fn slice(name: &str, service: &str, ports: &str, address: &str) -> String {
    format!(
        "kind: EndpointSlice\nmetadata: {{ name: {name}, labels: {{ kubernetes.io/service-name: {service} }} }}\n\
         addressType: IPv4\nports: [{ports}]\nendpoints: [{{ addresses: [{address}] }}]\n"
    )
}

/// The API server does not validate the port numbers of a slice. kube-ipvs follows the other ports.
#[test]
fn slice_with_an_invalid_port_is_followed_without_that_port() -> Result<()> {
    for number in ["0", "70000", "-1"] {
        let ports = format!("{{ name: http, port: 8080 }}, {{ name: bad, port: {number} }}");
        let api = ApiServer::start()?;
        api.apply(&good("web"))?;
        api.apply(&slice("web-1", "web", &ports, "10.244.1.2"))?;
        let follower = Follower::start(&api);
        let is_followed = |address: &str| {
            let expected = format!("default/web: {address}");
            follower.eventually(|world| world.slices.get("default/web-1") == Some(&expected))
        };
        is_followed("10.244.1.2")?;
        api.apply(&slice("web-1", "web", &ports, "10.244.1.3"))?;
        is_followed("10.244.1.3")?;
        let world = follower.world().clone();
        let said =
            format!("EndpointSlice default/web-1: ports[1].port: {number} is not a port: 1 to 65535; it is left out");
        assert_eq!(world.problems.iter().filter(|problem| problem.contains(&said)).count(), 1, "{:#?}", world.problems);
        assert!(world.complete);
    }
    Ok(())
}

#[test]
fn slices_with_foreign_labels_do_not_keep_the_state_incomplete() -> Result<()> {
    let api = ApiServer::start()?;
    api.apply(&good("web"))?;
    for (number, name) in ["\"\"", "My_Service", "a.b"].iter().enumerate() {
        api.apply(&slice(&format!("stray-{number}"), name, "{ port: 80 }", "10.244.1.9"))?;
    }
    let hints = slice("web-1", "web", "{ port: 80 }", "10.244.1.2")
        .replace("[10.244.1.2]", "[10.244.1.2], hints: { forZones: [{ name: \"\" }] }");
    api.apply(&hints)?;
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1 && world.slices.len() == 1)?;
    let world = follower.world().clone();
    assert_eq!(world.slices["default/web-1"], "default/web: 10.244.1.2");
    assert!(world.complete, "{:#?}", world.problems);
    Ok(())
}

#[test]
fn service_with_many_ports_is_followed() -> Result<()> {
    let api = ApiServer::start()?;
    let many = (10_000..11_600).fold(Service::new("many").cluster_ip("10.96.0.7"), |service, port| {
        service.port_line(&format!("name: p{port}, port: {port}, protocol: UDP"))
    });
    api.apply(&many)?;
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1 && world.complete)?;
    assert!(follower.world().problems.is_empty(), "{:#?}", follower.world().problems);
    Ok(())
}
