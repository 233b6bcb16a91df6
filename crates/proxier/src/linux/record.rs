//! A copy of the record of ownership in a file. With it, kube-ipvs knows its objects even if another program flushed
//! nftables while kube-ipvs was not running.
//!
//! kube-ipvs appends a line `+` before it makes an object, and a line `-` after it removed one. It skips a line that a
//! crash truncated. The file belongs in a directory that a reboot clears, such as /run, because the kernel's state ends
//! then too. If kube-ipvs cannot write the file, it serves Services anyway, and repairs the file at the next read of
//! the kernel.

use std::{
    collections::BTreeSet,
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{
    model::{PortNumber, VirtualServerKey},
    plan::Change,
    set::KeySet,
    state::State,
};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) servers: BTreeSet<VirtualServerKey>,
    pub(super) vips: BTreeSet<IpAddr>,
    /// The number of lines in the file.
    lines: usize,
}

#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    file: Option<File>,
}

impl Record {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read(&self) -> io::Result<Owned> {
        match fs::read(&self.path) {
            Ok(text) => Ok(Owned::parse(&String::from_utf8_lossy(&text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Owned::default()),
            Err(error) => Err(error),
        }
    }

    /// Aligns the record with the kernel. It drops objects that another program removed: a program that makes them
    /// again owns them. It adds objects that only nftables records, as after a failed write. It rewrites the file once
    /// most of its lines are obsolete.
    pub(super) fn follow(&mut self, before: &Owned, state: &State) -> io::Result<()> {
        const LONG: usize = 1_000;
        let served = state.elements.iter().filter(|(_, entry)| entry.sets.contains(KeySet::Served));
        let there = served.map(|(key, _)| key).filter(|key| state.virtual_servers.contains_key(key));
        let bound = state.recorded_vips.intersection(&state.bound_vips);
        if before.lines >= LONG && before.lines >= 2 * (before.servers.len() + before.vips.len()) {
            let still = before.servers.iter().filter(|key| state.virtual_servers.contains_key(key));
            let servers: BTreeSet<_> = there.chain(still).collect();
            let vips: BTreeSet<_> = bound.chain(before.vips.intersection(&state.bound_vips)).collect();
            let lines = servers.iter().map(|key| line('+', key));
            return self.replace(lines.chain(vips.iter().map(|vip| line('+', vip))));
        }
        let gone = before.servers.iter().filter(|key| !state.virtual_servers.contains_key(key));
        let unbound = before.vips.difference(&state.bound_vips);
        let lines = gone.map(|key| line('-', key)).chain(unbound.map(|vip| line('-', vip)));
        let servers = there.filter(|key| !before.servers.contains(key)).map(|key| line('+', key));
        let vips = bound.filter(|vip| !before.vips.contains(vip)).map(|vip| line('+', vip));
        self.append(lines.chain(servers).chain(vips))
    }

    fn replace(&mut self, lines: impl Iterator<Item = String>) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        fs::write(&draft, lines.collect::<String>())?;
        fs::rename(&draft, &self.path)?;
        self.file = None;
        Ok(())
    }

    /// Records objects before they are made.
    pub(super) fn intend<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) -> io::Result<()> {
        self.append(changes.filter_map(|change| match change {
            Change::AddVirtualServer { key, .. } => Some(line('+', key)),
            Change::Bind(address) => Some(line('+', address)),
            _ => None,
        }))
    }

    /// Removes objects from the record after they were removed.
    pub(super) fn forget<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) -> io::Result<()> {
        self.append(changes.filter_map(|change| match change {
            Change::RemoveVirtualServer(key) => Some(line('-', key)),
            Change::Unbind(address) => Some(line('-', address)),
            _ => None,
        }))
    }

    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.file = None;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    fn append(&mut self, lines: impl Iterator<Item = String>) -> io::Result<()> {
        let lines: String = lines.collect();
        if lines.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(&self.path)?),
        };
        let written = file.write_all(lines.as_bytes());
        if written.is_err() {
            // The file may end in a partial line. Reopening it keeps the next line apart from that one.
            self.file = None;
        }
        written
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    if file.metadata()?.len() > 0 {
        // The last line may be truncated. The `?` keeps it apart from the next line and makes it invalid.
        file.write_all(b"?\n")?;
    }
    Ok(file)
}

fn line(sign: char, what: impl Display) -> String {
    format!("{sign}{what}\n")
}

impl Owned {
    fn parse(text: &str) -> Self {
        let mut owned = Self::default();
        // The last line may be truncated: only a complete line ends in a newline.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            owned.lines += 1;
            let Some((sign, what)) = line.split_at_checked(1) else { continue };
            match (sign, key(what), what.parse::<IpAddr>()) {
                ("+", Some(key), _) => drop(owned.servers.insert(key)),
                ("-", Some(key), _) => drop(owned.servers.remove(&key)),
                ("+", _, Ok(address)) => drop(owned.vips.insert(address)),
                ("-", _, Ok(address)) => drop(owned.vips.remove(&address)),
                _ => {}
            }
        }
        owned
    }
}

fn key(text: &str) -> Option<VirtualServerKey> {
    let (protocol, address) = text.split_once(' ')?;
    let address: SocketAddr = address.parse().ok()?;
    let (protocol, port) = (protocol.parse().ok()?, PortNumber::new(address.port())?);
    Some(VirtualServerKey { address: address.ip(), protocol, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{set::Element, state::VirtualServerState, testing};

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("kube-ipvs-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn bind(address: &str) -> Change {
        Change::Bind(address.parse().unwrap())
    }

    fn vips(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn record_lines_parse_to_owned_servers_and_vips() {
        let text =
            "+TCP 10.0.0.1:80\n+UDP [fd00::1]:53\n+10.0.0.1\n-TCP 10.0.0.1:80\nnonsense\n\n+ä\n+fd00::1\n+10.0.0";
        let owned = Owned::parse(text);
        assert_eq!(owned.servers, [testing::key("UDP [fd00::1]:53")].into());
        assert_eq!(owned.vips, vips(&["10.0.0.1", "fd00::1"]));
    }

    #[test]
    fn truncated_record_line_does_not_corrupt_the_next() {
        let directory = directory("cut");
        let mut record = Record::at(&directory.join("owned"));
        fs::write(&record.path, "+10.0.0.1\n+TCP 10.0.0.1:8").unwrap();
        record.intend([bind("10.0.0.2")].iter()).unwrap();
        let owned = record.read().unwrap();
        assert_eq!(owned.vips, vips(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(owned.servers, [].into());
        fs::remove_dir_all(&directory).unwrap();
    }

    /// A full disk truncates a line. Lines written once there is room again are complete.
    #[test]
    fn partly_written_record_line_does_not_corrupt_the_next() {
        let directory = directory("full");
        let mut record = Record::at(&directory.join("owned"));
        record.intend([bind("10.0.0.1")].iter()).unwrap();
        // A read-only file stands for a full disk.
        record.file = Some(File::open(&record.path).unwrap());
        assert!(record.intend([bind("10.0.0.2")].iter()).is_err());
        let mut file = OpenOptions::new().append(true).open(&record.path).unwrap();
        file.write_all(b"+10.0.0.").unwrap();
        record.intend([bind("10.0.0.3")].iter()).unwrap();
        assert_eq!(record.read().unwrap().vips, vips(&["10.0.0.1", "10.0.0.3"]));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn record_file_keeps_changes_and_is_compacted() {
        let directory = directory("record");
        let mut record = Record::at(&directory.join("later").join("owned"));
        assert_eq!(record.read().unwrap(), Owned::default());
        let unbind = Change::Unbind("10.0.0.1".parse().unwrap());
        record.intend([bind("10.0.0.1")].iter()).unwrap();
        assert_eq!(record.read().unwrap().vips, vips(&["10.0.0.1"]));
        record.forget([unbind.clone()].iter()).unwrap();
        assert_eq!(record.read().unwrap().vips, vips(&[]));
        for _ in 0..600 {
            record.intend([bind("10.0.0.1")].iter()).unwrap();
            record.forget([unbind.clone()].iter()).unwrap();
        }
        record.intend([bind("10.0.0.1")].iter()).unwrap();
        let owned = record.read().unwrap();
        let state = State { bound_vips: owned.vips.clone(), ..State::default() };
        record.follow(&owned, &state).unwrap();
        assert_eq!(fs::read_to_string(&record.path).unwrap(), "+10.0.0.1\n");
        record.forget([unbind].iter()).unwrap();
        assert_eq!(record.read().unwrap().vips, vips(&[]));
        fs::remove_dir_all(&directory).unwrap();
    }

    /// At a read of the kernel, the record gains objects whose write failed, and loses those that another program
    /// removed.
    #[test]
    fn record_follows_kernel_state_on_read() {
        let directory = directory("follow");
        let mut record = Record::at(&directory.join("owned"));
        fs::write(&record.path, b"+TCP 10.0.0.1:80\n+10.0.0.1\n\xff\n").unwrap();
        let owned = record.read().unwrap();
        let mut state = State { recorded_vips: vips(&["10.0.0.2"]), ..State::default() };
        state.bound_vips = vips(&["10.0.0.2", "10.0.0.9"]);
        for (at, is_there) in [("TCP 10.0.0.2:80", true), ("TCP 10.0.0.3:80", false)] {
            state.add(Element::Key(KeySet::Served, testing::key(at)), &None);
            let config = ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::RR);
            let server = VirtualServerState { config, real_servers: Default::default() };
            if is_there {
                state.virtual_servers.insert(testing::key(at), server);
            }
        }
        record.follow(&owned, &state).unwrap();
        let now = record.read().unwrap();
        assert_eq!((now.servers, now.vips), ([testing::key("TCP 10.0.0.2:80")].into(), vips(&["10.0.0.2"])));
        fs::remove_dir_all(&directory).unwrap();
    }

    /// Lines are independent of each other, so a damaged line costs its own object only.
    #[test]
    fn mutated_record_gives_the_objects_of_its_whole_lines() {
        let seeds = ["+TCP 10.0.0.1:80\n+UDP [fd00::1]:53\n+10.0.0.1\n-TCP 10.0.0.1:80\n?\n+fd00::1\n+10.0.0"];
        fuzz::fuzz("record", seeds, |bytes| {
            let owned = Owned::parse(&String::from_utf8_lossy(bytes));
            let servers = owned.servers.iter().map(|key| line('+', key));
            let written: String = servers.chain(owned.vips.iter().map(|vip| line('+', vip))).collect();
            let read = Owned::parse(&written);
            assert_eq!((read.servers, read.vips), (owned.servers, owned.vips));
        });
    }
}
