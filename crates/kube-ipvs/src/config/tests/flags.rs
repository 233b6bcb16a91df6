use expect_test::{Expect, expect};
use proxier::NodePortAddresses;

use super::*;

fn check(line: &str, expected: Expect) {
    expected.assert_eq(&beyond_defaults(&parse(line)));
}

#[test]
fn no_flag_gives_the_defaults() {
    assert_eq!(parse(""), Configuration::default());
    expect![[r#"
        apiVersion: kubeproxy.config.k8s.io/v1alpha1
        kind: KubeProxyConfiguration
        hostnameOverride: ""
        mode: ipvs
        nodePortAddresses: []
        featureGates: {}
        detectLocalMode: ClusterCIDR
        clusterCIDR: ""
        detectLocal:
          bridgeInterface: ""
          interfaceNamePrefix: ""
        ipvs:
          syncPeriod: 30s
          minSyncPeriod: 0s
          scheduler: rr
          excludeCIDRs: []
          strictARP: false
          tcpTimeout: 0s
          tcpFinTimeout: 0s
          udpTimeout: 0s
        iptables:
          masqueradeAll: false
          masqueradeBit: 14
        conntrack:
          maxPerCore: 32768
          min: 131072
          tcpEstablishedTimeout: 24h0m0s
          tcpCloseWaitTimeout: 1h0m0s
          tcpBeLiberal: false
          udpTimeout: 0s
          udpStreamTimeout: 0s
        clientConnection:
          kubeconfig: ""
          contentType: application/vnd.kubernetes.protobuf
          qps: 5.0
          burst: 10
        bindAddress: "0.0.0.0"
        healthzBindAddress: 0.0.0.0:10256
        metricsBindAddress: 127.0.0.1:10249
        bindAddressHardFail: false
        oomScoreAdj: -999
        logging:
          format: text
          verbosity: 0
    "#]]
    .assert_eq(&write(&parse("")).unwrap());
    expect!["OwnFlags { scoped_arp: false, vip_ping: true, reject_unallocated_cluster_ips: true, localhost_node_ports: false, takeover: true, annotations: Safe, drain_cap: GoDuration(600s), watch_timeout: GoDuration(120s), external_ip_ranges: Ranges([]), reserved_ports: PortRanges([22..=22, 2379..=2380, 6443..=6443, 10249..=10250, 10256..=10259]), max_virtual_servers: BoundedInt(10000), out_of_contact_limit: GoDuration(600s), service_metrics_limit: BoundedInt(50), record: None, record_limit: BoundedInt(64) }"].assert_eq(&format!("{:?}", parse("").own));
}

#[test]
fn empty_flag_counts_as_absent() {
    let line = "--hostname-override= --cluster-cidr= --nodeport-addresses= --ipvs-scheduler= --proxy-mode= \
                --ipvs-exclude-cidrs= --detect-local-mode= --pod-bridge-interface= --bind-address= --kubeconfig= \
                --pod-interface-name-prefix= --logging-format= --feature-gates=";
    assert_eq!(parse(line), Configuration::default());
}

#[test]
fn every_flag_of_kube_proxy_has_its_field() {
    check(
        "--hostname-override=Node-1.Example --nodeport-addresses=primary --detect-local-mode=BridgeInterface \
         --pod-bridge-interface=cni0 --pod-interface-name-prefix=cali --cluster-cidr=10.1.2.3/8,fd00::/48 \
         --bind-address=:: --bind-address-hard-fail --oom-score-adj=-500",
        expect![[r#"
            hostnameOverride: node-1.example
            nodePortAddresses:
            - primary
            detectLocalMode: BridgeInterface
            clusterCIDR: 10.0.0.0/8,fd00::/48
            bridgeInterface: cni0
            interfaceNamePrefix: cali
            bindAddress: "::"
            healthzBindAddress: "[::]:10256"
            metricsBindAddress: "[::1]:10249"
            bindAddressHardFail: true
            oomScoreAdj: -500
        "#]],
    );
    check(
        "--ipvs-sync-period=1m --ipvs-min-sync-period=2s --ipvs-scheduler=wrr --ipvs-strict-arp \
         --ipvs-exclude-cidrs=10.0.0.0/24,fd00::/64 --ipvs-tcp-timeout=15m --ipvs-tcpfin-timeout=30s \
         --ipvs-udp-timeout=5m --masquerade-all --iptables-masquerade-bit=31",
        expect![[r#"
            syncPeriod: 1m0s
            minSyncPeriod: 2s
            scheduler: wrr
            excludeCIDRs:
            - 10.0.0.0/24
            - fd00::/64
            strictARP: true
            tcpTimeout: 15m0s
            tcpFinTimeout: 30s
            udpTimeout: 5m0s
            masqueradeAll: true
            masqueradeBit: 31
        "#]],
    );
    check(
        "--conntrack-max-per-core=1 --conntrack-min=2 --conntrack-tcp-timeout-established=3s \
         --conntrack-tcp-timeout-close-wait=4s --conntrack-tcp-be-liberal --conntrack-udp-timeout=5s \
         --conntrack-udp-timeout-stream=6s",
        expect![[r#"
            maxPerCore: 1
            min: 2
            tcpEstablishedTimeout: 3s
            tcpCloseWaitTimeout: 4s
            tcpBeLiberal: true
            udpTimeout: 5s
            udpStreamTimeout: 6s
        "#]],
    );
    check(
        "--kubeconfig=/k --kube-api-qps=50.5 --kube-api-burst=100 --kube-api-content-type=application/json \
         --healthz-bind-address=127.0.0.1 --metrics-bind-address=[::]:1 --logging-format=json -v=4",
        expect![[r#"
            kubeconfig: /k
            contentType: application/json
            qps: 50.5
            burst: 100
            healthzBindAddress: 127.0.0.1:10256
            metricsBindAddress: "[::]:1"
            format: json
            verbosity: 4
        "#]],
    );
}

#[test]
fn flags_that_only_kube_ipvs_has_are_parsed() {
    let own = parse(
        "--scoped-arp --vip-ping=false --reject-unallocated-cluster-ips=false --localhost-nodeports \
         --takeover=false --annotations=all --drain-cap=1h --watch-timeout=30s --out-of-contact-limit=1h \
         --service-metrics-limit=7 --external-ip-ranges=203.0.113.7/24,2001:db8::/32 \
         --reserved-ports=22,443-445 --max-virtual-servers-per-service=5 \
         --record=/tmp/r --record-limit=1",
    )
    .own;
    assert_eq!(
        own,
        OwnFlags {
            scoped_arp: true,
            vip_ping: false,
            reject_unallocated_cluster_ips: false,
            localhost_node_ports: true,
            takeover: false,
            annotations: proxier_kubernetes::Annotations::All,
            drain_cap: GoDuration::seconds(3600),
            watch_timeout: GoDuration::seconds(30),
            out_of_contact_limit: GoDuration::seconds(3600),
            service_metrics_limit: 7.try_into().unwrap(),
            external_ip_ranges: "203.0.113.0/24,2001:db8::/32".parse().unwrap(),
            reserved_ports: PortRanges(vec![22..=22, 443..=445]),
            max_virtual_servers: 5.try_into().unwrap(),
            record: Some("/tmp/r".into()),
            record_limit: 1.try_into().unwrap(),
        }
    );
}

/// Settings reach the engine from flags alone and from flags beside a file.
#[test]
fn flags_and_fields_reach_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.conf");
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let fields = "featureGates: {AllowServiceExternalIPs: false}\nipvs: {scheduler: lc, syncPeriod: 7s, \
                  minSyncPeriod: 3s, excludeCIDRs: [10.9.0.0/16]}\n";
    std::fs::write(&path, format!("{head}{fields}")).unwrap();
    let own = "--hostname-override=n --external-ip-ranges=203.0.113.0/24 --reserved-ports=22 \
               --max-virtual-servers-per-service=5 --drain-cap=1h --scoped-arp";
    let flags = "--feature-gates=AllowServiceExternalIPs=false --ipvs-scheduler=lc --ipvs-sync-period=7s \
                 --ipvs-min-sync-period=3s \
                 --ipvs-exclude-cidrs=10.9.0.0/16";
    for line in [format!("{own} {flags}"), format!("{own} --config={}", path.display())] {
        let resolved = resolve(&line).unwrap();
        assert_eq!(resolved.warnings, [""; 0]);
        let engine = resolved.configuration.engine().unwrap();
        assert!(!engine.allow_external_ips && engine.scoped_arp);
        assert_eq!(engine.external_ip_ranges, ["203.0.113.0/24".parse().unwrap()]);
        assert_eq!(engine.reserved_ports, [22..=22]);
        assert_eq!(engine.max_virtual_servers, 5);
        assert_eq!(engine.scheduler.to_string(), "lc");
        assert_eq!(engine.exclude_cidrs, ["10.9.0.0/16".parse().unwrap()]);
        let times = [engine.sync_period, engine.min_sync_period, engine.drain_cap].map(|time| time.as_secs());
        assert_eq!(times, [7, 3, 3600]);
    }
    assert!(parse("--hostname-override=n").engine().unwrap().allow_external_ips);
}

#[test]
fn reserved_ports_have_a_default_and_reject_invalid_ranges() {
    assert_eq!(parse("").own.reserved_ports.to_string(), "22,2379-2380,6443,10249-10250,10256-10259");
    assert_eq!(parse("--reserved-ports=").own.reserved_ports, PortRanges(Vec::new()));
    for bad in ["0", "22-21", "70000", "ssh", "-1", "1-", "1-2-3"] {
        let refused = bad.parse::<PortRanges>().unwrap_err();
        assert_eq!(
            refused,
            format!("{bad:?} is not a port or a range of ports: use a value such as 22 or 10256-10259")
        );
    }
}

#[test]
fn flag_accepts_both_spellings_and_its_last_value_counts() {
    let flags = parse("--ipvs-scheduler wrr --masquerade-all --ipvs-scheduler=lc --masquerade-all=F");
    assert_eq!((flags.ipvs.scheduler.0.as_str(), flags.iptables.masquerade_all), ("lc", false));
    assert_eq!(parse("--oom-score-adj -1 -v 2 --v=7").oom_score_adj.get(), -1);
}

#[test]
fn node_port_addresses_combine_words_and_ranges() {
    let addresses = |line: &str| parse(line).node_port_addresses;
    let chosen = |primary, ranges: &[&str]| NodePortAddresses::Chosen {
        primary,
        ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
    };
    let all = NodePortAddresses::All;
    for (given, expected, localhost, written) in [
        ("", all.clone(), false, ""),
        ("all", all.clone(), false, ""),
        ("all,primary,10.0.0.0/8", all.clone(), false, ""),
        ("localhost,all", all, true, "all,localhost"),
        ("primary", chosen(true, &[]), false, "primary"),
        ("localhost", chosen(false, &[]), true, "localhost"),
        ("primary,localhost", chosen(true, &[]), true, "primary,localhost"),
        ("10.1.2.3/8, primary", chosen(true, &["10.0.0.0/8"]), false, "primary,10.0.0.0/8"),
        ("192.168.0.0/16,fd00::/8", chosen(false, &["192.168.0.0/16", "fd00::/8"]), false, "192.168.0.0/16,fd00::/8"),
    ] {
        let found: NodePorts = given.parse().unwrap();
        assert_eq!(found, NodePorts { addresses: expected, localhost }, "{given}");
        assert_eq!(found.to_string(), written);
        assert_eq!(written.parse(), Ok(found), "{given}");
    }
    let twice = "--nodeport-addresses=primary --nodeport-addresses 10.0.0.0/8 --nodeport-addresses=localhost";
    assert_eq!(addresses(twice), NodePorts { addresses: chosen(true, &["10.0.0.0/8"]), localhost: true });
}

#[test]
fn localhost_node_ports_follow_the_word_or_the_flag() {
    let localhost = |line: &str| {
        let configuration = parse(&format!("--hostname-override=n {line}"));
        configuration.engine().unwrap().localhost_node_ports
    };
    assert!(!localhost("--nodeport-addresses=all"));
    assert!(localhost("--nodeport-addresses=primary,localhost"));
    assert!(localhost("--localhost-nodeports"));
}

#[test]
fn repeated_list_flags_are_joined() {
    let flags = parse("--ipvs-exclude-cidrs=10.0.0.0/24 --ipvs-exclude-cidrs=10.0.1.0/24,fd00::/64");
    assert_eq!(flags.ipvs.exclude_cidrs.to_string(), "10.0.0.0/24,10.0.1.0/24,fd00::/64");
    let flags = parse("--feature-gates=WinDSR=true --feature-gates=AllowServiceExternalIPs=false,WinDSR=false");
    assert_eq!(flags.feature_gates.to_string(), "AllowServiceExternalIPs=false,WinDSR=false");
    // This flag is not a list in kube-proxy: the last value counts.
    let flags = parse("--cluster-cidr=10.0.0.0/8 --cluster-cidr=11.0.0.0/8");
    assert_eq!(flags.cluster_cidr.to_string(), "11.0.0.0/8");
}

/// klog's flags, and flags of older kube-proxy releases.
#[test]
fn flags_of_older_releases_name_their_successors() {
    let line = "--logtostderr=true --alsologtostderr --log-file=/var/log/kube-proxy.log --log-dir= --stderrthreshold INFO \
                --proxy-port-range=0-0 --udp-timeout=250ms --resource-container= --cleanup-iptables --conntrack-max=5";
    let resolved = resolve(line).unwrap();
    assert_eq!(resolved.configuration, Configuration::default());
    expect![[r#"
        --conntrack-max has no effect: use --conntrack-max-per-core and --conntrack-min
        --log-dir has no effect: kube-ipvs logs to standard error; --logging-format and --v say how
        --log-file has no effect: kube-ipvs logs to standard error; --logging-format and --v say how
        --proxy-port-range has no effect: only kube-proxy's former userspace mode used it
        --resource-container has no effect: the container runtime places the process in its cgroup
        --stderrthreshold has no effect: kube-ipvs logs to standard error; --logging-format and --v say how
        --udp-timeout has no effect: only kube-proxy's former userspace mode used it
        --alsologtostderr has no effect: kube-ipvs logs to standard error; --logging-format and --v say how
        --cleanup-iptables has no effect: use --cleanup
        --logtostderr has no effect: kube-ipvs logs to standard error; --logging-format and --v say how"#]]
    .assert_eq(&resolved.warnings.join("\n"));
    assert!(resolve("--logtosyslog").unwrap_err().starts_with("error: unexpected argument '--logtosyslog'"));
}

#[test]
fn node_name_is_lower_cased() {
    let name = parse("--hostname-override=Node-1.Example").hostname_override;
    assert_eq!(&*name.resolve().unwrap(), "node-1.example");
    let own = NodeName::default().resolve().unwrap();
    assert_eq!(own.to_lowercase(), *own);
}

#[test]
fn listen_addresses_follow_the_flags_and_their_defaults() {
    for (line, healthz, metrics) in [
        ("", "0.0.0.0:10256", "127.0.0.1:10249"),
        ("--bind-address=::", "[::]:10256", "[::1]:10249"),
        ("--healthz-bind-address= --metrics-bind-address=", "", ""),
        ("--healthz-bind-address=10.0.0.1 --metrics-bind-address=0.0.0.0:1", "10.0.0.1:10256", "0.0.0.0:1"),
        ("--healthz-bind-address=[fd00::1] --metrics-bind-address=::", "[fd00::1]:10256", "[::]:10249"),
        ("--healthz-port=1 --metrics-port=2", "0.0.0.0:1", "127.0.0.1:2"),
        ("--healthz-port=0 --metrics-port=0 --metrics-bind-address=::", "", ""),
        ("--healthz-port=3 --healthz-bind-address=10.0.0.1:2", "10.0.0.1:2", "127.0.0.1:10249"),
    ] {
        let configuration = parse(line);
        let text = |at: Option<SocketAddr>| at.map(|at| at.to_string()).unwrap_or_default();
        assert_eq!(text(configuration.healthz_listen()), healthz, "{line}");
        assert_eq!(text(configuration.metrics_listen()), metrics, "{line}");
    }
}

#[test]
fn flags_without_effect_are_accepted_and_named() {
    let line = "--profiling --iptables-sync-period 30s --iptables-localhost-nodeports=false --feature-gates=WinDSR=true \
                --boot-id-file=/x --vmodule=a=1 --log-flush-frequency=5s";
    let resolved = resolve(line).unwrap();
    let feature_gates = "WinDSR=true".parse().unwrap();
    assert_eq!(resolved.configuration, Configuration { feature_gates, ..Configuration::default() });
    assert_eq!(
        resolved.without_effect.join(" "),
        "--boot-id-file --iptables-sync-period --log-flush-frequency --vmodule --iptables-localhost-nodeports --profiling the \
         feature gate WinDSR"
    );
}

#[test]
fn detect_local_mode_selects_the_local_detector() {
    let detector = |line: &str| {
        let configuration = parse(&format!("--hostname-override=n {line}"));
        (configuration.kernel().local_detector, configuration.engine().unwrap().pod_sources)
    };
    let pods = "--cluster-cidr=10.244.0.0/16 --pod-bridge-interface=cni0 --pod-interface-name-prefix=veth";
    let ranges = PodSources::Ranges(vec!["10.244.0.0/16".parse().unwrap()]);
    let nothing = PodSources::default;
    for (mode, expected) in [
        ("ClusterCIDR", (LocalDetector::Sources, ranges)),
        ("NodeCIDR", (LocalDetector::Sources, PodSources::OwnNode)),
        ("BridgeInterface", (LocalDetector::Bridge("cni0".into()), nothing())),
        ("InterfaceNamePrefix", (LocalDetector::InterfacePrefix("veth".into()), nothing())),
    ] {
        assert_eq!(detector(&format!("{pods} --detect-local-mode={mode}")), expected);
    }
}
