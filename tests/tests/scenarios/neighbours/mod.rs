//! Other programs that usually run on the nodes of a cluster. `docs/interop.md` has a table of them.
//!
//! If a program is not in Debian, or if it needs an init system, the scenarios make the same devices, addresses and
//! rules as that program.

mod announcers;
mod dns_cache;
mod policies;
