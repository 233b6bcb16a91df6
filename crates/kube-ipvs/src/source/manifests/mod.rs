//! A folder of manifests: the files that one would give to `kubectl apply`, without an API server.
//!
//! [`Folder`] is the pure core: contents of files in, [`Changes`] out. [`ManifestSource`] is the thin edge that
//! reads the files that changed, and [`follow`] does so whenever something happens in the folder.

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
