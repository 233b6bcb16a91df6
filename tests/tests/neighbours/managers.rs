//! NetworkManager and systemd-networkd on a node, with and without the files that `docs/interop.md` has for them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenarios::{
    Cluster, ClusterBuilder, Load, Monitor, Program, Server, Service, Slice, TestResult, VIP_DEVICE, eventually,
    scenario,
};

use crate::debian::Debian;

const PAGE: &str = include_str!("../../../docs/interop.md");
const NODE: &str = "node-3";
/// kube-ipvs finds drift by the kernel's notices only.
const FLAGS: [&str; 2] = ["--ipvs-sync-period", "1h"];
const VIPS: [&str; 2] = ["10.96.0.80", "fd00:10:96::80"];

fn builder() -> ClusterBuilder {
    let pods = ["10.244.1.2 fd00:10:244:1::2", "10.244.3.9 fd00:10:244:3::9"];
    Cluster::builder().pod("web", "node-1", pods[0]).pod("visitor", NODE, pods[1])
}

fn deploy(cluster: &Cluster) -> Result<Server> {
    let slice = |name, address| Slice::of("web").name(name).port(8080).ready(address).on("node-1").to_string();
    let objects = [
        Service::new("web").cluster_ip(VIPS[0]).cluster_ip(VIPS[1]).port_line("port: 80, targetPort: 8080").to_string(),
        slice("web-4", "10.244.1.2"),
        slice("web-6", "fd00:10:244:1::2"),
    ];
    cluster.manifests.write("web", &objects.join("---\n"))?;
    cluster.http("web", 8080)
}

/// Configures the manager as the page says: the block that begins with the file's name.
fn configure_as_documented(debian: &Debian, file: &str) -> Result<()> {
    let head = format!("```ini\n# /etc/{file}\n");
    let block = PAGE.split_once(&head).and_then(|(_, rest)| rest.split_once("```"));
    debian.configure(file, block.with_context(|| format!("the page has no {file}"))?.0)
}

/// The devices of kube-ipvs and their addresses have not changed.
fn ensure_untouched(monitor: &Monitor, after: &str) -> Result<()> {
    let touched: Vec<_> = monitor.notices()?.into_iter().filter(|line| line.contains(VIP_DEVICE)).collect();
    ensure!(touched.is_empty(), "{after}:\n{}", touched.join("\n"));
    Ok(())
}

/// The device is down and has all VIPs, and they answer.
fn await_whole(cluster: &Cluster) -> Result<()> {
    let node = cluster.at(NODE)?;
    eventually(|| {
        let link = node.run("ip", &["-br", "link", "show", VIP_DEVICE])?;
        ensure!(!link.contains("UP"), "{link}");
        node.await_vips(&VIPS)
    })?;
    cluster.await_settled(NODE, &FLAGS)?;
    for vip in ["10.96.0.80:80", "[fd00:10:96::80]:80"] {
        cluster.at("visitor")?.get(vip)?;
    }
    Ok(())
}

fn load(cluster: &Cluster) -> Result<Load> {
    Load::start(cluster.at("visitor")?, "10.96.0.80:80", Duration::from_millis(10))
}

fn start_network_manager(debian: &Debian) -> Result<Program> {
    let daemon = debian.start("NetworkManager", &["--no-daemon"])?;
    eventually(|| {
        let state = debian.run("nmcli", &["-g", "STARTUP", "general"])?;
        ensure!(state.trim() == "started", "{state}");
        Ok(())
    })?;
    let state = debian.run("nmcli", &["-g", "GENERAL.STATE", "device", "show", VIP_DEVICE])?;
    ensure!(state.contains("unmanaged"), "NetworkManager manages {VIP_DEVICE}: {state}");
    Ok(daemon)
}

/// By default NetworkManager leaves devices alone that it did not make and that are down. If an operator connects the
/// device, kube-ipvs repairs it. With the page's file NetworkManager refuses that.
#[test]
fn network_manager_leaves_vips_alone_and_connects_their_device_only_without_the_file() -> TestResult {
    scenario(builder(), |cluster| {
        let _server = deploy(cluster)?;
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_whole(cluster)?;
        let monitor = Monitor::start(cluster.at(NODE)?, cluster.directory())?;
        let users = load(cluster)?;
        let debian = Debian::on(cluster, NODE)?;
        let connect = || debian.run("nmcli", &["--wait", "0", "device", "connect", VIP_DEVICE]);

        let daemon = start_network_manager(&debian)?;
        debian.run("nmcli", &["general", "reload"])?;
        ensure_untouched(&monitor, "a start and a reload of NetworkManager")?;
        daemon.terminate()?;
        configure_as_documented(&debian, "NetworkManager/conf.d/kube-ipvs.conf")?;
        let daemon = start_network_manager(&debian)?;
        let refusal = connect().err().context("NetworkManager connects the device in spite of the file")?;
        ensure!(format!("{refusal:#}").contains("strictly unmanaged"), "{refusal:#}");
        ensure_untouched(&monitor, "the file for NetworkManager")?;
        daemon.terminate()?;
        ensure_untouched(&monitor, "the end of NetworkManager")?;
        users.stop(4, "visitor beside NetworkManager")?;

        debian.run("rm", &["/etc/NetworkManager/conf.d/kube-ipvs.conf"])?;
        let _daemon = start_network_manager(&debian)?;
        connect()?;
        eventually(|| {
            // NetworkManager has disabled IPv6 on the device.
            let notices = monitor.notices()?;
            let is_removal = |line: &String| line.contains("Deleted") && line.contains(VIPS[1]);
            ensure!(notices.iter().any(is_removal), "the IPv6 VIP stays:\n{}", notices.join("\n"));
            Ok(())
        })?;
        await_whole(cluster)
    })
}

fn start_networkd(debian: &Debian, link: &str, state: &str) -> Result<Program> {
    let owner = "systemd-network";
    debian.run("install", &["-d", "-o", owner, "-g", owner, "/run/systemd/netif"])?;
    let daemon = debian.start("/lib/systemd/systemd-networkd", &[])?;
    await_networkd(debian, link, state)?;
    Ok(daemon)
}

fn await_networkd(debian: &Debian, link: &str, state: &str) -> Result<()> {
    eventually(|| {
        let line = debian.run("networkctl", &["--no-legend", "--no-pager", "list", link])?;
        // The fourth column is empty until networkd runs.
        ensure!(!line.contains(" - ") && line.trim_end().ends_with(state), "{line}");
        Ok(())
    })
}

/// A file that matches all links also matches the device. systemd-networkd then sets the device up, and kube-ipvs sets
/// it down. With the page's file systemd-networkd leaves the device alone.
#[test]
fn networkd_with_a_file_for_all_links_leaves_vips_alone_if_the_devices_are_unmanaged() -> TestResult {
    scenario(builder(), |cluster| {
        let _server = deploy(cluster)?;
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_whole(cluster)?;
        let monitor = Monitor::start(cluster.at(NODE)?, cluster.directory())?;
        let debian = Debian::on(cluster, NODE)?;
        // The scenario's own links are not the subject.
        debian.configure("systemd/network/05-node.network", "[Match]\nName=!kube-ipvs0*\n[Link]\nUnmanaged=yes\n")?;
        debian.configure("systemd/network/90-all.network", "[Match]\nName=*\n[Network]\nIPv6AcceptRA=no\n")?;
        configure_as_documented(&debian, "systemd/network/10-kube-ipvs.network")?;
        let users = load(cluster)?;
        let daemon = start_networkd(&debian, VIP_DEVICE, "unmanaged")?;
        debian.run("networkctl", &["reload"])?;
        ensure_untouched(&monitor, "a start and a reload of systemd-networkd")?;
        daemon.terminate()?;
        ensure_untouched(&monitor, "the end of systemd-networkd")?;
        users.stop(4, "visitor beside systemd-networkd")?;

        debian.run("rm", &["/etc/systemd/network/10-kube-ipvs.network"])?;
        let daemon = start_networkd(&debian, VIP_DEVICE, "configured")?;
        eventually(|| {
            ensure!(ensure_untouched(&monitor, "").is_err(), "systemd-networkd has not set the device up");
            Ok(())
        })?;
        await_whole(cluster)?;
        daemon.terminate()?;
        await_whole(cluster)
    })
}

/// `networkctl reconfigure` removes the routes that other programs have on the link, and all rules of other programs.
/// With the page's file it keeps both.
#[test]
fn networkd_reconfigures_a_link_and_keeps_routes_and_rules_only_with_the_file() -> TestResult {
    scenario(builder(), |cluster| {
        let node = cluster.at(NODE)?;
        node.ip("link add plugin0 type dummy\nlink set plugin0 up")?;
        let debian = Debian::on(cluster, NODE)?;
        debian.configure("systemd/network/10-plugin.network", "[Match]\nName=plugin0\n[Network]\nIPv6AcceptRA=no\n")?;
        let are_there = || -> Result<bool> {
            let [routes, rules] = [["-4", "route"], ["-4", "rule"]].map(|listing| node.run("ip", &listing));
            let found = [routes?.contains("10.244.9.0/24"), rules?.contains("lookup 99")];
            ensure!(found[0] == found[1], "{found:?}");
            Ok(found[0])
        };
        let reconfigure = || {
            // systemd-networkd removes addresses of other programs in any case: then it has done its work.
            node.ip(
                "route add 10.244.9.0/24 dev plugin0\nrule add fwmark 9 lookup 99\naddr add fd00:9::9 dev plugin0",
            )?;
            debian.run("networkctl", &["reconfigure", "plugin0"])?;
            eventually(|| {
                let addresses = node.run("ip", &["-br", "addr", "show", "plugin0"])?;
                ensure!(!addresses.contains("fd00:9::9"), "{addresses}");
                Ok(())
            })?;
            await_networkd(&debian, "plugin0", "configured")
        };
        let daemon = start_networkd(&debian, "plugin0", "configured")?;
        reconfigure()?;
        eventually(|| {
            ensure!(!are_there()?, "the route and the rule are there");
            Ok(())
        })?;
        daemon.terminate()?;
        configure_as_documented(&debian, "systemd/networkd.conf.d/kube-ipvs.conf")?;
        let _daemon = start_networkd(&debian, "plugin0", "configured")?;
        reconfigure()?;
        ensure!(are_there()?, "the route and the rule are gone");
        Ok(())
    })
}
