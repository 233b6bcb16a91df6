//! netlink-batch
