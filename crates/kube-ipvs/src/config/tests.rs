use std::time::Duration;

use clap::Parser;
use expect_test::{Expect, expect};

use super::*;

#[derive(Debug, Parser)]
#[command(name = "kube-ipvs")]
struct Cli {
    #[command(flatten)]
    flags: ProxyFlags,
}

fn parse(line: &str) -> Result<ProxyFlags, String> {
    let words = std::iter::once("kube-ipvs").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.flags).map_err(|error| error.to_string())
}

fn check_error(line: &str, expected: Expect) {
    let error = parse(line).unwrap_err();
    // clap ends every refusal with a pointer to --help.
    expected.assert_eq(error.split("\n\nFor more").next().unwrap().trim_end());
}

#[test]
fn no_flag_gives_the_defaults() {
    assert_eq!(parse("").unwrap(), ProxyFlags::default());
}

#[test]
fn an_empty_flag_is_as_good_as_absent() {
    let line = "--hostname-override= --cluster-cidr= --nodeport-addresses= --ipvs-scheduler= \
                --ipvs-exclude-cidrs=";
    assert_eq!(parse(line).unwrap(), ProxyFlags::default());
}

#[test]
fn both_spellings_and_the_last_one_counts() {
    let flags =
        parse("--ipvs-scheduler wrr --cluster-cidr=10.1.2.3/8,fd00::/48 --ipvs-scheduler=lc").unwrap();
    assert_eq!(flags.ipvs_scheduler.as_str(), "lc");
    assert_eq!(flags.cluster_cidr.0, ["10.0.0.0/8".parse().unwrap(), "fd00::/48".parse().unwrap()]);
}

#[test]
fn node_port_addresses() {
    let addresses = |line: &str| parse(line).unwrap().nodeport_addresses;
    assert_eq!(addresses("--nodeport-addresses=primary"), NodePortAddresses::Primary);
    assert_eq!(
        addresses("--nodeport-addresses=192.168.0.0/16,10.0.0.0/8"),
        NodePortAddresses::Within(vec!["192.168.0.0/16".parse().unwrap(), "10.0.0.0/8".parse().unwrap()])
    );
}

#[test]
fn the_node_s_name_is_lower_cased() {
    assert_eq!(
        &*parse("--hostname-override=Node-1.Example").unwrap().hostname_override.resolve().unwrap(),
        "node-1.example"
    );
    let own = NodeName::default().resolve().unwrap();
    assert_eq!(own.to_lowercase(), *own);
}

#[test]
fn refusals_name_the_flag_and_what_is_allowed() {
    check_error(
        "--cluster-cidr=10.0.0.0/33",
        expect![[
            r#"error: invalid value '10.0.0.0/33' for '--cluster-cidr <CIDR[,CIDR]>': "10.0.0.0/33" is not an address range: allowed are ranges such as 10.244.0.0/16 or fd00:10::/64"#
        ]],
    );
    check_error(
        "--cluster-cidr=10.0.0.0/8,11.0.0.0/8",
        expect![
            "error: invalid value '10.0.0.0/8,11.0.0.0/8' for '--cluster-cidr <CIDR[,CIDR]>': at most one IPv4 and one IPv6 range are allowed"
        ],
    );
    check_error(
        "--nodeport-addresses=primary,10.0.0.0/8",
        expect![
            "error: invalid value 'primary,10.0.0.0/8' for '--nodeport-addresses <CIDR[,CIDR...]|primary>': `primary` stands alone: it cannot be mixed with ranges"
        ],
    );
    check_error(
        "--nodeport-addresses=secondary",
        expect![[
            r#"error: invalid value 'secondary' for '--nodeport-addresses <CIDR[,CIDR...]|primary>': "secondary" is not an address range: allowed are ranges such as 10.244.0.0/16 or fd00:10::/64; or `primary`"#
        ]],
    );
    check_error(
        "--ipvs-scheduler=random",
        expect![[
            r#"error: invalid value 'random' for '--ipvs-scheduler <NAME>': "random" is not a scheduler of IPVS: allowed are rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf, twos"#
        ]],
    );
    check_error(
        "--ipvs-exclude-cidrs=10.0.0.1",
        expect![[
            r#"error: invalid value '10.0.0.1' for '--ipvs-exclude-cidrs <CIDR[,CIDR...]>': "10.0.0.1" is not an address range: allowed are ranges such as 10.244.0.0/16 or fd00:10::/64"#
        ]],
    );
    check_error(
        "--ipvs-sync-period=30",
        expect![[
            r#"error: invalid value '30' for '--ipvs-sync-period <DURATION>': "30" has no unit: allowed are ns, us, ms, s, m and h, as in 30s"#
        ]],
    );
    check_error(
        "--ipvs-sync-period=0s",
        expect![[
            r#"error: invalid value '0s' for '--ipvs-sync-period <DURATION>': "0s" is too short: it must be greater than 0"#
        ]],
    );
    check_error(
        "--ipvs-sync-period=-5s",
        expect![[
            r#"error: invalid value '-5s' for '--ipvs-sync-period <DURATION>': "-5s" is negative: a duration is 0 or more"#
        ]],
    );
    check_error(
        "--hostname-override=a_b",
        expect![[
            r#"error: invalid value 'a_b' for '--hostname-override <NAME>': "a_b" is not the name of a node: allowed are letters, digits, '-' and '.', at most 253"#
        ]],
    );
}

#[test]
fn durations_as_go_reads_and_writes_them() {
    let cases = [
        ("0", 0, "0s"),
        ("30s", 30_000_000_000, "30s"),
        ("1m30s", 90_000_000_000, "1m30s"),
        ("500ms", 500_000_000, "500ms"),
        ("1h2m3.5s", 3_723_500_000_000, "1h2m3.5s"),
        ("1.5h", 5_400_000_000_000, "1h30m0s"),
        (".5s", 500_000_000, "500ms"),
        ("+1s", 1_000_000_000, "1s"),
        ("-0s", 0, "0s"),
        ("1s1ns", 1_000_000_001, "1.000000001s"),
        ("15µs", 15_000, "15µs"),
        ("0.3333333333333333333h", 1_200_000_000_000 - 1, "19m59.999999999s"),
    ];
    for (text, nanoseconds, written) in cases {
        let duration = parse_go_duration(text).unwrap();
        assert_eq!(duration, Duration::from_nanos(nanoseconds), "{text}");
        assert_eq!(format_go_duration(duration), written, "{text}");
    }
    for text in ["", "s", "1", "1.5", ".s", "1d", "1 s", "1s2", "--1s", "3000000h", "99999999999999999999h"] {
        assert!(parse_go_duration(text).is_err(), "{text}");
    }
}
