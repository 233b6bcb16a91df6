//! The daemon's memory with thousands of endpoints.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Proxy, TestResult, eventually, scenario};
use serde_json::{Value, json};

use crate::api_server::api_server;

const NODE: &str = "node-3";
/// Services, and endpoints of each.
const SIZE: (u32, u32) = (1000, 10);
/// In KiB, for [`SIZE`]. The resident pages of the program itself are extra: few for the image, more for a test build.
const MAX_DATA: u64 = 16 * 1024;

/// `KUBE_IPVS_MEMORY=5000x50` measures another size, for which there is no bound.
fn size() -> Result<(u32, u32)> {
    let Ok(text) = std::env::var("KUBE_IPVS_MEMORY") else { return Ok(SIZE) };
    let (services, endpoints) = text.split_once('x').context("KUBE_IPVS_MEMORY is SERVICESxENDPOINTS")?;
    Ok((services.parse()?, endpoints.parse()?))
}

/// A line of `/proc/PID/status`, in KiB.
pub(crate) fn memory(proxy: &Proxy, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
}

fn object(kind: &str, version: &str, name: &str, rest: Value) -> Value {
    let labels = json!({ "kubernetes.io/service-name": name });
    let mut object = json!({ "kind": kind, "apiVersion": version, "metadata": { "name": name, "labels": labels } });
    object.as_object_mut().into_iter().for_each(|fields| fields.extend(rest.as_object().cloned().unwrap_or_default()));
    object
}

/// A Service, and the EndpointSlices of up to 100 endpoints that the control plane would make.
fn objects(number: u32, endpoints: u32) -> Vec<Value> {
    let name = format!("app-{number}");
    let vip = Ipv4Addr::from(0x0a61_0001 + number);
    let ports = json!([{ "name": "", "protocol": "TCP", "port": 80, "targetPort": 8080 }]);
    let spec = json!({ "clusterIP": vip, "clusterIPs": [vip], "ports": ports });
    let mut objects = vec![object("Service", "v1", &name, json!({ "spec": spec }))];
    let endpoint = |index: u32| {
        let address = Ipv4Addr::from(0x0a80_0000 + number * endpoints + index);
        json!({ "addresses": [address], "conditions": { "ready": true }, "nodeName": format!("node-{}", index % 5 + 1) })
    };
    let indexes: Vec<u32> = (0..endpoints).collect();
    for (part, indexes) in indexes.chunks(100).enumerate() {
        let endpoints: Vec<Value> = indexes.iter().map(|index| endpoint(*index)).collect();
        let ports = json!([{ "name": "", "protocol": "TCP", "port": 8080 }]);
        let rest = json!({ "addressType": "IPv4", "ports": ports, "endpoints": endpoints });
        let mut slice = object("EndpointSlice", "discovery.k8s.io/v1", &name, rest);
        slice["metadata"]["name"] = json!(format!("{name}-{part}"));
        objects.push(slice);
    }
    objects
}

#[test]
fn ten_thousand_endpoints_take_less_than_sixteen_mib() -> TestResult {
    let (services, endpoints) = size()?;
    scenario(Cluster::builder(), move |cluster| {
        let (api, kubeconfig) = api_server(cluster, None)?;
        for number in 0..services {
            api.put(objects(number, endpoints))?;
        }
        let proxy = cluster.kube_ipvs(NODE)?.start_with_kubeconfig(&kubeconfig, &[])?;
        let node = cluster.at(NODE)?;
        eventually(|| {
            let table = node.ipvsadm()?;
            let reals: usize = table.0.iter().map(|server| server.weights().len()).sum();
            ensure!(reals == (services * endpoints) as usize, "{reals} real servers");
            Ok(())
        })?;
        let [own, resident, peak] = ["RssAnon", "VmRSS", "VmHWM"].map(|name| memory(&proxy, name));
        let (own, resident) = (own?, format!("{} KiB are resident, and were {} at most", resident?, peak?));
        println!("{services} x {endpoints}: {resident}; {own} KiB of it are the data");
        let bound = ((services, endpoints) == SIZE).then_some(MAX_DATA);
        ensure!(
            bound.is_none_or(|most| own < most),
            "{resident}; {own} KiB of it are the data, {MAX_DATA} are allowed"
        );
        Ok(())
    })
}
