use std::{collections::BTreeSet, fs};

/// Whether another process listens on a TCP port in this network namespace.
pub(super) fn somebody_else_listens(port: u16) -> bool {
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    let tables: String = tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect();
    let listeners = listeners(&tables, port);
    !listeners.is_empty() && !listeners.is_subset(&own_sockets())
}

/// The inodes of sockets that listen on a port, by the kernel's tables of TCP sockets.
fn listeners(tables: &str, port: u16) -> BTreeSet<u64> {
    const LISTEN: &str = "0A";
    let listener = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = words.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local, 16).ok()? == port && *words.get(3)? == LISTEN;
        words.get(9).filter(|_| is_it)?.parse().ok()
    };
    tables.lines().filter_map(listener).collect()
}

fn own_sockets() -> BTreeSet<u64> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else { return BTreeSet::new() };
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |link: std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    links.filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const TABLE: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:2810 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:2810 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1
   2: 0100007F:2809 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
";

    #[test]
    fn listeners_are_found_by_their_port() {
        assert_eq!(listeners(TABLE, 10256), [4711].into());
        assert_eq!(listeners(TABLE, 10249), [4713].into());
        assert_eq!(listeners(TABLE, 80), [].into());
    }

    #[test]
    fn own_listener_does_not_count_as_another_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!somebody_else_listens(listener.local_addr().unwrap().port()));
    }
}
