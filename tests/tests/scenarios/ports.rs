//! The daemon's own ports: those of kube-proxy, and the health check node ports.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Namespace, Service, Slice, TestResult, Transport, eventually, scenario, time_out};

use crate::common::{WEB, WEB_ADDRESS, all_web, await_web, deploy_web, web_cluster, web_service, web_slice};

const NODE: &str = "node-3";

fn ask(from: &Namespace, url: &str) -> Result<(String, String)> {
    let text = from.run("curl", &["-sS", "-g", "--max-time", &time_out(), "-w", "\n%{http_code}", url])?;
    let (body, status) = text.rsplit_once('\n').context("curl says nothing")?;
    Ok((status.to_owned(), body.to_owned()))
}

/// Every path on kube-proxy's ports, from the node itself and from outside. The health port answers every client, the
/// metrics port only the node.
#[test]
fn health_and_metrics_ports_answer_as_kube_proxy_does() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let mut proxy = cluster.start_proxy(NODE, &["--ipvs-scheduler=lc"])?;
        await_web(cluster, NODE)?;
        let (node, client) = (cluster.at(NODE)?, cluster.at("client")?);
        let own = cluster.node(NODE)?;
        let metrics = [
            ("/proxyMode", "ipvs"),
            ("/healthz", "ok"),
            ("/metrics", "kubeproxy_sync_proxy_rules_last_timestamp_seconds"),
            ("/metrics/slis", "kubernetes_healthcheck{"),
            ("/configz", r#""scheduler":"lc""#),
        ];
        for (path, expected) in metrics {
            let (status, body) = ask(node, &format!("http://127.0.0.1:10249{path}"))?;
            ensure!(status == "200" && body.contains(expected), "{path}: {status} {body}");
            let outside = ask(client, &format!("http://{}:10249{path}", own.ipv4()));
            ensure!(outside.is_err(), "{path} from outside: {outside:?}");
        }
        for path in ["/healthz", "/livez"] {
            let urls = [
                (node, format!("http://127.0.0.1:10256{path}")),
                (client, format!("http://{}:10256{path}", own.ipv4())),
                (client, format!("http://[{}]:10256{path}", own.ipv6())),
            ];
            for (from, url) in urls {
                eventually(|| {
                    let (status, body) = ask(from, &url)?;
                    ensure!(status == "200" && body.contains(r#""healthy":true"#), "{url}: {status} {body}");
                    ensure!(body.contains("nodeEligible") == (path == "/healthz"), "{url}: {body}");
                    Ok(())
                })?;
            }
        }
        let taints = "[{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]";
        let leaves = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {NODE}}}\nspec: {{taints: {taints}}}\n");
        cluster.manifests.write("node", &leaves)?;
        eventually(|| {
            let (status, body) = ask(client, &format!("http://{}:10256/healthz", own.ipv4()))?;
            ensure!(status == "503" && body.contains(r#""nodeEligible":false"#), "{status} {body}");
            Ok(())
        })?;
        eventually(|| {
            let (status, body) = ask(client, &format!("http://{}:10256/livez", own.ipv4()))?;
            ensure!(status == "200", "{status} {body}");
            Ok(())
        })?;
        // Even while the health check fails, kube-ipvs serves every client.
        cluster.at("visitor")?.get(WEB_ADDRESS)?;
        proxy.check_alive()
    })
}

#[test]
fn failed_sync_is_reported_and_retried() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let (node, client) = (cluster.at(NODE)?, cluster.at("client")?);
        // Another program has a set with the same name and another type.
        node.run("nft", &["add", "table", "ip", "kube-ipvs"])?;
        node.run("nft", &["add", "set", "ip", "kube-ipvs", "served", "{ type ipv4_addr; }"])?;
        let mut proxy = cluster.start_proxy(NODE, &["--ipvs-sync-period", "1s"])?;
        let own = cluster.node(NODE)?.ipv4();
        let await_status = |expected: &str| {
            eventually(|| {
                for path in ["/healthz", "/livez", "/readyz"] {
                    let (status, body) = ask(client, &format!("http://{own}:10256{path}"))?;
                    ensure!(status == expected, "{path}: {status} {body}");
                }
                Ok(())
            })
        };
        await_status("503")?;
        // A slow daemon can also be unhealthy before it has found the table.
        eventually(|| {
            let log = proxy.log_text();
            ensure!(log.contains("ERROR") && log.contains("nftables"), "{log}");
            Ok(())
        })?;
        node.run("nft", &["delete", "table", "ip", "kube-ipvs"])?;
        await_web(cluster, NODE)?;
        await_status("200")?;
        cluster.at("visitor")?.get(WEB_ADDRESS)?;
        proxy.check_alive()
    })
}

#[test]
fn ipv4_is_served_where_nftables_has_no_ipv6() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let node = cluster.at(NODE)?;
        // nftables rejects the table, as on such a kernel: another program has a set of another type in it.
        node.run("nft", &["add", "table", "ip6", "kube-ipvs"])?;
        node.run("nft", &["add", "set", "ip6", "kube-ipvs", "served", "{ type ipv6_addr; }"])?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_web(cluster, NODE)?;
        cluster.at("visitor")?.get(WEB_ADDRESS)?;
        eventually(|| {
            let log = proxy.log_text();
            ensure!(log.contains("nftables has no table for IPv6"), "{log}");
            Ok(())
        })
    })
}

/// From outside, the port answers 503, then 200, then 503, as the Service's only local endpoint comes and goes.
#[test]
fn health_check_node_port_follows_the_local_endpoints() -> TestResult {
    scenario(Cluster::builder().pod("web", NODE, "10.244.3.2"), |cluster| {
        let _proxies = [cluster.start_proxy(NODE, &[])?, cluster.start_proxy("node-2", &[])?];
        let service = Service::new("web")
            .line("type: LoadBalancer")
            .line("externalTrafficPolicy: Local")
            .line("healthCheckNodePort: 32000")
            .cluster_ip("10.96.0.7")
            .load_balancer_ip("203.0.113.7")
            .port_line("port: 80, targetPort: 8080, nodePort: 30080");
        cluster.manifests.write("web", &service)?;
        let client = cluster.at("client")?;
        let await_answer = |node: &str, status: &str, endpoints: usize| {
            let url = format!("http://{}:32000/any/path", cluster.node(node)?.ipv4());
            eventually(|| {
                let text = client.run("curl", &["-sS", "-i", "--max-time", &time_out(), &url])?.to_lowercase();
                let expected = [
                    format!("http/1.1 {status} "),
                    format!("x-load-balancing-endpoint-weight: {endpoints}\r\n"),
                    format!(r#""localendpoints":{endpoints}"#),
                    r#""service":{"name":"web","namespace":"default"}"#.into(),
                    r#""serviceproxyhealthy":true"#.into(),
                ];
                let missing = expected.iter().find(|expected| !text.contains(*expected));
                ensure!(missing.is_none(), "{node}: {missing:?} is not in {text}");
                Ok(())
            })
        };
        let slice = || Slice::of("web").port(8080);
        for round in 0..2 {
            cluster.manifests.write("slice", &slice())?;
            await_answer(NODE, "503", 0).with_context(|| format!("round {round}"))?;
            await_answer("node-2", "503", 0)?;
            cluster.manifests.write("slice", &slice().ready("10.244.3.2").on(NODE))?;
            await_answer(NODE, "200", 1)?;
            await_answer("node-2", "503", 0)?;
        }
        cluster.manifests.edit("web", "externalTrafficPolicy: Local", "externalTrafficPolicy: Cluster")?;
        eventually(|| client.expect_refused(Transport::Tcp, &format!("{}:32000", cluster.node(NODE)?.ipv4())))
    })
}

/// The counters of a virtual server in `ipvsadm -Ln --stats --exact`: connections, packets and bytes in and out.
fn counters(node: &Namespace, key: &str) -> Result<[u64; 5]> {
    let text = node.run("ipvsadm", &["-Ln", "--stats", "--exact"])?;
    let (protocol, address) = key.split_once(' ').context("a key")?;
    let line = text.lines().find(|line| line.starts_with(protocol) && line.contains(&format!(" {address} ")));
    let words = line.with_context(|| format!("no {key} in {text}"))?.split_whitespace().skip(2);
    let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>()?;
    let [connections, packets_in, packets_out, bytes_in, bytes_out] = numbers[..] else {
        anyhow::bail!("not five counters: {text}")
    };
    Ok([connections, packets_in, packets_out, bytes_in, bytes_out])
}

fn scrape(node: &Namespace) -> Result<BTreeMap<String, f64>> {
    let text = node.curl("http://127.0.0.1:10249/metrics")?;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line}"))?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

/// The metrics also count the repairs of drift.
#[test]
fn metrics_agree_with_the_kernels_tools() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let _proxy = cluster.start_proxy(NODE, &["--ipvs-sync-period=2s"])?;
        await_web(cluster, NODE)?;
        let node = cluster.at(NODE)?;
        cluster.at("visitor")?.get_many(WEB_ADDRESS, 30)?;
        let of = |kind: &str, direction: &str| {
            format!(r#"kube_ipvs_service_{kind}_total{{{direction}service_name="web",service_namespace="default"}}"#)
        };
        // The kernel updates its counters every two seconds, and connections can still close. In the end both agree.
        let metrics = eventually(|| {
            let (before, metrics) = (counters(node, WEB)?, scrape(node)?);
            let (inwards, outwards) = (r#"direction="in","#, r#"direction="out","#);
            let names = [
                of("connections", ""),
                of("packets", inwards),
                of("packets", outwards),
                of("bytes", inwards),
                of("bytes", outwards),
            ];
            let metered = names.map(|name| metrics.get(&name).copied().unwrap_or_default() as u64);
            ensure!(metered == before && metered[0] == 30, "metrics say {metered:?}, the kernel has {before:?}");
            ensure!(metered.iter().all(|counter| *counter >= 30), "{metered:?}");
            Ok(metrics)
        })?;
        let table = node.ipvsadm()?;
        let of_metric = |name: &str| metrics.get(name).copied().with_context(|| format!("no {name}"));
        ensure!(of_metric("kube_ipvs_virtual_servers")? == table.0.len() as f64);
        let reals: usize = table.0.iter().map(|server| server.real_servers.len()).sum();
        ensure!(of_metric("kube_ipvs_real_servers")? == reals as f64);
        ensure!(of_metric("kube_ipvs_drift_repaired_total")? == 0.0);
        let limit: f64 = node.run("sysctl", &["-n", "net.netfilter.nf_conntrack_max"])?.trim().parse()?;
        ensure!(of_metric("kube_ipvs_conntrack_entries_limit")? == limit);
        ensure!((1.0..limit).contains(&of_metric("kube_ipvs_conntrack_entries")?));
        for (operation, subsystem) in [("apply", "ipvs"), ("read", "nftables"), ("apply", "addresses")] {
            let labels = format!(r#"{{operation="{operation}",subsystem="{subsystem}"}}"#);
            ensure!(of_metric(&format!("kube_ipvs_netlink_seconds_total{labels}"))? > 0.0);
        }
        let held = || cluster.at("visitor")?.connect(Transport::Tcp, WEB_ADDRESS);
        let _held = [held()?, held()?, held()?];
        node.run("ipvsadm", &["-d", "-t", WEB_ADDRESS, "-r", "10.244.1.2:8080"])?;
        await_web(cluster, NODE)?;
        cluster.manifests.write("web", &web_service())?;
        cluster.manifests.write("web-slice", &web_slice(&all_web()[..1]))?;
        eventually(|| {
            let metrics = scrape(node)?;
            let repaired = metrics.get("kube_ipvs_drift_repaired_total").copied();
            ensure!(repaired == Some(1.0), "{repaired:?} repaired");
            let draining = metrics.get("kube_ipvs_draining_endpoints").copied();
            ensure!(draining == Some(2.0), "{draining:?} drain");
            Ok(())
        })
    })
}
