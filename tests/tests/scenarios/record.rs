//! The copy of the record in /run: failures to write it, and which processes write it.

use std::fs;

use anyhow::{Result, ensure};
use scenarios::{Service, Slice, TestResult, eventually, scenario};

use crate::common::{WEB_ADDRESS, await_web, deploy_web, web_cluster};

const NODE: &str = "node-3";

/// kube-ipvs serves all Services, also those that are created later, and logs the failure.
#[test]
fn services_are_served_if_run_is_full_or_read_only() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let node = cluster.at(NODE)?;
        let second = Service::new("second").cluster_ip("10.96.0.81").port(80);
        let slice = Slice::of("second").port(8080).ready("10.244.1.2").on("node-1");
        let command = cluster.kube_ipvs(NODE)?;
        for command in [command.clone().with_full_run(), command.with_read_only_run()] {
            let proxy = command.start(cluster.manifests.directory(), &["--ipvs-sync-period", "1s"])?;
            await_web(cluster, NODE)?;
            cluster.manifests.write("second", &second)?;
            cluster.manifests.write("second-slice", &slice)?;
            node.await_service("TCP 10.96.0.81:80", &["10.244.1.2:8080 1"])?;
            node.await_vips(&["10.96.0.80", "10.96.0.81"])?;
            cluster.at("visitor")?.get("10.96.0.81:80")?;
            eventually(|| {
                let log = proxy.log_text();
                ensure!(log.contains("cannot write the copy of the record"), "the log has nothing of it:\n{log}");
                Ok(())
            })?;
            ensure!(!proxy.log_text().contains("kube-ipvs retries"), "{}", proxy.log_text());
            cluster.manifests.remove("second")?;
            cluster.manifests.remove("second-slice")?;
            node.await_no_service("TCP 10.96.0.81:80")?;
            proxy.terminate()?;
        }
        Ok(())
    })
}

/// A second daemon and `cleanup` are refused. `diff` and `ls` do not change the record, even if they find less in the
/// kernel than it holds.
#[test]
fn second_daemon_is_refused_and_diff_leaves_the_record_alone() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let node = cluster.at(NODE)?;
        let command = cluster.kube_ipvs(NODE)?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_web(cluster, NODE)?;

        let (status, log) = cluster.start_proxy(NODE, &[])?.await_end()?;
        ensure!(!status.success() && log.contains("another kube-ipvs serves this node"), "{status}: {log}");
        let refused = command.run(&["cleanup"]).unwrap_err().to_string();
        ensure!(refused.contains("another kube-ipvs serves this node"), "{refused}");
        await_web(cluster, NODE)?;

        // The daemon is stopped, so only diff could write.
        proxy.stand_still()?;
        node.run("ipvsadm", &["-D", "-t", "10.96.0.80:80"])?;
        let directory = cluster.directory().join(format!("{NODE}.run"));
        let files = || -> Result<Vec<(std::path::PathBuf, String)>> {
            let entries = fs::read_dir(&directory)?.collect::<Result<Vec<_>, _>>()?;
            let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
            files.sort();
            files.into_iter().map(|path| Ok((path.clone(), fs::read_to_string(path)?))).collect()
        };
        let before = files()?;
        ensure!(before.iter().any(|(_, text)| text.contains("+TCP 10.96.0.80:80")), "{before:?}");
        let source = cluster.source();
        let diff = command.output(&["diff", &source[0], &source[1], "--hostname-override", NODE])?;
        let plan = String::from_utf8_lossy(&diff.stdout).into_owned();
        ensure!(plan.contains("+ virtual server TCP 10.96.0.80:80"), "{plan}");
        command.run(&["ls"])?;
        assert_eq!(files()?, before);
        proxy.go_on()?;

        // A new daemon can start as soon as the old one has ended, even by SIGKILL.
        proxy.kill_nine()?;
        let _proxy = cluster.start_proxy(NODE, &[])?;
        await_web(cluster, NODE)?;
        cluster.at("visitor")?.get(WEB_ADDRESS).map(drop)
    })
}
