//! What the API server does not have, or not for us.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use scenarios::{ApiServer, Kind, Service};

use crate::follower::Follower;

fn service(name: &str) -> Service {
    Service::new(name).cluster_ip("10.96.0.7").port(80)
}

/// Nothing may be cleared away before both are known.
#[test]
fn services_without_endpoints_are_not_enough() -> Result<()> {
    for kind in [Kind::Service, Kind::EndpointSlice] {
        let api = ApiServer::start()?;
        api.apply(&service("web"))?;
        api.forbid(&[kind]);
        let follower = Follower::start(&api);
        thread::sleep(Duration::from_millis(500));
        assert_eq!(follower.world().deliveries, 0);
        api.forbid(&[]);
        follower.eventually(|world| world.services.len() == 1)?;
    }
    Ok(())
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
    thread::sleep(Duration::from_secs(1));
    let asked = api.requests().iter().filter(|request| request.contains("servicecidrs")).count();
    // A streaming list, which is refused. It is not asked for again soon.
    ensure!(asked <= 2, "asked {asked} times for what is not there");
    Ok(())
}

/// An API server that has just started refuses what it allows a moment later: it has not read its roles yet.
#[test]
fn a_refusal_counts_when_it_stands() -> Result<()> {
    let api = ApiServer::start()?;
    let range = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: a}\nspec: {cidrs: [10.96.0.0/16]}\n";
    api.apply(&service("web"))?;
    api.apply(&range)?;
    api.forbid(&[Kind::Node, Kind::ServiceCidr]);
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1)?;
    api.forbid(&[Kind::Node]);
    follower.eventually(|world| world.ranges.contains_key("a"))?;
    // What is never allowed is asked for less and less.
    thread::sleep(Duration::from_secs(4));
    let asked = api.requests().iter().filter(|request| request.contains("/nodes?")).count();
    ensure!(asked <= 9, "asked {asked} times for what is not allowed");
    Ok(())
}

/// The addresses of other Nodes are asked for when somebody needs them, and known before he gets his own.
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
    let lists = || {
        let requests = api.requests();
        requests.iter().filter(|request| request.contains("nodes?") && !request.contains("node-1")).count()
    };
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
