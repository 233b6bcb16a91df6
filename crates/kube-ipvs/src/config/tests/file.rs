use std::fs;

use expect_test::{Expect, expect};

use super::*;

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn check(fields: &str, expected: Expect) {
    let File { configuration, unknown, retired, without_effect } = read(&format!("{HEAD}{fields}")).unwrap();
    let lines =
        |what: &str, items: Vec<String>| items.iter().map(|item| format!("{what}: {item}\n")).collect::<String>();
    expected.assert_eq(
        &[
            beyond_defaults(&configuration),
            lines("unknown", unknown),
            lines("retired", retired),
            lines("without effect", without_effect),
        ]
        .concat(),
    );
}

/// The output of tools that write every field out, such as kubeadm.
const ALL_FIELDS: &str = "
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: \"\"
  burst: 0
  contentType: \"\"
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: \"\"
  interfaceNamePrefix: \"\"
detectLocalMode: \"\"
enableProfiling: false
healthzBindAddress: \"\"
hostnameOverride: \"\"
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: \"\"
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: \"0\"
    text:
      infoBufferSize: \"0\"
  verbosity: 0
metricsBindAddress: \"\"
mode: ipvs
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: \"\"
showHiddenMetricsForVersion: \"\"
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: \"\"
  rootHnsEndpointName: \"\"
  sourceVip: \"\"
";

#[test]
fn unset_fields_written_out_by_tools_mean_defaults() {
    check(
        ALL_FIELDS,
        expect![[r#"
        clusterCIDR: 10.244.0.0/16
        kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
    "#]],
    );
}

#[test]
fn file_without_fields_gives_the_defaults() {
    check("", expect![""]);
}

#[test]
fn every_field_is_read() {
    check(
        r#"
bindAddress: "::"
bindAddressHardFail: true
clientConnection: {burst: 20, contentType: application/json, kubeconfig: /k, qps: 7.5, acceptContentTypes: a}
clusterCIDR: 10.244.0.0/16,fd00::/48
configSyncPeriod: 1m
conntrack: {maxPerCore: 0, min: 5, tcpBeLiberal: true, tcpCloseWaitTimeout: 0s, tcpEstablishedTimeout: 2h,
  udpStreamTimeout: 3s, udpTimeout: 4s}
detectLocal: {bridgeInterface: cni0, interfaceNamePrefix: cali}
detectLocalMode: NodeCIDR
enableProfiling: true
featureGates: {AllowServiceExternalIPs: false, WinDSR: true}
healthzBindAddress: 10.0.0.1
hostnameOverride: Node-1
iptables: {localhostNodePorts: true, masqueradeAll: true, masqueradeBit: 0, minSyncPeriod: 1s, syncPeriod: 30s}
ipvs: {excludeCIDRs: [10.0.0.0/24, fd00::/64], minSyncPeriod: 1s, scheduler: mh, strictARP: true, syncPeriod: 1m,
  tcpFinTimeout: 5s, tcpTimeout: 6s, udpTimeout: 7s}
logging: {format: json, verbosity: 4, vmodule: [{filePattern: a, verbosity: 1}]}
metricsBindAddress: 0.0.0.0:9999
mode: ipvs
nftables: {masqueradeAll: true}
nodePortAddresses: [192.168.0.0/16, "fd01::/64"]
oomScoreAdj: 0
portRange: 1-2
"#,
        expect![[r#"
            hostnameOverride: node-1
            nodePortAddresses:
            - 192.168.0.0/16
            - fd01::/64
            featureGates:
            AllowServiceExternalIPs: false
            WinDSR: true
            detectLocalMode: NodeCIDR
            clusterCIDR: 10.244.0.0/16,fd00::/48
            bridgeInterface: cni0
            interfaceNamePrefix: cali
            syncPeriod: 1m0s
            minSyncPeriod: 1s
            scheduler: mh
            excludeCIDRs:
            - 10.0.0.0/24
            - fd00::/64
            strictARP: true
            tcpTimeout: 6s
            tcpFinTimeout: 5s
            udpTimeout: 7s
            masqueradeAll: true
            masqueradeBit: 0
            maxPerCore: 0
            min: 5
            tcpEstablishedTimeout: 2h0m0s
            tcpCloseWaitTimeout: 0s
            tcpBeLiberal: true
            udpTimeout: 4s
            udpStreamTimeout: 3s
            kubeconfig: /k
            contentType: application/json
            qps: 7.5
            burst: 20
            bindAddress: "::"
            healthzBindAddress: 10.0.0.1:10256
            metricsBindAddress: 0.0.0.0:9999
            bindAddressHardFail: true
            oomScoreAdj: 0
            format: json
            verbosity: 4
            without effect: clientConnection.acceptContentTypes
            without effect: configSyncPeriod
            without effect: enableProfiling
            without effect: iptables.localhostNodePorts
            without effect: iptables.minSyncPeriod
            without effect: iptables.syncPeriod
            without effect: logging.vmodule
            without effect: nftables
            without effect: portRange
        "#]],
    );
}

#[test]
fn unknown_fields_are_named_and_ignored() {
    check(
        "mod: ipvs\nconntrack: {maxPerCor: 1, min: 7}\nipvs:\n  strictArp: true\n",
        expect![[r#"
        min: 7
        unknown: conntrack.maxPerCor
        unknown: ipvs.strictArp
        unknown: mod
    "#]],
    );
}

#[test]
fn wrong_values_are_named_by_their_paths() {
    let mut said = String::new();
    for fields in [
        "mode: iptables",
        "ipvs: {scheduler: random}",
        "ipvs: {syncPeriod: 30}",
        "ipvs: {syncPeriod: fast}",
        "ipvs: {excludeCIDRs: [10.0.0.0]}",
        "ipvs: {strictARP: maybe}",
        "conntrack: {min: -1}",
        "conntrack: 1",
        "iptables: {masqueradeBit: 32}",
        "oomScoreAdj: 1001",
        "detectLocalMode: Pod",
        "detectLocal: {bridgeInterface: a-very-long-name-0}",
        "clusterCIDR: [10.0.0.0/8]",
        "nodePortAddresses: 10.0.0.0/8",
        "healthzBindAddress: here",
        "bindAddress: here",
        "clientConnection: {qps: fast}",
        "logging: {format: xml}",
        "hostnameOverride: a_b",
        "featureGates: {AllowServiceExternalIP: false}",
        "featureGates: {WinDSR: 1}",
        "nodePortAddresses: [primary, secondary]",
    ] {
        said += &format!("{}\n", read(&format!("{HEAD}{fields}")).unwrap_err());
    }
    expect![[r#"
        mode: "iptables" is not a mode of kube-ipvs: use ipvs, or leave it empty
        ipvs.scheduler: "random" is not a scheduler of IPVS: use one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf, twos
        ipvs.syncPeriod: this is integer `30`: it must be a text
        ipvs.syncPeriod: "fast" is not a duration: use numbers with a unit, such as 30s, 1m30s, 1.5h or 500ms
        ipvs.excludeCIDRs: "10.0.0.0" is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64
        ipvs.strictARP: this is string "maybe": it must be true or false
        conntrack.min: -1 is not allowed: it must be a whole number, 0 or more
        conntrack: this is integer `1`: it must be a mapping of fields
        iptables.masqueradeBit: 32 is not allowed: it must be a whole number from 0 to 31
        oomScoreAdj: 1001 is not allowed: it must be a whole number from -1000 to 1000
        detectLocalMode: "Pod" is not a detect-local mode: use ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix
        detectLocal.bridgeInterface: "a-very-long-name-0" is not a valid name of an interface: use at most 15 bytes, without '/', ':' and blanks
        clusterCIDR: this is sequence: it must be a text
        nodePortAddresses: this is string "10.0.0.0/8": it must be a list
        healthzBindAddress: "here" is not an address to listen on: use an address such as 0.0.0.0:10256 or [::1]:10249
        bindAddress: "here" is not an IP address: use an address such as 0.0.0.0, 192.168.0.1 or ::
        clientConnection.qps: this is string "fast": it must be a number
        logging.format: "xml" is not a log format: use text or json
        hostnameOverride: "a_b" is not a valid name of a node: use at most 253 letters, digits, '-' and '.'
        featureGates: unrecognized feature gate "AllowServiceExternalIP": kube-proxy 1.36 does not know it either; correct or remove it
        featureGates.WinDSR: this is integer `1`: it must be true or false
        nodePortAddresses: "secondary" is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64, or primary, localhost or all
    "#]].assert_eq(&said);
}

#[test]
fn text_other_than_a_kube_proxy_configuration_is_rejected() {
    let mut said = String::new();
    for text in ["", "- a", "kind: KubeProxyConfiguration", "apiVersion: v1\nkind: Node", "a: [", "\t"] {
        said += &format!("{}\n", read(text).unwrap_err());
    }
    expect![[r#"
        has no fields: it must have one KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1
        has no fields: it must have one KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1
        has the kind "KubeProxyConfiguration" of the API version "": it must have one KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1
        has the kind "Node" of the API version "v1": it must have one KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1
        is neither YAML nor JSON: error: line 1 column 4: unclosed bracket '['
         --> <input>:1:4
          |
        1 | a: [
          |    ^ unclosed bracket '['
        has no fields: it must have one KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1
    "#]].assert_eq(&said);
}

/// kubeadm's file, including the kubelet's settings and the last `---` that tools write.
#[test]
fn documents_of_other_components_are_skipped() {
    let others = "---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: 10.244.0.0/16}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
clusterDNS: [169.254.25.10]
---
";
    let File { configuration, without_effect, .. } =
        read(&format!("{others}{HEAD}mode: ipvs\nipvs: {{scheduler: lc}}\n---\n# the end\n---\n")).unwrap();
    assert_eq!(configuration.ipvs.scheduler.to_string(), "lc");
    assert_eq!(without_effect, ["the document ClusterConfiguration", "the document KubeletConfiguration"]);

    let mut said = String::new();
    for text in
        [others.to_owned(), format!("{HEAD}---\n{HEAD}"), format!("{HEAD}---\napiVersion: v1\nkind: ConfigMap\n")]
    {
        said += &format!("{}\n", read(&text).unwrap_err());
    }
    expect![[r#"
        has only the document ClusterConfiguration, the document KubeletConfiguration: it must have one KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1
        has more than one KubeProxyConfiguration: keep one
        has the kind "ConfigMap" of the API version "v1": it must have one KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1
    "#]].assert_eq(&said);
}

#[test]
fn fields_of_older_releases_name_their_successors() {
    check(
        "resourceContainer: /kube-proxy\nudpIdleTimeout: 250ms\nconntrack: {max: 1000, min: null}\n",
        expect![[r#"
            retired: conntrack.max has no effect: use conntrack.maxPerCore and conntrack.min
            retired: resourceContainer has no effect: the container runtime places the process in its cgroup
            retired: udpIdleTimeout has no effect: only kube-proxy's former userspace mode used it
        "#]],
    );
    check("resourceContainer: \"\"\nudpIdleTimeout: 0s\nconntrack: {max: null}\n", expect![""]);
}

#[test]
fn configuration_survives_writing_and_reading() {
    for fields in ["", "mode: ipvs", ALL_FIELDS] {
        let configuration = read(&format!("{HEAD}{fields}")).unwrap().configuration;
        let again = read(&write(&configuration).unwrap()).unwrap();
        assert_eq!(again.configuration.healthz_listen(), configuration.healthz_listen());
        assert_eq!((again.unknown, again.without_effect), (Vec::new(), Vec::new()));
        assert_eq!(write(&again.configuration).unwrap(), write(&configuration).unwrap());
    }
}

#[test]
fn flags_beside_a_file_override_it_or_are_ignored_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.conf");
    let fields = "hostnameOverride: from-file\nmode: ipvs\nlogging: {verbosity: 1}\nportRange: 1-2\nmod: 1\n\
                  udpIdleTimeout: 1s\nfeatureGates: {WatchListClient: false}\n";
    fs::write(&path, format!("{HEAD}{fields}")).unwrap();
    let line = |flags: &str| format!("--config={} {flags}", path.display());
    let resolved = resolve(&line("")).unwrap();
    assert_eq!(resolved.configuration.hostname_override.given(), Some("from-file"));
    assert_eq!(resolved.configuration.logging.verbosity.get(), 1);

    let flags = "--hostname-override=Node-1 --v=3 --master=https://x --drain-cap=1s --ipvs-scheduler=lc --profiling \
                 --masquerade-all";
    let resolved = resolve(&line(flags)).unwrap();
    let configuration = &resolved.configuration;
    assert_eq!(configuration.hostname_override.given(), Some("node-1"));
    assert_eq!(configuration.logging.verbosity.get(), 3);
    assert_eq!(configuration.client_connection.master, "https://x");
    assert_eq!(configuration.own.drain_cap, GoDuration::seconds(1));
    assert_eq!(configuration.ipvs, Ipvs::default());
    let name = path.display().to_string();
    let warnings = resolved.warnings.join("\n").replace(&name, "FILE");
    expect![[r#"
        kube-ipvs ignores these flags because --config is set: --ipvs-scheduler, --masquerade-all
        FILE: udpIdleTimeout has no effect: only kube-proxy's former userspace mode used it
        FILE: kube-ipvs ignores these unknown fields: mod"#]]
    .assert_eq(&warnings);
    assert_eq!(resolved.without_effect, ["portRange", "--profiling", "the feature gate WatchListClient"]);
    assert_eq!(resolved.file.unwrap().0, path);
}

#[test]
fn missing_or_contradictory_file_is_rejected_by_name() {
    let error = resolve("--config=/nowhere/config.conf").unwrap_err();
    assert!(error.starts_with("cannot read /nowhere/config.conf: No such file"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.conf");
    for fields in ["ipvs: {minSyncPeriod: 2s, syncPeriod: 1s}", "detectLocalMode: BridgeInterface", "mode: no"] {
        fs::write(&path, format!("{HEAD}{fields}")).unwrap();
        let error = resolve(&format!("--config={}", path.display())).unwrap_err();
        assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
    }
}

/// A daemon that has started ignores a file that it cannot read. A file that it reads can be written and read again.
#[test]
fn mutated_configuration_files_are_read_or_refused() {
    let fields = "featureGates: {AllowServiceExternalIPs: false}\nipvs: {scheduler: lc, syncPeriod: 7s, minSyncPeriod: \
                  3s, excludeCIDRs: [10.9.0.0/16], strictARP: true, tcpTimeout: 15m}\nnodePortAddresses: [primary, \
                  10.0.0.0/8]\nlogging: {format: json, verbosity: 3}\nmode: ipvs\n";
    let seeds = ["", ALL_FIELDS, fields].map(|fields| format!("{HEAD}{fields}"));
    fuzz::fuzz("configuration", seeds, |bytes| {
        let Ok(file) = read(&String::from_utf8_lossy(bytes)) else { return };
        let written = write(&file.configuration).unwrap();
        let again = read(&written).unwrap_or_else(|error| panic!("{error}\n{written}"));
        assert_eq!(write(&again.configuration).unwrap(), written);
    });
}
