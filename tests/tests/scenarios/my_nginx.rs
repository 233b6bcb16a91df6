//! Scenario 3: the Service `my-nginx` with a ClusterIP. One of its pods is deleted and returns at another address.

use std::time::Duration;

use scenarios::{Cluster, Load, TestResult, scenario};

const EXAMPLE: &str = "03-my-nginx";
const KEY: &str = "TCP 10.10.178.9:80";

#[test]
fn pod_with_a_new_address_causes_no_failed_request() -> TestResult {
    let builder = Cluster::builder()
        .pod("my-nginx-1", "node-1", "10.244.58.199")
        .pod("my-nginx-2", "node-2", "10.244.85.197")
        .pod("visitor", "node-3", "10.244.90.9");
    scenario(builder, |cluster| {
        let _first = cluster.http("my-nginx-1", 80)?;
        let second = cluster.http("my-nginx-2", 80)?;
        cluster.manifests.example(EXAMPLE)?;
        let with_the_new_address = cluster.manifests.read(EXAMPLE)?;
        cluster.manifests.edit(EXAMPLE, "10.244.85.198", "10.244.85.197")?;
        let _proxies = cluster.start_proxies(&[])?;
        for node in cluster.nodes() {
            node.namespace().await_service(KEY, &["10.244.58.199:80 1", "10.244.85.197:80 1"])?;
        }
        let from_the_pods = [
            cluster.at("visitor")?.curl("http://10.244.58.199/")?,
            cluster.at("visitor")?.curl("http://10.244.85.197/")?,
        ];
        let mut through_the_service = [
            cluster.at("visitor")?.curl("http://10.10.178.9/")?,
            cluster.at("visitor")?.curl("http://10.10.178.9:80/")?,
        ];
        through_the_service.sort();
        assert_eq!(from_the_pods, through_the_service);

        let load = Load::start(cluster.at("visitor")?, "10.10.178.9:80", Duration::from_millis(5))?;
        cluster.manifests.remove_endpoint(EXAMPLE, "10.244.85.197")?;
        for node in cluster.nodes() {
            node.namespace().await_serving(KEY, &["10.244.58.199:80"])?;
        }
        // The pod first answers its pending requests, as a server that shuts down gracefully.
        load.go_on(1)?;
        drop(second);
        cluster.remove_pod("my-nginx-2")?;
        assert_eq!(cluster.at("node-1")?.get_many("10.10.178.9:80", 4)?, ["my-nginx-1"; 4]);

        cluster.add_pod("my-nginx-2", "node-2", "10.244.85.198")?;
        let _second = cluster.http("my-nginx-2", 80)?;
        cluster.manifests.write(EXAMPLE, &with_the_new_address)?;
        for node in cluster.nodes() {
            node.namespace().await_serving(KEY, &["10.244.58.199:80", "10.244.85.198:80"])?;
        }
        load.stop(20, "a pod that asks all the time")?;
        for from in ["node-1", "node-2", "node-3"] {
            let mut answers = cluster.at(from)?.get_many("10.10.178.9:80", 2)?;
            answers.sort();
            assert_eq!(answers, ["my-nginx-1", "my-nginx-2"], "from {from}");
        }
        Ok(())
    })
}
