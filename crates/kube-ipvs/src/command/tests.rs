//! Command lines and files with which installers start kube-proxy, as found on nodes. They start kube-ipvs too, or the
//! error names the flag or the field.

mod surface;

use std::{ffi::OsString, fs};

use expect_test::{Expect, expect};

use super::{drop_in, go_runner};
use crate::config::{LoadedConfig, write};

/// `line` is a container's command with its arguments. `CONFIG` in it stands for a file with the content `config`.
fn check(line: &str, config: &str, expected: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.conf");
    fs::write(&path, config).unwrap();
    let path = path.to_string_lossy();
    let mut words: Vec<OsString> = line.split_whitespace().map(|word| word.replace("CONFIG", &path).into()).collect();
    if go_runner::is_invoked(&words) {
        words = go_runner::unwrap(words).unwrap().1;
    }
    assert!(drop_in::is_invoked(&words), "{line}");
    let options = drop_in::run_args(words).unwrap_or_else(|| panic!("{line} is no daemon")).options;
    let said = match options.resolve() {
        Err(error) => format!("refused: {error:#}\n"),
        Ok(LoadedConfig { configuration, warnings, without_effect, .. }) => {
            let usual = write(&Default::default()).unwrap();
            let set = write(&configuration).unwrap();
            let set = set.lines().filter(|line| !usual.lines().any(|usual| usual == *line));
            let warnings = warnings.iter().map(|warning| format!("warning: {warning}"));
            let without_effect = without_effect.iter().map(|name| format!("without effect: {name}"));
            let lines = set.map(|line| line.trim_start().to_owned()).chain(warnings).chain(without_effect);
            lines.map(|line| line + "\n").collect()
        }
    };
    expected.assert_eq(&said.replace(&*path, "CONFIG"));
}

/// kubeadm's DaemonSet. The ConfigMap has every field, most of them empty.
#[test]
fn kubeadm_command_line_is_accepted() {
    check(
        "/usr/local/bin/kube-proxy --config=CONFIG --hostname-override=node-1",
        r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 0, contentType: "", kubeconfig: /var/lib/kube-proxy/kubeconfig.conf, qps: 0}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s}
kind: KubeProxyConfiguration
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ipvs
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
"#,
        expect![[r#"
            hostnameOverride: node-1
            clusterCIDR: 10.244.0.0/16
            kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
        "#]],
    );
}

/// The file of `kubeadm init --config`, unchanged in the ConfigMap.
#[test]
fn kubeadm_file_with_all_its_documents_is_accepted() {
    check(
        "kube-proxy --config=CONFIG --hostname-override=node-1",
        r#"apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {serviceSubnet: 10.96.0.0/12}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ipvs
ipvs: {strictARP: true}
---
"#,
        expect![[r#"
            hostnameOverride: node-1
            strictARP: true
            without effect: the document InitConfiguration
            without effect: the document ClusterConfiguration
            without effect: the document KubeletConfiguration
        "#]],
    );
}

/// kubespray's values, with the feature gates that it sets for all components.
#[test]
fn kubespray_command_line_is_accepted() {
    check(
        "/usr/local/bin/kube-proxy --config=CONFIG --hostname-override=node-1",
        r#"---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: "0.0.0.0"
clientConnection:
  acceptContentTypes:
  burst: 10
  contentType: application/vnd.kubernetes.protobuf
  kubeconfig:
  qps: 5
clusterCIDR: "10.233.64.0/18"
configSyncPeriod: 15m0s
conntrack: {maxPerCore: 32768, min: 131072, tcpCloseWaitTimeout: 1h0m0s, tcpEstablishedTimeout: 24h0m0s}
enableProfiling: False
healthzBindAddress: "0.0.0.0:10256"
hostnameOverride: "node-1"
iptables: {masqueradeAll: False, masqueradeBit: 14, minSyncPeriod: 0s, syncPeriod: 30s}
ipvs:
  excludeCIDRs: []
  minSyncPeriod: 0s
  scheduler: rr
  syncPeriod: 30s
  strictARP: True
  tcpTimeout: 0s
  tcpFinTimeout: 0s
  udpTimeout: 0s
metricsBindAddress: "127.0.0.1:10249"
mode: ipvs
nodePortAddresses: []
oomScoreAdj: -999
portRange:
featureGates:
  RotateKubeletServerCertificate: true
  NodeSwap: true
"#,
        expect![[r#"
            hostnameOverride: node-1
            featureGates:
            NodeSwap: true
            RotateKubeletServerCertificate: true
            clusterCIDR: 10.233.64.0/18
            strictARP: true
            without effect: configSyncPeriod
            without effect: iptables.syncPeriod
            without effect: the feature gate NodeSwap
            without effect: the feature gate RotateKubeletServerCertificate
        "#]],
    );
}

/// kops' static pod. It has no shell, so go-runner writes the log.
#[test]
fn kops_command_line_is_accepted() {
    check(
        "/go-runner --log-file=/var/log/kube-proxy.log --also-stdout /usr/local/bin/kube-proxy --cluster-cidr=100.96.0.0/11 \
         --conntrack-max-per-core=131072 --feature-gates=AllAlpha=false,WatchListClient=true --hostname-override=i-0abc \
         --kubeconfig=/var/lib/kube-proxy/kubeconfig --oom-score-adj=-998 --proxy-mode=ipvs --v=2",
        "",
        expect![[r#"
            hostnameOverride: i-0abc
            featureGates:
            AllAlpha: false
            WatchListClient: true
            clusterCIDR: 100.96.0.0/11
            maxPerCore: 131072
            kubeconfig: /var/lib/kube-proxy/kubeconfig
            oomScoreAdj: -998
            verbosity: 2
            without effect: the feature gate AllAlpha
            without effect: the feature gate WatchListClient
        "#]],
    );
}

/// kops' static pod before Kubernetes 1.23.
#[test]
fn kops_command_line_with_klog_flags_is_accepted() {
    check(
        "/usr/local/bin/kube-proxy --cluster-cidr=100.96.0.0/11 --ipvs-scheduler=lc --proxy-mode=ipvs --v=2 \
         --resource-container= --logtostderr=false --alsologtostderr --log-file=/var/log/kube-proxy.log",
        "",
        expect![[r#"
            clusterCIDR: 100.96.0.0/11
            scheduler: lc
            verbosity: 2
            warning: --log-file has no effect: kube-ipvs logs to standard error; --logging-format and --v say how
            warning: --resource-container has no effect: the container runtime places the process in its cgroup
            warning: --alsologtostderr has no effect: kube-ipvs logs to standard error; --logging-format and --v say how
            warning: --logtostderr has no effect: kube-ipvs logs to standard error; --logging-format and --v say how
        "#]],
    );
}

/// A static pod whose command is found by PATH, as in RKE2, and a node port list of Kubernetes 1.37.
#[test]
fn static_pod_command_without_a_path_is_accepted() {
    check(
        "kube-proxy --cluster-cidr=10.42.0.0/16 --conntrack-max-per-core=0 --conntrack-tcp-timeout-close-wait=0s \
         --conntrack-tcp-timeout-established=0s --healthz-bind-address=127.0.0.1 --hostname-override=node-1 \
         --kubeconfig=/var/lib/rancher/rke2/agent/kubeproxy.kubeconfig --proxy-mode=ipvs \
         --nodeport-addresses=primary --nodeport-addresses=localhost",
        "",
        expect![[r#"
            hostnameOverride: node-1
            nodePortAddresses:
            - primary
            - localhost
            clusterCIDR: 10.42.0.0/16
            maxPerCore: 0
            tcpEstablishedTimeout: 0s
            tcpCloseWaitTimeout: 0s
            kubeconfig: /var/lib/rancher/rke2/agent/kubeproxy.kubeconfig
            healthzBindAddress: 127.0.0.1:10256
        "#]],
    );
}

/// EKS' add-on: the command is found by PATH, and the file has a retired field.
#[test]
fn eks_command_line_is_accepted() {
    check(
        "kube-proxy --v=2 --config=CONFIG",
        r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {acceptContentTypes: "", burst: 10, contentType: application/vnd.kubernetes.protobuf, kubeconfig: /var/lib/kube-proxy/kubeconfig, qps: 5}
clusterCIDR: ""
configSyncPeriod: 15m0s
metricsBindAddress: 0.0.0.0:10249
mode: "ipvs"
oomScoreAdj: -998
portRange: ""
udpIdleTimeout: 250ms
"#,
        expect![[r#"
            kubeconfig: /var/lib/kube-proxy/kubeconfig
            metricsBindAddress: 0.0.0.0:10249
            oomScoreAdj: -998
            verbosity: 2
            warning: CONFIG: udpIdleTimeout has no effect: only kube-proxy's former userspace mode used it
            without effect: configSyncPeriod
        "#]],
    );
}

#[test]
fn systemd_unit_command_line_is_accepted() {
    check(
        "/usr/local/bin/kube-proxy --logtostderr=true --v=2 --kubeconfig=/etc/kubernetes/kube-proxy.kubeconfig \
         --cluster-cidr=10.244.0.0/16 --proxy-mode=ipvs --masquerade-all=true --ipvs-min-sync-period=5s",
        "",
        expect![[r#"
            clusterCIDR: 10.244.0.0/16
            minSyncPeriod: 5s
            masqueradeAll: true
            kubeconfig: /etc/kubernetes/kube-proxy.kubeconfig
            verbosity: 2
            warning: --logtostderr has no effect: kube-ipvs logs to standard error; --logging-format and --v say how
        "#]],
    );
}

#[test]
fn rejected_configuration_names_its_field() {
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let refused = [
        (
            "mode: iptables\n",
            expect![[r#"
                refused: CONFIG: mode: "iptables" is not a mode of kube-ipvs: use ipvs, or leave it empty
            "#]],
        ),
        (
            "mode: nftables\n",
            expect![[r#"
                refused: CONFIG: mode: "nftables" is not a mode of kube-ipvs: use ipvs, or leave it empty
            "#]],
        ),
        (
            "featureGates: {ServiceAwsome: true}\n",
            expect![[r#"
            refused: CONFIG: featureGates: unrecognized feature gate "ServiceAwsome": kube-proxy 1.36 does not know it either; correct or remove it
        "#]],
        ),
    ];
    for (fields, expected) in refused {
        check("kube-proxy --config=CONFIG", &format!("{head}{fields}"), expected);
    }
}
