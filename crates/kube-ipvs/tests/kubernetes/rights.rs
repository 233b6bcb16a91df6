//! What the API server does not have, or not for us.

use anyhow::{Result, ensure};
use scenarios::{ApiServer, Fault, Kind, Service};

use crate::follower::{Follower, asked, await_asked};

fn service(name: &str) -> Service {
    Service::new(name).cluster_ip("10.96.0.7").port(80)
}

/// Nothing may be cleared away before both are known.
#[test]
fn services_without_endpoints_are_not_enough() -> Result<()> {
    let kinds = [(Kind::Service, "/services?"), (Kind::EndpointSlice, "/endpointslices?")];
    for ((kind, refused), (_, known)) in [(kinds[0], kinds[1]), (kinds[1], kinds[0])] {
        let api = ApiServer::start()?;
        api.apply(&service("web"))?;
        api.forbid(&[kind]);
        let follower = Follower::start(&api);
        await_asked(&api, 4, |request| request.contains(refused))?;
        // What is watched from a version on was listed before.
        let goes_on = |request: &str| request.contains(known) && !request.contains("sendInitialEvents");
        await_asked(&api, 1, goes_on)?;
        assert_eq!(follower.world().deliveries, 0);
        api.forbid(&[]);
        follower.eventually(|world| world.services.len() == 1)?;
    }
    Ok(())
}

/// Of the own Node.
fn is_of_node(request: &str) -> bool {
    request.contains("/nodes?")
}

/// An older server has no ServiceCIDRs, and an older ClusterRole does not allow them.
#[test]
fn the_rest_can_be_done_without() -> Result<()> {
    let api = ApiServer::start()?;
    api.without(&[Kind::ServiceCidr]);
    api.forbid(&[Kind::Node]);
    api.apply(&service("web"))?;
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1 && world.complete)?;
    // The time in which what may be allowed a moment later is asked for as often as that takes.
    await_asked(&api, STANDING, is_of_node)?;
    let asked = asked(&api, |request| request.contains("servicecidrs"));
    // A streaming list, which is refused. It is not asked for again soon.
    ensure!(asked <= 2, "asked {asked} times for what is not there");
    Ok(())
}

/// So many refusals in a row mean that a right is not given.
const STANDING: usize = 8;

/// An API server that has just started refuses what it allows a moment later: it has not read its roles yet.
#[test]
fn a_refusal_counts_when_it_stands() -> Result<()> {
    let range =
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: a}\nspec: {cidrs: [10.96.0.0/16]}\n";
    let (api, _follower) = loop {
        let api = ApiServer::start()?;
        api.apply(&service("web"))?;
        api.apply(&range)?;
        api.forbid(&[Kind::Node]);
        // The first requests are refused, whatever they ask for: too few for any kind to be given up.
        api.fault(&[Fault::Status(403); STANDING - 1]);
        let follower = Follower::start(&api);
        follower.eventually(|world| world.services.len() == 1 && world.ranges.contains_key("a"))?;
        // Where none of them was for ServiceCIDRs, which is chance, nothing was shown: once more.
        if api.requests().iter().take(STANDING - 1).any(|request| request.contains("servicecidrs")) {
            break (api, follower);
        }
    };
    await_asked(&api, STANDING, is_of_node)?;
    // What is never allowed is asked for less and less: not any more while what has to be is asked for often.
    let is_vital = |request: &str| request.contains("/endpointslices?");
    api.forbid(&[Kind::Node, Kind::EndpointSlice]);
    api.cut();
    await_asked(&api, asked(&api, is_vital) + 15, is_vital)?;
    let asked = asked(&api, is_of_node);
    ensure!(asked <= STANDING + 1, "asked {asked} times for what is not allowed");
    Ok(())
}

/// kube-ipvs asks for the addresses of other Nodes when a Service needs them. It knows them before it delivers that
/// Service.
#[test]
fn nodes_are_listed_for_external_addresses() -> Result<()> {
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
    // The next one finds them known.
    api.apply(&service("outer-2").line("externalIPs: [\"192.168.0.3\"]"))?;
    follower.eventually(|world| world.services.contains_key("default/outer-2"))?;
    assert_eq!(lists(), 1);
    Ok(())
}
