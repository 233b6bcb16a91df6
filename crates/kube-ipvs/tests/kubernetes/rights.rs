//! Resources that the API server lacks or denies.

use anyhow::{Result, ensure};
use scenarios::{ApiServer, Fault, Kind, Service};

use crate::follower::{Follower, asked, await_asked};

fn service(name: &str) -> Service {
    Service::new(name).cluster_ip("10.96.0.7").port(80)
}

/// kube-ipvs must not clean up before it knows both.
#[test]
fn first_delivery_waits_for_services_and_endpoint_slices() -> Result<()> {
    let kinds = [(Kind::Service, "/services?"), (Kind::EndpointSlice, "/endpointslices?")];
    for ((kind, refused), (_, known)) in [(kinds[0], kinds[1]), (kinds[1], kinds[0])] {
        let api = ApiServer::start()?;
        api.apply(&service("web"))?;
        api.forbid(&[kind]);
        let follower = Follower::start(&api);
        await_asked(&api, 4, |request| request.contains(refused))?;
        // A watch from a version on proves that its list is done.
        let goes_on = |request: &str| request.contains(known) && !request.contains("sendInitialEvents");
        await_asked(&api, 1, goes_on)?;
        assert_eq!(follower.world().deliveries, 0);
        api.forbid(&[]);
        follower.eventually(|world| world.services.len() == 1)?;
    }
    Ok(())
}

fn is_of_node(request: &str) -> bool {
    request.contains("/nodes?")
}

/// Older API servers have no ServiceCIDRs, and older ClusterRoles do not allow them.
#[test]
fn source_works_without_service_cidrs_and_nodes() -> Result<()> {
    let api = ApiServer::start()?;
    api.without(&[Kind::ServiceCidr]);
    api.forbid(&[Kind::Node]);
    api.apply(&service("web"))?;
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1 && world.complete)?;
    // kube-ipvs retries a denied resource this often before it gives up.
    await_asked(&api, STANDING, is_of_node)?;
    let asked = asked(&api, |request| request.contains("servicecidrs"));
    // The API server rejects the streaming list. The next attempt comes much later.
    ensure!(asked <= 2, "asked {asked} times for what is not there");
    Ok(())
}

/// How many 403 answers in a row mean that RBAC denies a resource.
const STANDING: usize = 8;

/// An API server that has just started has not read its roles, and denies requests that it allows a moment later.
#[test]
fn resource_is_given_up_after_repeated_denials() -> Result<()> {
    let range =
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: a}\nspec: {cidrs: [10.96.0.0/16]}\n";
    let (api, _follower) = loop {
        let api = ApiServer::start()?;
        api.apply(&service("web"))?;
        api.apply(&range)?;
        api.forbid(&[Kind::Node]);
        // The API server denies the first requests of any kind, too few to give up one.
        api.fault(&[Fault::Status(403); STANDING - 1]);
        let follower = Follower::start(&api);
        follower.eventually(|world| world.services.len() == 1 && world.ranges.contains_key("a"))?;
        // Retries the setup if no denied request was for ServiceCIDRs, which is random.
        if api.requests().iter().take(STANDING - 1).any(|request| request.contains("servicecidrs")) {
            break (api, follower);
        }
    };
    await_asked(&api, STANDING, is_of_node)?;
    // kube-ipvs stops asking for a denied optional resource, and keeps asking for a required one.
    let is_vital = |request: &str| request.contains("/endpointslices?");
    api.forbid(&[Kind::Node, Kind::EndpointSlice]);
    api.cut();
    await_asked(&api, asked(&api, is_vital) + 15, is_vital)?;
    let asked = asked(&api, is_of_node);
    ensure!(asked <= STANDING + 1, "asked {asked} times for what is not allowed");
    Ok(())
}

/// kube-ipvs lists the other Nodes when a Service needs them, and delivers them before that Service.
#[test]
fn nodes_are_listed_before_a_service_with_an_external_ip_is_delivered() -> Result<()> {
    let api = ApiServer::start()?;
    for number in 1..=2 {
        api.apply(&format!(
            "kind: Node\nmetadata: {{ name: node-{number} }}\nstatus: {{ addresses: [{{ type: InternalIP, address: \
             192.168.0.{number} }}] }}\n"
        ))?;
    }
    api.apply(&service("web"))?;
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1)?;
    let lists = || asked(&api, |request| is_of_node(request) && !request.contains("node-1"));
    assert_eq!(lists(), 0);
    api.apply(&service("outer").line("externalIPs: [\"192.168.0.2\"]"))?;
    follower.eventually(|world| world.services.contains_key("default/outer"))?;
    let log = follower.world().log.clone();
    let place = |what: &str| log.iter().position(|line| line == what);
    ensure!(place("+node node-2").is_some() && place("+node node-2") < place("+default/outer"), "{log:#?}");
    api.apply(&service("outer-2").line("externalIPs: [\"192.168.0.3\"]"))?;
    follower.eventually(|world| world.services.contains_key("default/outer-2"))?;
    assert_eq!(lists(), 1);
    Ok(())
}
