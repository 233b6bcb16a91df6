//! Callers that say nothing keep nobody out.

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use proxier::model::{Event, TrafficPolicy};

use crate::daemon::{Daemon, SOON, await_listener, await_nobody, free, get, port, service};

/// Who says nothing is sent away after five seconds; nobody may have to wait for that.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Calls many times and says nothing.
fn silent(at: SocketAddr) -> Result<Vec<TcpStream>> {
    (0..300).map(|_| Ok(TcpStream::connect(at)?)).collect()
}

fn is_answered_at_once(at: SocketAddr, path: &str) -> Result<()> {
    let start = Instant::now();
    ensure!(get(at, path, "")?.head.starts_with("HTTP/1.1"), "no answer");
    ensure!(start.elapsed() < AT_ONCE, "after {:?}", start.elapsed());
    Ok(())
}

/// Who has asked is answered although the daemon is to end, and nobody else is let in.
#[test]
fn at_the_end_an_answer_is_given_to_the_end() -> Result<()> {
    let daemon = Daemon::start(&[])?;
    let (at, health) = (daemon.metrics, daemon.health);
    // It takes two seconds, as nobody measures here.
    let client = std::thread::spawn(move || get(at, "/metrics", ""));
    std::thread::sleep(Duration::from_millis(500));
    daemon.status.finish();
    await_nobody(at)?;
    await_nobody(health)?;
    let answer = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    ensure!(answer.status == 200 && answer.body.contains("kube_ipvs_build_info"), "{answer:?}");
    Ok(())
}

#[test]
fn who_says_nothing_gives_up_its_place_to_who_does() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let (one, two) = (free()?, free()?);
    let lb = |name: &str, address: &str, at: SocketAddr| {
        let (health_check_port, external_policy) = (Some(port(at.port())), TrafficPolicy::Local);
        let service = service(name, address);
        Event::ServiceApplied(proxier::model::Service { health_check_port, external_policy, ..service })
    };
    daemon.events(vec![lb("a", "10.96.0.1", one), lb("b", "10.96.0.2", two)]);
    for at in [one, two] {
        await_listener(at)?;
    }
    let mut callers = silent(daemon.health)?;
    is_answered_at_once(daemon.health, "/livez")?;
    // The one that has waited longest was sent away.
    callers[0].set_read_timeout(Some(AT_ONCE))?;
    ensure!(callers[0].read(&mut [0])? == 0, "it was not sent away");
    let metrics = silent(daemon.metrics)?;
    is_answered_at_once(daemon.metrics, "/healthz")?;
    // All checks have their places together.
    let mut checks = silent(one)?;
    is_answered_at_once(one, "/")?;
    checks.extend(silent(two)?);
    is_answered_at_once(two, "/")?;
    is_answered_at_once(one, "/")?;
    let start = Instant::now();
    let last = &mut checks[299];
    last.set_read_timeout(Some(SOON))?;
    ensure!(last.read(&mut [0])? == 0 && start.elapsed() < AT_ONCE, "the other port's callers count too");
    drop((callers, metrics));
    Ok(())
}
