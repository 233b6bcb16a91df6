//! Recordings of a daemon on a real kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use scenarios::{ProxyCommand, TestResult, eventually, scenario};

use crate::common::{WEB, WEB_ADDRESS, all_web, await_web, deploy_web, web_cluster, web_slice};

const NODE: &str = "node-3";

/// The exit status of a replay, and its output.
fn replay(command: &ProxyCommand, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = command.output(&[&["replay"], arguments].concat())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

/// The daemon serves a Service, repairs what other programs removed, and is killed.
#[test]
fn recording_of_a_killed_daemon_replays_and_stays() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let (node, command) = (cluster.at(NODE)?, cluster.kube_ipvs(NODE)?);
        let path = cluster.directory().join("recording");
        let file = path.to_str().context("a path that is not UTF-8")?;
        let flags = ["--record", file, "--ipvs-sync-period", "1h"];
        let proxy = command.start(cluster.manifests.directory(), &flags)?;
        await_web(cluster, NODE)?;
        ensure!(fs::metadata(&path)?.permissions().mode() & 0o777 == 0o600, "others can read the recording");
        node.run("ipvsadm", &["-C"])?;
        await_web(cluster, NODE)?;
        node.run("nft", &["flush", "ruleset"])?;
        eventually(|| node.run("nft", &["list", "set", "ip", "kube-ipvs", "served"]).map(drop))?;
        cluster.manifests.write("web-slice", &web_slice(&all_web()[..1]))?;
        // The recording has the whole sync when the next one begins.
        node.await_service(WEB, &["10.244.1.2:8080 1"])?;
        proxy.kill_nine()?;

        let recording = fs::read_to_string(&path)?;
        let (status, plans, differences) = replay(&command, &[file])?;
        ensure!(status == Some(0), "{status:?}\n{plans}{differences}");
        let made = plans.matches("+ virtual server TCP 10.96.0.80:80 rr").count();
        ensure!(made == 2, "the virtual server was made {made} times:\n{plans}");
        ensure!(plans.contains("+ element served { 10.96.0.80 . tcp . 80 }"), "{plans}");

        let proxy = command.start(cluster.manifests.directory(), &flags)?;
        cluster.at("visitor")?.get(WEB_ADDRESS)?;
        eventually(|| {
            let log = proxy.log_text();
            ensure!(log.contains("does not record"), "the log has nothing of it:\n{log}");
            Ok(())
        })?;
        proxy.terminate()?;
        ensure!(fs::read_to_string(&path)? == recording, "the second daemon changed the recording");

        let altered = cluster.directory().join("altered");
        fs::write(&altered, recording.replacen("10.96.0.80:80 rr", "10.96.0.80:80 lc", 1))?;
        let (status, _, differences) = replay(&command, &[altered.to_str().context("a path that is not UTF-8")?])?;
        ensure!(status == Some(1), "{status:?}");
        ensure!(differences.contains("only now:              + virtual server TCP 10.96.0.80:80 rr"), "{differences}");

        let (_, anonymous, _) = replay(&command, &[file, "--anonymous"])?;
        ensure!(!anonymous.contains("web") && !anonymous.contains("10.96."), "{anonymous}");
        let other = cluster.directory().join("anonymous");
        fs::write(&other, anonymous)?;
        let (status, plans, differences) = replay(&command, &[other.to_str().context("a path that is not UTF-8")?])?;
        ensure!(status == Some(0), "{status:?}\n{plans}{differences}");
        Ok(())
    })
}
