//! Exports the counters of each virtual server to Prometheus. It only reads.
//!
//! ```sh
//! export                    # prints the counters once
//! export 127.0.0.1:9108     # serves them over HTTP, such as to `curl http://127.0.0.1:9108/metrics`
//! ```
//!
//! In a shell `export` is a builtin: run the program by its path.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    io::{self, BufRead, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    time::Duration,
};

use ipvs_netlink::{Client, ServiceEntry, Stats};

/// The metric's name, its help text, and its value among the kernel's counters.
type Counter = (&'static str, &'static str, fn(&Stats) -> u64);

const COUNTERS: [Counter; 5] = [
    ("ipvs_connections_total", "Connections scheduled.", |stats| stats.connections),
    ("ipvs_incoming_packets_total", "Packets from clients.", |stats| stats.packets_in),
    ("ipvs_outgoing_packets_total", "Packets to clients through this host.", |stats| stats.packets_out),
    ("ipvs_incoming_bytes_total", "Bytes from clients.", |stats| stats.bytes_in),
    ("ipvs_outgoing_bytes_total", "Bytes to clients through this host.", |stats| stats.bytes_out),
];

/// Timeout of a client's request.
const TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let result = match env::args().nth(1) {
        Some(address) => serve(&address),
        None => metrics().map(|text| print!("{text}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("export: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers every request, regardless of its path, one at a time.
fn serve(address: &str) -> Result<(), Box<dyn Error>> {
    let listener =
        TcpListener::bind(address).map_err(|error| format!("{address}: {error}. usage: export [ADDRESS:PORT]"))?;
    println!("serving http://{}/metrics", listener.local_addr()?);
    for connection in listener.incoming() {
        // A client that disconnects early does not end the exporter.
        if let Err(error) = connection.and_then(answer) {
            eprintln!("export: {error}");
        }
    }
    Ok(())
}

fn answer(mut connection: TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(TIMEOUT))?;
    // An empty line ends the request: it has no body.
    for line in BufReader::new(connection.try_clone()?).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let (status, text) = match metrics() {
        Ok(text) => ("200 OK", text),
        Err(error) => ("500 Internal Server Error", format!("{error}\n")),
    };
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}

/// Opens a client for each scrape. That is cheap, and it still works after the module ip_vs was reloaded.
fn metrics() -> Result<String, Box<dyn Error>> {
    // The kernel's list is no snapshot: it can miss a virtual server while others are added or deleted. The next list
    // has it.
    match Client::open().and_then(|mut client| client.services()) {
        Ok(services) => Ok(exposition(&services)),
        Err(error) if error.is_permission_denied() => {
            Err(format!("{error}: run this as root, or with CAP_NET_ADMIN").into())
        }
        // If the kernel has no IPVS, the error names the remedy.
        Err(error) => Err(error.into()),
    }
}

/// Prometheus' text format: the help text and type of each metric, then one line for each virtual server.
fn exposition(services: &[ServiceEntry]) -> String {
    let mut text = String::new();
    for (name, meaning, value) in COUNTERS {
        let _ = writeln!(text, "# HELP {name} {meaning}\n# TYPE {name} counter");
        for ServiceEntry { key, stats, .. } in services {
            // The key as ipvsadm prints it: `TCP 10.0.0.1:80`, or `FWM 1` for a firewall mark.
            let _ = writeln!(text, "{name}{{virtual_server=\"{key}\"}} {}", value(stats));
        }
    }
    text
}
