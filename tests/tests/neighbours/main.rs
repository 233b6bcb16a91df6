//! kube-ipvs beside firewalls and network managers as Debian packages them. `docs/interop.md` has a table of them.
//!
//! `cargo xtask neighbours` runs these scenarios. The packages are too large for the archive of all other scenarios.

mod debian;
mod firewalls;
mod managers;
mod users;
