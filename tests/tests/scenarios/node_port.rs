//! Scenario 4: node ports from outside on every node's address, and the ClusterIP from inside.

use scenarios::{Cluster, TestResult, Transport, scenario};

use crate::common::ensure_rotation;

const EXAMPLE: &str = "04-nodeport";

/// Nodes answer whether or not they run a pod.
#[test]
fn every_node_answers_on_the_node_port() -> TestResult {
    let builder = Cluster::builder()
        .pod("my-nginx-1", "node-1", "10.244.58.199")
        .pod("my-nginx-2", "node-2", "10.244.85.198")
        .pod("visitor", "node-3", "10.244.90.9");
    scenario(builder, |cluster| {
        let _servers = [cluster.http("my-nginx-1", 80)?, cluster.http("my-nginx-2", 80)?];
        cluster.manifests.example(EXAMPLE)?;
        let _proxies = cluster.start_proxies(&[])?;
        let reals = ["10.244.58.199:80 1", "10.244.85.198:80 1"];
        for node in cluster.nodes() {
            node.namespace().await_service(&format!("TCP {}:30380", node.ipv4()), &reals)?;
            node.namespace().await_service("TCP 10.10.228.115:80", &reals)?;
        }
        let client = cluster.at("client")?;
        for node in cluster.nodes() {
            ensure_rotation(&client.get_many(&format!("{}:30380", node.ipv4()), 6)?, &["my-nginx-1", "my-nginx-2"])?;
        }
        assert!(client.curl("http://192.168.128.3:30380/")?.starts_with("my-nginx-"));
        for inside in ["node-1", "node-3", "visitor"] {
            let inside = cluster.at(inside)?;
            ensure_rotation(&inside.get_many("10.10.228.115:80", 4)?, &["my-nginx-1", "my-nginx-2"])?;
            // Inside clients can use node ports too, even those of their own node.
            ensure_rotation(&inside.get_many("192.168.128.1:30380", 4)?, &["my-nginx-1", "my-nginx-2"])?;
            ensure_rotation(&inside.get_many("192.168.128.3:30380", 4)?, &["my-nginx-1", "my-nginx-2"])?;
        }
        Ok(())
    })
}

/// `web-nodeport-svc` and `ssh-service1`, whose port differs from its target.
#[test]
fn node_ports_and_target_ports_lead_to_the_right_pods() -> TestResult {
    let builder = Cluster::builder()
        .pod("web-1", "node-1", "10.244.1.16")
        .pod("web-2", "node-2", "10.244.2.20")
        .pod("web-3", "node-2", "10.244.2.21")
        .pod("ssh-1", "node-1", "10.244.1.22")
        .pod("ssh-2", "node-2", "10.244.2.22");
    scenario(builder, |cluster| {
        let _servers = [cluster.http("web-1", 80)?, cluster.http("web-2", 80)?, cluster.http("web-3", 80)?];
        let _ssh = [cluster.echo("ssh-1", Transport::Tcp, 22)?, cluster.echo("ssh-2", Transport::Tcp, 22)?];
        cluster.manifests.example(EXAMPLE)?;
        let _proxies = cluster.start_proxies(&[])?;
        for node in cluster.nodes() {
            let (namespace, address) = (node.namespace(), node.ipv4());
            let reals = ["10.244.1.16:80 1", "10.244.2.20:80 1", "10.244.2.21:80 1"];
            namespace.await_service(&format!("TCP {address}:30080"), &reals)?;
            namespace.await_service("TCP 10.109.102.59:80", &reals)?;
            namespace.await_service(&format!("TCP {address}:30239"), &["10.244.1.22:22 1", "10.244.2.22:22 1"])?;
            namespace.await_service("TCP 10.109.102.60:2222", &["10.244.1.22:22 1", "10.244.2.22:22 1"])?;
        }
        let client = cluster.at("client")?;
        for node in cluster.nodes() {
            let web = client.get_many(&format!("{}:30080", node.ipv4()), 6)?;
            ensure_rotation(&web, &["web-1", "web-2", "web-3"])?;
            for _ in 0..2 {
                let answer = client.echo(Transport::Tcp, &format!("{}:30239", node.ipv4()))?;
                assert!(answer.name.starts_with("ssh-"), "{answer:?}");
            }
        }
        let answer = cluster.at("web-2")?.echo(Transport::Tcp, "10.109.102.60:2222")?;
        assert!(answer.name.starts_with("ssh-"), "{answer:?}");
        // The Service's port is not open on the nodes, nor the node port on the ClusterIP.
        client.expect_refused(Transport::Tcp, "192.168.128.3:2222")?;
        cluster.at("web-2")?.expect_refused(Transport::Tcp, "10.109.102.60:30239")
    })
}
