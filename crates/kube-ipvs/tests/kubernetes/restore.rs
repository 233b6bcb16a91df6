//! The etcd of the API server is restored from a backup, or replaced by an empty one.

use anyhow::{Result, ensure};
use scenarios::{ApiServer, Kind, Service, StreamingLists};

use crate::follower::{Follower, LIMITS, asked, limits};
use kube_ipvs::config::ClientConnection;

fn service(number: u8) -> Service {
    Service::new(&format!("web-{number}")).cluster_ip(&format!("10.96.0.{number}")).port(80)
}

/// The follower knows web-1, web-3 and web-4. Then `restore` makes the API server forget the last changes.
fn forgetful(
    streaming: StreamingLists,
    restore: impl FnOnce(&mut ApiServer, u64) -> Result<()>,
) -> Result<(ApiServer, Follower)> {
    let mut api = ApiServer::start()?;
    api.streaming(streaming);
    (1..=3).try_for_each(|number| api.apply(&service(number)))?;
    let flags = ClientConnection { master: api.url(), ..crate::follower::fast() };
    let follower = Follower::start_with(flags, limits(streaming));
    follower.eventually(|world| world.services.len() == 3)?;
    let backup = api.revision();
    api.delete(Kind::Service, "web-2")?;
    api.apply(&service(4))?;
    follower.eventually(|world| world.services.keys().eq(["default/web-1", "default/web-3", "default/web-4"]))?;
    restore(&mut api, backup)?;
    Ok((api, follower))
}

fn is_found_out(api: &ApiServer, follower: &Follower) -> Result<()> {
    follower.eventually(|world| world.services.keys().eq(["default/web-1", "default/web-2", "default/web-3"]))?;
    // The versions after the restore are still lower than the known one.
    api.apply(&service(5))?;
    follower.eventually(|world| world.services.contains_key("default/web-5"))
}

/// A watch would not reveal the restore: the API server accepts a future version and waits until it reaches it.
#[test]
fn etcd_restore_is_detected_when_the_api_server_is_back() -> Result<()> {
    for streaming in [StreamingLists::Served, StreamingLists::Refused] {
        let (api, follower) = forgetful(streaming, |api, backup| {
            api.away();
            api.restore(backup, false);
            api.back()
        })?;
        is_found_out(&api, &follower)?;
    }
    Ok(())
}

/// Only etcd was down. The API server stays up and ends its watches.
#[test]
fn etcd_restore_is_detected_when_watches_end() -> Result<()> {
    let (api, follower) = forgetful(StreamingLists::Served, |api, backup| {
        api.restore(backup, false);
        api.end_watches();
        Ok(())
    })?;
    is_found_out(&api, &follower)
}

#[test]
fn etcd_restore_is_detected_by_a_bookmark() -> Result<()> {
    let (api, follower) = forgetful(StreamingLists::Served, |api, backup| {
        api.restore(backup, true);
        Ok(())
    })?;
    is_found_out(&api, &follower)
}

#[test]
fn empty_api_server_after_a_reset_is_followed() -> Result<()> {
    let (api, follower) = forgetful(StreamingLists::Refused, |api, _| {
        api.away();
        api.restore(0, false);
        api.back()
    })?;
    follower.eventually(|world| world.services.is_empty())?;
    api.apply(&service(6))?;
    follower.eventually(|world| world.services.contains_key("default/web-6"))
}

#[test]
fn api_server_that_lost_nothing_is_resumed_without_a_list() -> Result<()> {
    let mut api = ApiServer::start()?;
    api.apply(&service(1))?;
    let flags = ClientConnection { master: api.url(), ..crate::follower::fast() };
    let follower = Follower::start_with(flags, LIMITS);
    follower.eventually(|world| world.services.len() == 1)?;
    let is_list = |request: &str| request.contains("services?") && request.contains("sendInitialEvents");
    for number in 2..=4 {
        api.away();
        api.apply(&service(number))?;
        api.back()?;
        follower.eventually(|world| world.services.len() == usize::from(number))?;
    }
    ensure!(asked(&api, is_list) == 1, "{:#?}", api.requests());
    Ok(())
}
