//! Objects that cannot be followed cost nothing but themselves.

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
fn an_object_that_cannot_be_read_is_told_and_costs_no_other() -> Result<()> {
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
        let expected = format!(
            "{}/: Service default/broken: spec.ports[0].port: 70000 is not a port: 1 to 65535",
            api.url()
        );
        assert_eq!(said(&expected), 1, "{:#?}", world.problems);
        assert_eq!(said("EndpointSlice default/odd: "), 1, "{:#?}", world.problems);
        // What it was for is not known, so nothing may be cleared away.
        assert!(!world.complete);
        api.delete(Kind::EndpointSlice, "odd")?;
        api.apply(&good("broken"))?;
        follower.eventually(|world| world.complete && world.services.len() == 2)?;
    }
    Ok(())
}

#[test]
fn what_was_good_before_stays_in_force() -> Result<()> {
    let mut api = ApiServer::start()?;
    api.apply(&good("web"))?;
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1)?;
    api.apply(&bad("web"))?;
    follower.eventually(|world| world.problems.len() == 1)?;
    // Listed again it is no news, and it has not vanished.
    api.away();
    api.apply(&good("other"))?;
    api.compact();
    api.back()?;
    follower.eventually(|world| world.services.contains_key("default/other"))?;
    let world = follower.world().clone();
    assert_eq!((world.services.len(), world.problems.len(), world.complete), (2, 1, true));
    // When it goes, it is gone.
    api.delete(Kind::Service, "web")?;
    follower.eventually(|world| world.services.keys().eq(["default/other"]))
}
