//! The first state and its changes, on API servers of all ages.

use anyhow::{Result, ensure};
use scenarios::{ApiServer, Kind, Service, Slice, StreamingLists};

use crate::follower::{Follower, LIMITS, asked, fast, limits};
use kube_ipvs::config::ClientConnection;

fn follow(api: &ApiServer, streaming: StreamingLists) -> Follower {
    Follower::start_with(ClientConnection { master: api.url(), ..fast() }, limits(streaming))
}

const ALL_AGES: [StreamingLists; 4] =
    [StreamingLists::Served, StreamingLists::Refused, StreamingLists::Unknown, StreamingLists::Failing];

fn service(name: &str, address: &str) -> Service {
    Service::new(name).cluster_ip(address).port(80)
}

fn slice(service: &str, address: &str) -> Slice {
    Slice::of(service).port(8080).ready(address)
}

#[test]
fn first_delivery_holds_the_whole_state() -> Result<()> {
    for streaming in ALL_AGES {
        let api = ApiServer::start()?;
        api.streaming(streaming);
        api.apply(&service("web", "10.96.0.7"))?;
        api.apply(&slice("web", "10.244.1.2"))?;
        api.apply(&"kind: Node\nmetadata: { name: node-1 }\n---\nkind: Node\nmetadata: { name: node-2 }\n")?;
        api.apply(&"kind: ServiceCIDR\nmetadata: { name: kubernetes }\nspec: { cidrs: [10.96.0.0/12] }\n")?;
        let follower = follow(&api, streaming);
        follower.eventually(|world| world.deliveries > 0)?;
        let world = follower.world().clone();
        let what = (&world.services["default/web"], world.slices["default/web-1"].as_str());
        assert_eq!(what, (&vec!["10.96.0.7".to_owned()], "default/web: 10.244.1.2"), "{streaming:?}");
        assert_eq!(world.ranges["kubernetes"], ["10.96.0.0/12"]);
        // Other Nodes do not matter while no Service has an external or load-balancer IP.
        assert_eq!(world.nodes.into_iter().collect::<Vec<_>>(), ["node-1"]);
        assert!(world.complete);
    }
    Ok(())
}

#[test]
fn requests_select_only_objects_that_kube_ipvs_serves() -> Result<()> {
    let api = ApiServer::start()?;
    let foreign = "metadata: { name: foreign, labels: { service.kubernetes.io/service-proxy-name: other } }";
    api.apply(&format!("kind: Service\n{foreign}\nspec: {{ clusterIP: 10.96.0.9, ports: [{{ port: 80 }}] }}\n"))?;
    api.apply(&service("web", "10.96.0.7"))?;
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1)?;
    let requests: Vec<_> = api.requests().into_iter().filter(|request| !request.contains("limit=1")).collect();
    let selector = "labelSelector=!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
    for path in ["/api/v1/services?", "/apis/discovery.k8s.io/v1/endpointslices?"] {
        let mut all = requests.iter().filter(|request| request.starts_with(path));
        ensure!(all.clone().count() > 0 && all.all(|request| request.contains(selector)), "{requests:#?}");
    }
    let mut nodes = requests.iter().filter(|request| request.starts_with("/api/v1/nodes?"));
    ensure!(nodes.all(|request| request.contains("fieldSelector=metadata.name=node-1")), "{requests:#?}");
    api.apply(
        &service("web", "10.96.0.7")
            .to_string()
            .replace("  namespace:", "  labels: { service.kubernetes.io/service-proxy-name: other }\n  namespace:"),
    )?;
    follower.eventually(|world| world.services.is_empty())
}

#[test]
fn watched_changes_are_delivered() -> Result<()> {
    for streaming in ALL_AGES {
        let api = ApiServer::start()?;
        api.streaming(streaming);
        let follower = follow(&api, streaming);
        follower.eventually(|world| world.deliveries > 0)?;
        assert!(follower.world().services.is_empty());
        api.apply(&service("web", "10.96.0.7"))?;
        api.apply(&slice("web", "10.244.1.2"))?;
        follower.eventually(|world| world.services.len() == 1 && world.slices.len() == 1)?;
        api.apply(&service("web", "10.96.0.8"))?;
        api.apply(&slice("api", "10.244.1.2").name("web-1"))?;
        follower.eventually(|world| {
            world.services["default/web"] == ["10.96.0.8"] && world.slices["default/web-1"] == "default/api: 10.244.1.2"
        })?;
        api.delete(Kind::Service, "web")?;
        api.delete(Kind::EndpointSlice, "web-1")?;
        api.apply(&service("web", "10.96.0.9"))?;
        follower.eventually(|world| {
            world.slices.is_empty() && world.services.get("default/web").is_some_and(|ips| ips == &["10.96.0.9"])
        })?;
    }
    Ok(())
}

#[test]
fn new_list_removes_objects_that_vanished() -> Result<()> {
    for streaming in ALL_AGES {
        let mut api = ApiServer::start()?;
        api.streaming(streaming);
        for number in 1..=3 {
            api.apply(&service(&format!("web-{number}"), &format!("10.96.0.{number}")))?;
        }
        let follower = follow(&api, streaming);
        follower.eventually(|world| world.services.len() == 3)?;
        api.away();
        api.delete(Kind::Service, "web-1")?;
        api.delete(Kind::Service, "web-2")?;
        api.apply(&service("web-2", "10.96.0.20"))?;
        api.apply(&service("web-4", "10.96.0.4"))?;
        api.compact();
        follower.world().log.clear();
        api.back()?;
        follower.eventually(|world| world.services.contains_key("default/web-4"))?;
        let world = follower.world().clone();
        assert_eq!(world.services["default/web-2"], ["10.96.0.20"]);
        assert_eq!(world.log.iter().filter(|line| line.starts_with('-')).collect::<Vec<_>>(), ["-default/web-1"]);
        assert_eq!(world.services.len(), 3);
    }
    Ok(())
}

/// The API server lists from its watch cache in one page. If the cache has not reached the known version, kube-ipvs
/// lists from etcd in pages. The pages form one list.
#[test]
fn lists_come_from_the_watch_cache_or_from_etcd_in_pages() -> Result<()> {
    let mut api = ApiServer::start()?;
    api.streaming(StreamingLists::Refused);
    for number in 0..1100 {
        let address = format!("10.96.{}.{}", number / 250, 1 + number % 250);
        api.apply(&service(&format!("web-{number}"), &address))?;
    }
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1100)?;
    let first_lists = |api: &ApiServer, part: &str| {
        let is_list = |request: &str| request.contains("services?") && !request.contains("watch=");
        asked(api, |request| is_list(request) && request.contains(part))
    };
    assert_eq!((first_lists(&api, "resourceVersion=0"), first_lists(&api, "continue=")), (1, 0));
    api.away();
    for number in 0..10 {
        api.delete(Kind::Service, &format!("web-{number}"))?;
    }
    api.compact();
    api.back()?;
    follower.eventually(|world| world.services.len() == 1090)?;
    assert_eq!((first_lists(&api, "resourceVersionMatch=NotOlderThan"), first_lists(&api, "continue=")), (2, 0));
    api.away();
    api.restore(1050, false);
    api.back()?;
    follower.eventually(|world| world.services.len() == 1050)?;
    ensure!(first_lists(&api, "continue=") >= 2, "{:#?}", api.requests());
    Ok(())
}

#[test]
fn slices_with_the_same_endpoint_are_removed_separately() -> Result<()> {
    let api = ApiServer::start()?;
    api.apply(&slice("web", "10.244.1.2").name("web-a"))?;
    api.apply(&slice("web", "10.244.1.2").name("web-b"))?;
    let follower = Follower::start_with(ClientConnection { master: api.url(), ..fast() }, LIMITS);
    follower.eventually(|world| world.slices.len() == 2)?;
    api.delete(Kind::EndpointSlice, "web-a")?;
    follower.eventually(|world| world.slices.keys().eq(["default/web-b"]))
}

/// A slice can name the time of the change behind it. Slices of the first list do not count, nor do slices without a
/// valid time.
#[test]
fn slice_change_times_are_delivered_after_the_first_list() -> Result<()> {
    let api = ApiServer::start()?;
    let at = |address: &str, time: &str| {
        let annotation = format!("\n  annotations: {{ endpoints.kubernetes.io/last-change-trigger-time: {time:?} }}");
        slice("web", address).to_string().replace("\n  namespace:", &format!("{annotation}\n  namespace:"))
    };
    api.apply(&service("web", "10.96.0.7"))?;
    api.apply(&at("10.244.1.2", "2026-01-01T00:00:00Z"))?;
    let follower = Follower::start(&api);
    follower.eventually(|world| world.deliveries > 0)?;
    api.apply(&at("10.244.1.3", "2026-01-01T00:00:01.5Z"))?;
    api.apply(&at("10.244.1.4", "yesterday"))?;
    api.apply(&slice("web", "10.244.1.5"))?;
    api.apply(&at("10.244.1.6", "2026-01-01T00:00:02Z"))?;
    follower.eventually(|world| world.slices["default/web-1"].ends_with("10.244.1.6"))?;
    assert_eq!(follower.world().triggers, ["IPv4 2026-01-01T00:00:01.5Z", "IPv4 2026-01-01T00:00:02Z"]);
    Ok(())
}
