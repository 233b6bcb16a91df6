//! Shows Prometheus what each virtual server has done so far. It only reads.
//!
//! ```sh
//! export                    # prints the counters once
//! export 127.0.0.1:9108     # serves them over HTTP, such as to `curl http://127.0.0.1:9108/metrics`
//! ```
//!
//! In a shell `export` is a command of its own: name the path of the program.

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

/// A metric's name, its meaning, and its value among the kernel's counters.
type Counter = (&'static str, &'static str, fn(&Stats) -> u64);

const COUNTERS: [Counter; 5] = [
    ("ipvs_connections_total", "Connections scheduled.", |stats| stats.connections),
    ("ipvs_incoming_packets_total", "Packets from clients.", |stats| stats.packets_in),
    ("ipvs_outgoing_packets_total", "Packets to clients through this host.", |stats| stats.packets_out),
    ("ipvs_incoming_bytes_total", "Bytes from clients.", |stats| stats.bytes_in),
    ("ipvs_outgoing_bytes_total", "Bytes to clients through this host.", |stats| stats.bytes_out),
];

/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(5);

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

/// Answers every request, whatever its path, one at a time.
fn serve(address: &str) -> Result<(), Box<dyn Error>> {
    let listener =
        TcpListener::bind(address).map_err(|error| format!("{address}: {error}. usage: export [ADDRESS:PORT]"))?;
    println!("serving http://{}/metrics", listener.local_addr()?);
    for connection in listener.incoming() {
        // A client that goes away is its own matter.
        if let Err(error) = connection.and_then(answer) {
            eprintln!("export: {error}");
        }
    }
    Ok(())
}

fn answer(mut connection: TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    // The request ends with an empty line. It has no content.
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

/// Reads all virtual servers of this network namespace. To open a client for each reading is cheap, and survives that
/// the module ip_vs is loaded again.
fn metrics() -> Result<String, Box<dyn Error>> {
    // The kernel's list is no snapshot: it can lack a virtual server while others come and go. The next one has it.
    match Client::open().and_then(|mut client| client.services()) {
        Ok(services) => Ok(exposition(&services)),
        Err(error) if error.is_permission_denied() => {
            Err(format!("{error}: run this as root, or with CAP_NET_ADMIN").into())
        }
        // If the kernel has no IPVS, the error says what to do.
        Err(error) => Err(error.into()),
    }
}

/// Prometheus' text format: for each metric its meaning, its type, and a line for each virtual server.
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
