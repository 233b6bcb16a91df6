//! Silent callers do not keep other callers out.

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

use crate::daemon::{Daemon, UNHURRIED, await_listener, await_nobody, free, get, port, service, soon};

/// Opens 300 connections and sends nothing.
fn silent(at: SocketAddr) -> Result<Vec<TcpStream>> {
    (0..300).map(|_| Ok(TcpStream::connect(at)?)).collect()
}

/// Gets an answer while the newest silent caller keeps its place. The timeout is an hour.
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
    // If a stopped machine interrupts the read, `read_to_end` continues it.
    ensure!(caller.read_to_end(&mut Vec::new())? == 0, "it was answered");
    Ok(())
}

/// Before the daemon ends, it answers the clients that have asked. It admits no other client.
#[test]
fn ending_daemon_completes_answers_in_progress() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let (at, health) = (daemon.metrics, daemon.health);
    let client = thread::spawn(move || get(at, "/metrics", ""));
    let ask = daemon.asked()?;
    daemon.status.finish();
    await_nobody(at)?;
    await_nobody(health)?;
    ensure!(!client.is_finished(), "nothing was measured yet");
    daemon.answer(ask);
    let answer = client.join().map_err(|_| anyhow!("the client panicked"))??;
    ensure!(answer.status == 200 && answer.body.contains("kube_ipvs_build_info"), "{answer:?}");
    Ok(())
}

/// While the sync loop is busy, a scrape gets the last measurement.
#[test]
fn scrape_does_not_wait_for_a_busy_sync_loop() -> Result<()> {
    let limits = Limits { owner: Duration::from_millis(100), ..UNHURRIED };
    let mut daemon = Daemon::start_with(&[], limits)?;
    let answer = get(daemon.metrics, "/metrics", "")?;
    ensure!(answer.status == 200 && answer.body.contains("kube_ipvs_build_info"), "{answer:?}");
    // The measurement was requested, and could still come.
    daemon.asked().map(drop)
}

#[test]
fn client_that_does_not_read_is_disconnected() -> Result<()> {
    let limits = Limits { caller: Duration::from_secs(1), ..UNHURRIED };
    let mut daemon = Daemon::start_with(&["--service-metrics-limit=100000"], limits)?;
    // More than sockets hold by default: at most 4 MiB in flight, and little on this side.
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
    daemon.answer(ask);
    let from = caller.local_addr()?;
    eventually(|| {
        ensure!(!has_connection(at, from)?, "{from} is still being answered");
        Ok(())
    })?;
    // The client reads the data in flight. Then it learns that the daemon has disconnected it.
    let mut answer = Vec::new();
    let _ = caller.read_to_end(&mut answer);
    ensure!((1..8 << 20).contains(&answer.len()), "{} bytes", answer.len());
    Ok(())
}

fn has_connection(server: SocketAddr, client: SocketAddr) -> Result<bool> {
    // /proc/net/tcp has the port in hexadecimal digits.
    let port = |at: SocketAddr| format!(":{:04X}", at.port());
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    Ok(table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let mut has = |at| words.next().is_some_and(|word| word.ends_with(&port(at)));
        has(server) && has(client)
    }))
}

#[test]
fn silent_client_is_disconnected_after_the_timeout() -> Result<()> {
    let daemon = Daemon::start_with(&[], Limits { caller: Duration::from_millis(100), ..UNHURRIED })?;
    is_sent_away(&mut TcpStream::connect(daemon.health)?)
}

/// The timeout is an hour here, so a client that is disconnected has lost its place to another.
#[test]
fn silent_client_loses_its_place_to_a_new_one() -> Result<()> {
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
    // The daemon evicted the oldest silent caller.
    is_sent_away(&mut callers[0])?;
    let mut metrics = silent(daemon.metrics)?;
    is_answered_beside(&mut metrics, daemon.metrics, "/healthz")?;
    // All health check ports share their places.
    let mut of_one = silent(one)?;
    is_answered_beside(&mut of_one, one, "/")?;
    let mut of_two = silent(two)?;
    is_answered_beside(&mut of_two, two, "/")?;
    is_answered_beside(&mut of_two, one, "/")?;
    // Callers of the other port count too.
    is_sent_away(&mut of_one[299])
}
