//! The port for monitoring.

use anyhow::Result;
use serde_json::Value;

use crate::daemon::{Daemon, get};

#[test]
fn what_kube_proxy_answers() -> Result<()> {
    let daemon = Daemon::start(&["--ipvs-scheduler=lc", "--cluster-cidr=10.244.0.0/16"])?;
    let at = |path| get(daemon.metrics, path, "");
    assert_eq!(at("/proxyMode")?.body, "ipvs");
    assert_eq!(at("/healthz")?.body, "ok");
    assert_eq!(at("/nothing")?.status, 404);
    let shown: Value = serde_json::from_str(&at("/configz")?.body)?;
    let shown = &shown["kubeproxy.config.k8s.io"];
    assert_eq!(shown["ipvs"]["scheduler"], "lc");
    assert_eq!(shown["clusterCIDR"], "10.244.0.0/16");
    assert_eq!(shown["mode"], "ipvs");
    assert_eq!(shown["metricsBindAddress"], daemon.metrics.to_string());
    let slis = at("/metrics/slis")?.body;
    for line in [
        r#"kubernetes_healthcheck{name="ping",type="healthz"} 1"#,
        r#"kubernetes_healthchecks_total{name="ping",type="healthz",status="success"} 1"#,
    ] {
        assert!(slis.lines().any(|found| found == line), "{line} is not in:\n{slis}");
    }
    Ok(())
}
