//! Requests are spread evenly.

use anyhow::ensure;
use scenarios::{TestResult, scenario, tally};

use crate::common::{WEB_ADDRESS, await_web, deploy_web, web_cluster};

/// 300 requests one after the other over three pods: 100 each, give or take two.
#[test]
fn three_hundred_requests_over_three_pods() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let _proxies = cluster.start_proxies(&[])?;
        for (node, from) in [("node-3", "visitor"), ("node-1", "node-1")] {
            await_web(cluster, node)?;
            let answers = tally(cluster.at(from)?.get_many(WEB_ADDRESS, 300)?);
            ensure!(answers.len() == 3, "from {from}: {answers:?}");
            ensure!(answers.values().all(|count| (98..=102).contains(count)), "from {from}: {answers:?}");
        }
        Ok(())
    })
}
