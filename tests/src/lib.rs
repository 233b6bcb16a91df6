//! A Kubernetes cluster of network namespaces on one real kernel, for packet-level tests of kube-ipvs.
//!
//! IPVS, nftables, conntrack and network devices all belong to a network namespace, so a whole cluster fits into one
//! kernel. Nodes, pods and outside hosts are namespaces, connected by veth pairs and bridges. Every node runs its own
//! kube-ipvs. The servers in the pods and the clients are real. `ipvsadm`, `ip` and `nft`, which share no code with the
//! daemon, read back its work.
//!
//! ```no_run
//! use scenarios::{Cluster, Service, Slice, TestResult, scenario};
//!
//! fn answers_on_its_cluster_ip() -> TestResult {
//!     let cluster = Cluster::builder().pod("web", "node-1", "10.244.1.2");
//!     scenario(cluster, |cluster| {
//!         let _server = cluster.http("web", 8080)?;
//!         cluster.manifests.write("web", &Service::new("web").cluster_ip("10.96.0.7").port(80))?;
//!         cluster.manifests.write("web-slice", &Slice::of("web").port(8080).ready("10.244.1.2"))?;
//!         let _proxies = cluster.start_proxies(&[])?;
//!         cluster.at("node-2")?.await_service("TCP 10.96.0.7:80", &["10.244.1.2:8080 1"])?;
//!         assert_eq!(cluster.at("node-2")?.curl("http://10.96.0.7/")?, "web");
//!         Ok(())
//!     })
//! }
//! ```

mod api;
mod attempt;
mod client;
mod cluster;
mod control_plane;
mod daemon_set;
mod flows;
mod load;
mod manifests;
mod mark;
mod monitor;
mod namespace;
mod oracle;
mod programs;
mod proxy;
mod raw;
mod refused;
mod scenario;
mod servers;
mod wait;

pub use api::{ApiServer, Fault, Kind, StreamingLists};
pub use attempt::Attempt;
pub use client::{Answer, Conversation, Failure, KeepAlive, echo_here, get_here, socket_address, tally};
pub use cluster::{Cluster, ClusterBuilder, Diagnosis, Node};
pub use control_plane::{ControlPlane, Request};
pub use daemon_set::DaemonPod;
pub use flows::Flow;
pub use load::{Load, Report};
pub use manifests::{Manifests, Service, Slice, of_project};
pub use monitor::Monitor;
pub use namespace::Namespace;
pub use oracle::{RealServer, Sets, Table, VIP_DEVICE, VirtualServer};
pub use programs::{Program, database, dig, dns_server, dns_server_at, keepalived, sql};
pub use proxy::{Proxy, ProxyCommand};
pub use raw::{send_out_of_window, send_syn_as};
pub use scenario::{TestResult, scenario};
pub use servers::{Server, Transport};
pub use wait::{eventually, patience, slowness, throughout, time_out};
