//! A folder of manifests, as for `kubectl apply`, without an API server.
//!
//! [`Folder`] is the pure core: file contents in, [`Changes`] out. [`ManifestSource`] is the thin edge that reads
//! changed files. [`follow`] scans again after each change in the folder.

mod document;
mod folder;
mod header;
mod kind;
mod locate;
mod parse;
mod scan;
#[cfg(test)]
mod tests;
mod watch;
mod yaml;

pub use folder::{Content, Folder};
pub use scan::{MAX_FILE_SIZE, ManifestSource};
pub use watch::{RESCAN_INTERVAL, follow};

use super::{Changes, Note, Place, Problem};
