//! Faults of the network and of the API server must not lose a change.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use kube_ipvs::{config::ClientConnection, source::kubernetes::Limits};
use scenarios::{ApiServer, Fault, Kind, Service, StreamingLists, eventually};

use crate::follower::{Follower, HURRIED, LIMITS, asked, await_asked, fast};

fn service(number: u8) -> Service {
    Service::new(&format!("web-{number}")).cluster_ip(&format!("10.96.0.{number}")).port(80)
}

fn follow(api: &ApiServer, limits: Limits) -> Follower {
    Follower::start_with(ClientConnection { master: api.url(), ..fast() }, limits)
}

/// Applies Services while `disturb` causes faults, and waits for all of them.
fn disturbed(limits: Limits, disturb: impl Fn(&mut ApiServer, u8) -> Result<()>) -> Result<()> {
    for streaming in [StreamingLists::Served, StreamingLists::Refused] {
        let mut api = ApiServer::start()?;
        api.streaming(streaming);
        let follower = follow(&api, limits);
        follower.eventually(|world| world.deliveries > 0)?;
        for number in 1..=10 {
            api.apply(&service(number))?;
            disturb(&mut api, number)?;
            if number > 2 {
                api.delete(Kind::Service, &format!("web-{}", number - 2))?;
            }
            // As long as the first pause, so that the next fault meets some attempts under way and some not.
            thread::sleep(LIMITS.first_pause);
        }
        follower.eventually(|world| world.services.keys().eq(["default/web-10", "default/web-9"]))?;
        api.apply(&service(11))?;
        follower.eventually(|world| world.services.contains_key("default/web-11"))?;
    }
    Ok(())
}

#[test]
fn changes_survive_cut_connections() -> Result<()> {
    disturbed(LIMITS, |api, _| {
        api.cut();
        Ok(())
    })
}

#[test]
fn changes_survive_connections_cut_within_an_event() -> Result<()> {
    disturbed(LIMITS, |api, _| {
        api.half_events(1);
        Ok(())
    })
}

#[test]
fn changes_survive_silent_connections() -> Result<()> {
    disturbed(HURRIED, |api, number| {
        if number == 5 {
            api.fall_silent();
        }
        Ok(())
    })
}

#[test]
fn changes_survive_duplicate_and_late_events() -> Result<()> {
    disturbed(LIMITS, |api, _| {
        api.double(true);
        api.slow(Duration::from_millis(5));
        Ok(())
    })
}

#[test]
fn changes_survive_compacted_versions() -> Result<()> {
    disturbed(LIMITS, |api, _| {
        api.compact();
        api.cut();
        Ok(())
    })
}

#[test]
fn changes_survive_rejected_closed_and_unanswered_requests() -> Result<()> {
    disturbed(HURRIED, |api, number| {
        let faults = [
            Fault::Status(500),
            Fault::Status(429),
            Fault::Close,
            Fault::Status(410),
            Fault::Silence,
            Fault::EmptyWatch,
            Fault::Status(503),
        ];
        api.fault(&[faults[usize::from(number) % faults.len()]]);
        api.cut();
        Ok(())
    })
}

#[test]
fn changes_survive_api_server_restarts() -> Result<()> {
    disturbed(LIMITS, |api, number| {
        if number % 3 == 0 {
            api.away();
            // Most watches have noticed the outage by then. The others see a broken connection.
            thread::sleep(Duration::from_millis(50));
            api.back()?;
        }
        Ok(())
    })
}

#[test]
fn nothing_is_delivered_until_the_api_server_is_up() -> Result<()> {
    let mut api = ApiServer::start()?;
    api.apply(&service(1))?;
    api.away();
    let follower = Follower::start(&api);
    // Several attempts of each watch, which this test cannot count.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(follower.world().deliveries, 0);
    api.back()?;
    follower.eventually(|world| world.services.len() == 1 && world.complete)
}

/// Pauses between attempts grow, with a random part.
#[test]
fn failing_api_server_is_retried_with_growing_pauses() -> Result<()> {
    for fault in [Fault::Status(500), Fault::EmptyWatch] {
        let api = ApiServer::start()?;
        let follower = Follower::start(&api);
        follower.eventually(|world| world.deliveries > 0)?;
        api.fault(&[fault; 1000]);
        api.cut();
        let (start, before) = (Instant::now(), api.requests().len());
        // A slow machine makes fewer attempts, which is no storm.
        await_asked(&api, before + 40, |_| true)?;
        let (made, time) = (api.requests().len() - before, start.elapsed());
        // Four watches, with pauses of at least 20, 40, 80, 160 and then 200 ms.
        let most = 4 * (4 + time.as_millis() / 200 + 1);
        ensure!(made as u128 <= most, "{made} requests in {time:?} of {fault:?}, {most} are allowed");
    }
    Ok(())
}

/// API priority and fairness asks for a pause in plain text.
#[test]
fn busy_api_server_is_retried_after_its_retry_after() -> Result<()> {
    let api = ApiServer::start()?;
    api.fault(&[Fault::Busy(1); 4]);
    let start = Instant::now();
    let follower = Follower::start(&api);
    follower.eventually(|world| world.deliveries > 0)?;
    ensure!(start.elapsed() >= Duration::from_secs(1), "asked again after {:?}", start.elapsed());
    Ok(())
}

#[test]
fn gateway_error_causes_no_new_list() -> Result<()> {
    let api = ApiServer::start()?;
    api.apply(&service(1))?;
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1)?;
    let is_list = |request: &str| request.contains("sendInitialEvents");
    // A watch from a version on proves that its list is done.
    let goes_on = |path: &str| asked(&api, |request| request.contains(path) && !is_list(request));
    eventually(|| {
        let watched = ["/services?", "/endpointslices?", "/nodes?", "/servicecidrs?"].map(goes_on);
        ensure!(!watched.contains(&0), "{watched:?} are watched");
        Ok(())
    })?;
    let (lists, requests) = (asked(&api, is_list), api.requests().len());
    api.fault(&[Fault::Gateway; 8]);
    api.cut();
    await_asked(&api, requests + 9, |_| true)?;
    api.apply(&service(2))?;
    follower.eventually(|world| world.services.len() == 2)?;
    assert_eq!(asked(&api, is_list), lists, "{:#?}", api.requests());
    Ok(())
}

/// If a streaming list stalls, kube-ipvs falls back to a plain list. The next list tries streaming again.
#[test]
fn streaming_list_is_tried_again_after_one_stalled() -> Result<()> {
    let api = ApiServer::start()?;
    api.apply(&service(1))?;
    api.fault(&[Fault::Stalled; 4]);
    // A timeout that comes too early does no harm here.
    let silence = Duration::from_millis(50);
    let follower = follow(&api, Limits { silence, ..LIMITS });
    follower.eventually(|world| world.services.len() == 1)?;
    let is_list = |request: &str| request.contains("services?") && request.contains("sendInitialEvents");
    assert_eq!(asked(&api, is_list), 1);
    api.fault(&[Fault::Status(410); 12]);
    api.cut();
    await_asked(&api, 2, is_list)
}

#[test]
fn slow_list_that_makes_progress_is_not_cut() -> Result<()> {
    for streaming in [StreamingLists::Served, StreamingLists::Refused] {
        let api = ApiServer::start()?;
        api.streaming(streaming);
        (1..=40).try_for_each(|number| api.apply(&service(number)))?;
        // Two seconds for the streaming list, and some for the plain list. A watch lasts one second.
        api.slow(Duration::from_millis(50));
        api.drip(Duration::from_millis(200));
        let follower = follow(&api, Limits { list: Duration::from_secs(1), ..LIMITS });
        follower.eventually(|world| world.services.len() == 40)?;
    }
    Ok(())
}

/// After a long outage the API server may be back with an older state, in which the known version means another state.
#[test]
fn watch_lists_again_after_a_long_outage() -> Result<()> {
    let is_of_services = |request: &str| request.contains("services?");
    let is_list = |request: &str| request.contains("services?") && request.contains("sendInitialEvents");
    for (stale, is_long) in [(Duration::from_millis(200), true), (LIMITS.stale, false)] {
        let api = ApiServer::start()?;
        api.apply(&service(1))?;
        let follower = follow(&api, Limits { stale, ..LIMITS });
        follower.eventually(|world| world.services.len() == 1)?;
        let (lists, requests) = (asked(&api, is_list), asked(&api, is_of_services));
        api.fault(&[Fault::Close; 1000]);
        api.cut();
        if is_long {
            await_asked(&api, lists + 1, is_list)?;
        } else {
            // Every retry resumes from the known version.
            await_asked(&api, requests + 10, is_of_services)?;
            ensure!(asked(&api, is_list) == lists, "{:#?}", api.requests());
        }
        api.fault(&[]);
        api.apply(&service(2))?;
        follower.eventually(|world| world.services.len() == 2)?;
    }
    Ok(())
}
