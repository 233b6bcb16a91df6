use expect_test::{Expect, expect};

use super::*;

fn check_error(line: &str, expected: Expect) {
    expected.assert_eq(&resolve(line).unwrap_err());
}

#[test]
fn rejected_value_names_the_flag_and_the_allowed_values() {
    let mut said = String::new();
    for line in [
        "--cluster-cidr=10.0.0.0/33",
        "--cluster-cidr=10.0.0.0/8,11.0.0.0/8",
        "--feature-gates=AllowServiceExternalIP=false",
        "--nodeport-addresses=secondary",
        "--ipvs-scheduler=random",
        "--ipvs-exclude-cidrs=10.0.0.1",
        "--ipvs-sync-period=30",
        "--ipvs-sync-period=0s",
        "--ipvs-sync-period=-5s",
        "--hostname-override=a_b",
        "--proxy-mode=iptables",
        "--detect-local-mode=nodecidr",
        "--pod-bridge-interface=a-very-long-name-0",
        "--masquerade-all=maybe",
        "--iptables-masquerade-bit=32",
        "--oom-score-adj=5000",
        "--conntrack-min=-1",
        "--bind-address=here",
        "--healthz-bind-address=host:1",
        "--logging-format=xml",
        "--kube-api-qps=fast",
    ] {
        said += &format!("{}\n", resolve(line).unwrap_err());
    }
    expect![[r#"
        error: invalid value '10.0.0.0/33' for '--cluster-cidr <CIDR[,CIDR]>': "10.0.0.0/33" is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64
        error: invalid value '10.0.0.0/8,11.0.0.0/8' for '--cluster-cidr <CIDR[,CIDR]>': at most one IPv4 and one IPv6 range are allowed
        error: invalid value 'AllowServiceExternalIP=false' for '--feature-gates <GATE=BOOL[,...]>': unrecognized feature gate "AllowServiceExternalIP": kube-proxy 1.36 does not know it either; correct or remove it
        error: invalid value 'secondary' for '--nodeport-addresses <CIDR|primary|localhost|all[,...]>': "secondary" is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64, or primary, localhost or all
        error: invalid value 'random' for '--ipvs-scheduler <NAME>': "random" is not a scheduler of IPVS: use one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf, twos
        error: invalid value '10.0.0.1' for '--ipvs-exclude-cidrs <CIDR[,CIDR...]>': "10.0.0.1" is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64
        error: invalid value '30' for '--ipvs-sync-period <DURATION>': "30" has no unit: use ns, us, ms, s, m or h, as in 30s
        error: invalid value '0s' for '--ipvs-sync-period <DURATION>': "0s" is too short: it must be greater than 0
        error: invalid value '-5s' for '--ipvs-sync-period <DURATION>': "-5s" is negative: a duration is 0 or more
        error: invalid value 'a_b' for '--hostname-override <NAME>': "a_b" is not a valid name of a node: use at most 253 letters, digits, '-' and '.'
        error: invalid value 'iptables' for '--proxy-mode <ipvs>': "iptables" is not a mode of kube-ipvs: use ipvs, or leave it empty
        error: invalid value 'nodecidr' for '--detect-local-mode <MODE>': "nodecidr" is not a detect-local mode: use ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix
        error: invalid value 'a-very-long-name-0' for '--pod-bridge-interface <NAME>': "a-very-long-name-0" is not a valid name of an interface: use at most 15 bytes, without '/', ':' and blanks
        error: invalid value 'maybe' for '--masquerade-all[=<BOOL>]': "maybe" is neither true nor false
        error: invalid value '32' for '--iptables-masquerade-bit <0..31>': 32 is not allowed: it must be a whole number from 0 to 31
        error: invalid value '5000' for '--oom-score-adj <NUMBER>': 5000 is not allowed: it must be a whole number from -1000 to 1000
        error: invalid value '-1' for '--conntrack-min <NUMBER>': -1 is not allowed: it must be a whole number, 0 or more
        error: invalid value 'here' for '--bind-address <IP>': "here" is not an IP address: use an address such as 0.0.0.0, 192.168.0.1 or ::
        error: invalid value 'host:1' for '--healthz-bind-address <IP[:PORT]>': "host:1" is not an address to listen on: use an address such as 0.0.0.0:10256 or [::1]:10249
        error: invalid value 'xml' for '--logging-format <text|json>': "xml" is not a log format: use text or json
        error: invalid value 'fast' for '--kube-api-qps <NUMBER>': invalid float literal
    "#]].assert_eq(&said);
}

#[test]
fn contradictory_values_are_rejected() {
    check_error(
        "--ipvs-sync-period=1s --ipvs-min-sync-period=2s",
        expect![
            "ipvs.minSyncPeriod (--ipvs-min-sync-period) is 2s: it must not exceed ipvs.syncPeriod (--ipvs-sync-period), which is 1s"
        ],
    );
    check_error(
        "--detect-local-mode=BridgeInterface --pod-interface-name-prefix=veth",
        expect![
            "detectLocal.bridgeInterface (--pod-bridge-interface) is missing: detectLocalMode BridgeInterface needs it"
        ],
    );
    check_error(
        "--detect-local-mode=InterfaceNamePrefix",
        expect![
            "detectLocal.interfaceNamePrefix (--pod-interface-name-prefix) is missing: detectLocalMode InterfaceNamePrefix needs it"
        ],
    );
}
