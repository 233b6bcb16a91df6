//! Callers that say nothing do not keep others out.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use kube_ipvs::serve::Limits;
use proxier::model::{Event, TrafficPolicy};
use scenarios::eventually;
use socket2::{Domain, Socket, Type};

use crate::{
    daemon::{Daemon, UNHURRIED, await_listener, await_nobody, free, get, port, service, soon},
    metrics::counters,
};

/// Calls many times and says nothing.
fn silent(at: SocketAddr) -> Result<Vec<TcpStream>> {
    (0..300).map(|_| Ok(TcpStream::connect(at)?)).collect()
}

/// A caller is answered while the last of those who say nothing still has its place, and an hour of time.
fn is_answered_beside(waiting: &mut [TcpStream], at: SocketAddr, path: &str) -> Result<()> {
    ensure!(get(at, path, "")?.head.starts_with("HTTP/1.1"), "no answer");
    let last = &mut waiting[299];
    last.set_nonblocking(true)?;
    let read = last.read(&mut [0]).map_err(|error| error.kind());
    last.set_nonblocking(false)?;
    ensure!(read == Err(ErrorKind::WouldBlock), "the last one was sent away: {read:?}");
    Ok(())
}

fn is_sent_away(caller: &mut TcpStream) -> Result<()> {
    caller.set_read_timeout(Some(soon()))?;
    // To the end: that goes on where a machine that was stopped had interrupted it.
    ensure!(caller.read_to_end(&mut Vec::new())? == 0, "it was answered");
    Ok(())
}

/// If a client has asked, the daemon answers it before it ends. It lets no other client in.
#[test]
fn at_the_end_an_answer_is_given_to_the_end() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let (at, health) = (daemon.metrics, daemon.health);
    let client = thread::spawn(move || get(at, "/metrics", ""));
    let ask = daemon.asked()?;
    daemon.status.finish();
    await_nobody(at)?;
    await_nobody(health)?;
    ensure!(!client.is_finished(), "nothing was measured yet");
    daemon.measure(ask, &[]);
    let answer = client.join().map_err(|_| anyhow!("the client panicked"))??;
    ensure!(answer.status == 200 && answer.body.contains("kube_ipvs_build_info"), "{answer:?}");
    Ok(())
}

/// While the owner of the kernel is busy, a scrape gets the last measurement.
#[test]
fn a_scrape_does_not_wait_for_a_busy_owner() -> Result<()> {
    let limits = Limits { owner: Duration::from_millis(100), ..UNHURRIED };
    let mut daemon = Daemon::start_with(&[], limits)?;
    let answer = get(daemon.metrics, "/metrics", "")?;
    ensure!(answer.status == 200 && answer.body.contains("kube_ipvs_build_info"), "{answer:?}");
    // It was asked for, and could still come.
    daemon.asked().map(drop)
}

/// The answer to who asks and does not read is not kept.
#[test]
fn who_does_not_read_is_sent_away_in_the_end() -> Result<()> {
    let limits = Limits { caller: Duration::from_secs(1), ..UNHURRIED };
    let mut daemon = Daemon::start_with(&["--service-metrics-limit=100000"], limits)?;
    // More than sockets hold by default: 4 MiB at most on the way, and little here.
    let names: Vec<(String, String)> = (0..16_000_u32)
        .map(|number| (format!("{number:060}"), std::net::Ipv4Addr::from(0x0a60_0001 + number).to_string()))
        .collect();
    daemon.events(names.iter().map(|(name, ip)| Event::ServiceApplied(service(name, ip))).collect());
    let at = daemon.metrics;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(&at.into())?;
    let mut caller = TcpStream::from(socket);
    write!(caller, "GET /metrics HTTP/1.1\r\nHost: {at}\r\n\r\n")?;
    let ask = daemon.asked()?;
    let read: Vec<_> = names.iter().map(|(_, ip)| (&**ip, 1)).collect();
    daemon.measure(ask, &counters(&read));
    let from = caller.local_addr()?;
    eventually(|| {
        ensure!(!has_connection(at, from)?, "{from} is still being answered");
        Ok(())
    })?;
    // It has what was on the way. Then it learns that the daemon has disconnected it.
    let mut answer = Vec::new();
    let _ = caller.read_to_end(&mut answer);
    ensure!((1..8 << 20).contains(&answer.len()), "{} bytes", answer.len());
    Ok(())
}

/// Whether the kernel has the server's side of a connection.
fn has_connection(server: SocketAddr, client: SocketAddr) -> Result<bool> {
    // As /proc/net/tcp has them: the address, and the port in hexadecimal digits.
    let port = |at: SocketAddr| format!(":{:04X}", at.port());
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    Ok(table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let mut has = |at| words.next().is_some_and(|word| word.ends_with(&port(at)));
        has(server) && has(client)
    }))
}

#[test]
fn who_says_nothing_is_sent_away_in_the_end() -> Result<()> {
    let daemon = Daemon::start_with(&[], Limits { caller: Duration::from_millis(100), ..UNHURRIED })?;
    is_sent_away(&mut TcpStream::connect(daemon.health)?)
}

/// The time-out is an hour here, so a client that is disconnected has lost its place to another.
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
    is_answered_beside(&mut callers, daemon.health, "/livez")?;
    // The one that has waited longest was sent away.
    is_sent_away(&mut callers[0])?;
    let mut metrics = silent(daemon.metrics)?;
    is_answered_beside(&mut metrics, daemon.metrics, "/healthz")?;
    // All checks have their places together.
    let mut of_one = silent(one)?;
    is_answered_beside(&mut of_one, one, "/")?;
    let mut of_two = silent(two)?;
    is_answered_beside(&mut of_two, two, "/")?;
    is_answered_beside(&mut of_two, one, "/")?;
    // The other port's callers count too.
    is_sent_away(&mut of_one[299])
}
