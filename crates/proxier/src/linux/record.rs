//! A copy of the record of ownership, in a file: what is ours is known also after somebody emptied nftables while we
//! were away.
//!
//! Lines are appended: `+` before something is made, `-` after it was removed. A line that was cut off by a crash is
//! passed over. The file is to be where it ends with the kernel's state, such as /run.

use std::{
    collections::BTreeSet,
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{
    model::{PortNumber, Protocol, VirtualServerKey},
    plan::Change,
};

/// What the file says is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) servers: BTreeSet<VirtualServerKey>,
    pub(super) vips: BTreeSet<IpAddr>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    file: Option<File>,
}

impl Record {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None }
    }

    /// Reads it; nothing is ours where there is no file.
    pub(super) fn read(&mut self) -> io::Result<Owned> {
        match fs::read_to_string(&self.path) {
            Ok(text) => {
                let owned = Owned::parse(&text);
                self.shorten(text.lines().count(), &owned)?;
                Ok(owned)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Owned::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it anew, with nothing but what is ours, once most of its lines have been taken back.
    fn shorten(&mut self, lines: usize, owned: &Owned) -> io::Result<()> {
        const LONG: usize = 1_000;
        if lines < LONG || lines < 2 * (owned.servers.len() + owned.vips.len()) {
            return Ok(());
        }
        let draft = self.path.with_extension("new");
        fs::write(&draft, owned.text())?;
        fs::rename(&draft, &self.path)?;
        self.file = None;
        Ok(())
    }

    /// Notes what is about to be made.
    pub(super) fn intend<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) -> io::Result<()> {
        self.append(changes.filter_map(|change| match change {
            Change::AddServer { key, .. } => Some(line('+', key)),
            Change::Bind(address) => Some(line('+', address)),
            _ => None,
        }))
    }

    /// Notes what was removed.
    pub(super) fn forget<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) -> io::Result<()> {
        self.append(changes.filter_map(|change| match change {
            Change::RemoveServer(key) => Some(line('-', key)),
            Change::Unbind(address) => Some(line('-', address)),
            _ => None,
        }))
    }

    /// Removes the file: nothing is ours any more.
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
            none => {
                let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
                if file.metadata()?.len() > 0 {
                    // The last line may have been cut off: it is neither to become one with the next, nor to mean
                    // anything.
                    file.write_all(b"?\n")?;
                }
                none.insert(file)
            }
        };
        file.write_all(lines.as_bytes())
    }
}

fn line(sign: char, what: impl Display) -> String {
    format!("{sign}{what}\n")
}

impl Owned {
    fn parse(text: &str) -> Self {
        let mut owned = Self::default();
        // The last line may have been cut off; a whole one ends.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
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

    fn text(&self) -> String {
        let servers = self.servers.iter().map(|key| line('+', key));
        servers.chain(self.vips.iter().map(|address| line('+', address))).collect()
    }
}

/// Reads `TCP 10.0.0.1:80`.
fn key(text: &str) -> Option<VirtualServerKey> {
    let (protocol, address) = text.split_once(' ')?;
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = protocols.into_iter().find(|known| known.to_string() == protocol)?;
    let address: SocketAddr = address.parse().ok()?;
    Some(VirtualServerKey { address: address.ip(), protocol, port: PortNumber::new(address.port())? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn what_was_appended_is_read() {
        let text = "+TCP 10.0.0.1:80\n+UDP [fd00::1]:53\n+10.0.0.1\n-TCP 10.0.0.1:80\nnonsense\n\n+ä\n+fd00::1\n+10.0.0";
        let owned = Owned::parse(text);
        assert_eq!(owned.servers, [testing::key("UDP [fd00::1]:53")].into());
        assert_eq!(owned.vips, ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into());
        assert_eq!(Owned::parse(&owned.text()), owned);
    }

    #[test]
    fn a_line_that_was_cut_off_takes_no_other_with_it() {
        let directory = std::env::temp_dir().join(format!("kube-ipvs-cut-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut record = Record::at(&directory.join("owned"));
        fs::write(&record.path, "+10.0.0.1\n+TCP 10.0.0.1:8").unwrap();
        record.intend([Change::Bind("10.0.0.2".parse().unwrap())].iter()).unwrap();
        let owned = record.read().unwrap();
        assert_eq!(owned.vips, ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()].into());
        assert_eq!(owned.servers, [].into());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn it_is_kept_in_a_file() {
        let directory = std::env::temp_dir().join(format!("kube-ipvs-record-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut record = Record::at(&directory.join("owned"));
        assert_eq!(record.read().unwrap(), Owned::default());
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        record.intend([Change::Bind(address)].iter()).unwrap();
        assert_eq!(record.read().unwrap().vips, [address].into());
        record.forget([Change::Unbind(address)].iter()).unwrap();
        assert_eq!(record.read().unwrap(), Owned::default());
        // It does not grow for ever.
        for _ in 0..600 {
            record.intend([Change::Bind(address)].iter()).unwrap();
            record.forget([Change::Unbind(address)].iter()).unwrap();
        }
        record.intend([Change::Bind(address)].iter()).unwrap();
        assert_eq!(record.read().unwrap().vips, [address].into());
        assert_eq!(fs::read_to_string(&record.path).unwrap(), "+10.0.0.1\n");
        record.forget([Change::Unbind(address)].iter()).unwrap();
        assert_eq!(record.read().unwrap(), Owned::default());
        fs::remove_dir_all(&directory).unwrap();
    }
}
