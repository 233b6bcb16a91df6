//! Annotations of a Service: scheduler, hashing, weights, drain time.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use scenarios::{
    Cluster, Conversation, Failure, Namespace, Server, Service, TestResult, Transport, eventually, scenario, tally,
};

use crate::common::{WEB, WEB_ADDRESS, WEB_PODS, all_web, web_cluster, web_service, web_slice};

const NODE: &str = "node-1";

fn deploy(cluster: &Cluster, annotations: &[(&str, &str)]) -> Result<Vec<Server>> {
    cluster.manifests.write("web", &annotated(annotations))?;
    cluster.manifests.write("web-slice", &web_slice(&all_web()))?;
    WEB_PODS.iter().map(|(name, ..)| cluster.http(name, 8080)).collect()
}

fn annotated(annotations: &[(&str, &str)]) -> Service {
    annotations.iter().fold(web_service(), |service, (name, value)| service.annotation(name, value))
}

fn await_scheduler(node: &Namespace, wanted: &str) -> Result<()> {
    eventually(|| {
        let table = node.ipvsadm()?;
        let said = table.service(WEB).map(|service| format!("{} {}", service.scheduler, service.flags));
        ensure!(said.as_deref().map(str::trim) == Some(wanted), "{said:?} instead of {wanted}");
        Ok(())
    })
}

#[test]
fn every_scheduler_and_flag_is_read_back() -> TestResult {
    scenario(web_cluster(), |cluster| {
        // kube-ipvs honours these two schedulers only if they are loaded. A kernel that loads them while it removes a
        // namespace can hang.
        Command::new("modprobe").args(["-a", "ip_vs_lblc", "ip_vs_lblcr"]).status()?;
        let _servers = deploy(cluster, &[("scheduler", "fo")])?;
        let node = cluster.at(NODE)?;
        // By default kube-ipvs accepts only schedulers that need no further kernel module.
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_scheduler(node, "rr")?;
        let log = proxy.log_text();
        ensure!(log.contains("kube-ipvs.io/scheduler: this value needs --annotations=all"), "{log}");
        proxy.terminate()?;
        cluster.manifests.write("web", &annotated(&[]))?;
        let proxy = cluster.start_proxy(NODE, &["--annotations=all"])?;
        let plain = ["wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sed", "nq", "fo", "ovf"];
        for scheduler in plain {
            cluster.manifests.write("web", &annotated(&[("scheduler", scheduler)]))?;
            await_scheduler(node, scheduler)?;
            node.get(WEB_ADDRESS)?;
        }
        let hashing: [(&[(&str, &str)], &str); 6] = [
            (&[("scheduler", "sh")], "sh (sh-fallback)"),
            (&[("scheduler", "sh"), ("hash-on", "address-and-port")], "sh (sh-fallback,sh-port)"),
            (&[("scheduler", "sh"), ("hash-fallback", "false")], "sh"),
            (&[("scheduler", "mh")], "mh (mh-fallback,mh-port)"),
            (&[("scheduler", "mh"), ("hash-on", "address")], "mh (mh-fallback)"),
            (&[("scheduler", "mh"), ("hash-fallback", "false")], "mh (mh-port)"),
        ];
        for (annotations, wanted) in hashing {
            cluster.manifests.write("web", &annotated(annotations))?;
            await_scheduler(node, wanted)?;
            node.get(WEB_ADDRESS)?;
        }
        // Some kernels lack this scheduler. kube-ipvs then uses the node's default for the Service, and logs that.
        cluster.manifests.write("web", &annotated(&[("scheduler", "twos")]))?;
        eventually(|| {
            let table = node.ipvsadm()?;
            let scheduler = table.service(WEB).map(|service| service.scheduler.clone()).unwrap_or_default();
            let said = proxy.log_text().contains("is scheduled by rr: the kernel has no scheduler twos");
            ensure!(scheduler == if said { "rr" } else { "twos" }, "{scheduler}");
            Ok(())
        })?;
        node.get(WEB_ADDRESS)?;
        // kube-ipvs reports an invalid annotation and serves the Service without it.
        cluster.manifests.write("web", &annotated(&[("scheduler", "fastest")]))?;
        let message =
            "Service default/web: metadata.annotations: annotation kube-ipvs.io/scheduler: \"fastest\" is not";
        eventually(|| {
            let log = proxy.log_text();
            ensure!(log.contains(message), "{log}");
            Ok(())
        })?;
        node.get(WEB_ADDRESS)?;
        Ok(())
    })
}

/// `web-1` is on the client's node, the others are on another one.
#[test]
fn connections_are_spread_by_weight() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let wrr = ("scheduler", "wrr");
        let _servers = deploy(cluster, &[wrr, ("local-endpoint-weight", "3")])?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        let node = cluster.at(NODE)?;
        let local = ["10.244.1.2:8080 3", "10.244.2.2:8080 1", "10.244.2.3:8080 1"];
        node.await_service(WEB, &local)?;
        let counts = |expected: [usize; 3]| {
            let counts = tally(node.get_many(WEB_ADDRESS, 100)?);
            let counts: Vec<usize> =
                WEB_PODS.iter().map(|(name, ..)| counts.get(*name).copied().unwrap_or(0)).collect();
            let near = |(count, expected): (&usize, &usize)| count.abs_diff(*expected) <= 5;
            ensure!(counts.iter().zip(&expected).all(near), "{counts:?}, not {expected:?}");
            Ok(())
        };
        counts([60, 20, 20])?;
        // Weights by node. A restart repairs a drifted weight.
        cluster.manifests.write("web", &annotated(&[wrr, ("node-weights", "node-2=2,node-1=1")]))?;
        let by_node = ["10.244.1.2:8080 1", "10.244.2.2:8080 2", "10.244.2.3:8080 2"];
        node.await_service(WEB, &by_node)?;
        counts([20, 40, 40])?;
        proxy.terminate()?;
        node.run("ipvsadm", &["-e", "-t", WEB_ADDRESS, "-r", "10.244.2.2:8080", "-m", "-w", "9"])?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        node.await_service(WEB, &by_node)?;
        // Weights by slice. A draining endpoint has weight 0, and gets its weight back when it is ready again.
        cluster.manifests.write("web", &annotated(&[wrr]))?;
        let heavy = |conditions: &str| {
            let slice = scenarios::Slice::of("web").name("web-heavy").port(8080).annotation("weight", "8");
            cluster.manifests.write("web-heavy", &slice.endpoint("10.244.2.3", conditions).on("node-2"))
        };
        cluster.manifests.write("web-slice", &web_slice(&["web-1", "web-2"]))?;
        heavy("ready: true")?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 1", "10.244.2.3:8080 8"])?;
        counts([10, 10, 80])?;
        heavy("ready: false")?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 1", "10.244.2.3:8080 0"])?;
        heavy("ready: true")?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 1", "10.244.2.3:8080 8"])?;
        // The annotation sets weight 0: such endpoints get no new connections.
        cluster.manifests.write("web", &annotated(&[wrr, ("node-weights", "node-2=0")]))?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 0", "10.244.2.3:8080 0"])?;
        counts([100, 0, 0])?;
        // If a scheduler ignores weights, kube-ipvs keeps it and reports that.
        let manifests = cluster.manifests.directory().to_string_lossy().into_owned();
        cluster.manifests.write("web", &annotated(&[]))?;
        await_scheduler(node, "rr")?;
        let explain = ["explain", "web", "--manifests", &manifests, "--hostname-override", NODE];
        let explained = cluster.kube_ipvs(NODE)?.run(&explain)?;
        ensure!(explained.contains("has weights, and its scheduler rr ignores them"), "{explained}");
        ensure!(explained.contains("10.244.2.3:8080 weight 8"), "{explained}");
        eventually(|| {
            let log = proxy.log_text();
            ensure!(log.contains("has weights, and its scheduler rr ignores them"), "{log}");
            Ok(())
        })
    })
}

#[test]
fn hashed_client_keeps_its_pod_and_falls_back_while_it_drains() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster, &[("scheduler", "sh")])?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        let node = cluster.at("node-3")?;
        await_scheduler(node, "sh (sh-fallback)")?;
        node.await_serving(WEB, &["10.244.1.2:8080", "10.244.2.2:8080", "10.244.2.3:8080"])?;
        let visitor = cluster.at("visitor")?;
        let one_pod = |count| {
            let names = tally(visitor.get_many(WEB_ADDRESS, count)?);
            ensure!(names.len() == 1, "one address, several pods: {names:?}");
            names.into_keys().next().ok_or_else(|| anyhow::anyhow!("no answer"))
        };
        let favourite = one_pod(20)?;
        // Hashing on address and port spreads the client's connections.
        cluster.manifests.write("web", &annotated(&[("scheduler", "mh")]))?;
        await_scheduler(node, "mh (mh-fallback,mh-port)")?;
        let spread = tally(visitor.get_many(WEB_ADDRESS, 60)?);
        ensure!(spread.len() == 3, "{spread:?}");
        cluster.manifests.write("web", &annotated(&[("scheduler", "sh")]))?;
        await_scheduler(node, "sh (sh-fallback)")?;
        ensure!(one_pod(5)? == favourite, "the same hash leads elsewhere");
        // If the client's pod drains, another pod answers, always the same one. Without the fall-back no pod answers.
        for (scheduler, on, flags) in [("sh", "address", "sh-fallback"), ("mh", "address", "mh-fallback")] {
            let hashed = [("scheduler", scheduler), ("hash-on", on)];
            cluster.manifests.write("web-slice", &web_slice(&all_web()))?;
            cluster.manifests.write("web", &annotated(&hashed))?;
            await_scheduler(node, &format!("{scheduler} ({flags})"))?;
            node.await_serving(WEB, &["10.244.1.2:8080", "10.244.2.2:8080", "10.244.2.3:8080"])?;
            let favourite = one_pod(10)?;
            let address = WEB_PODS.iter().find(|pod| pod.0 == favourite).map(|pod| pod.2).unwrap_or_default();
            let slice = web_slice(&all_web()).to_string().replace(
                &format!("[\"{address}\"]\n  conditions: {{ ready: true"),
                &format!("[\"{address}\"]\n  conditions: {{ ready: false"),
            );
            cluster.manifests.write("web-slice", &slice)?;
            eventually(|| {
                let weights = node.ip_vs()?.weights(WEB).unwrap_or_default();
                ensure!(weights.contains(&format!("{address}:8080 0")), "{weights:?}");
                Ok(())
            })?;
            ensure!(one_pod(10)? != favourite, "{scheduler}: a draining pod gets new connections");
            cluster.manifests.write("web", &annotated(&[&hashed[..], &[("hash-fallback", "false")]].concat()))?;
            await_scheduler(node, scheduler)?;
            let outcome = visitor.try_get(WEB_ADDRESS)?;
            ensure!(matches!(outcome, Err(Failure::Refused)), "{scheduler} without fall-back: {outcome:?}");
        }
        Ok(())
    })
}

fn connection_to(cluster: &Cluster, pod: &str) -> Result<Conversation> {
    loop {
        let mut connection = cluster.at("visitor")?.connect(Transport::Tcp, WEB_ADDRESS)?;
        if connection.say()?.name == pod {
            return Ok(connection);
        }
    }
}

/// The endpoint vanished from the slice, and its connection does not end.
#[test]
fn draining_endpoint_is_removed_after_max_drain_time() -> TestResult {
    const TIME: Duration = Duration::from_secs(3);
    scenario(web_cluster(), |cluster| {
        let may_drain = |time: &str| cluster.manifests.write("web", &annotated(&[("max-drain-time", time)]));
        let put = |pods: &[&str]| cluster.manifests.write("web-slice", &web_slice(pods));
        may_drain("24h")?;
        put(&["web-1", "web-2"])?;
        let _servers = [cluster.echo("web-1", Transport::Tcp, 8080)?, cluster.echo("web-2", Transport::Tcp, 8080)?];
        let _proxy = cluster.start_proxy("node-3", &[])?;
        let node = cluster.at("node-3")?;
        let both = ["10.244.1.2:8080 1", "10.244.2.2:8080 1"];
        node.await_service(WEB, &both)?;
        // While it drains it keeps its connection.
        let mut held = connection_to(cluster, "web-2")?;
        put(&["web-1"])?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 0"])?;
        ensure!(held.say()?.name == "web-2", "it keeps its connection for a while");
        put(&["web-1", "web-2"])?;
        node.await_service(WEB, &both)?;
        ensure!(held.say()?.name == "web-2", "it keeps its connection when it comes back");
        // After the drain time the endpoint is gone, and not before; otherwise the connection would keep it.
        may_drain("3s")?;
        cluster.await_settled("node-3", &[])?;
        let start = Instant::now();
        put(&["web-1"])?;
        node.await_service(WEB, &["10.244.1.2:8080 1"])?;
        ensure!(start.elapsed() >= TIME, "gone after {:?}", start.elapsed());
        ensure!(held.say() == Err(Failure::Reset), "what goes through it is reset");
        may_drain("0s")?;
        put(&["web-1", "web-2"])?;
        node.await_service(WEB, &both)?;
        let mut held = connection_to(cluster, "web-2")?;
        put(&["web-1"])?;
        node.await_service(WEB, &["10.244.1.2:8080 1"])?;
        ensure!(held.say() == Err(Failure::Reset), "what goes through it is reset");
        Ok(())
    })
}
