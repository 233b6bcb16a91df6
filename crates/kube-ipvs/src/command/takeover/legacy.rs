//! Rules of legacy iptables, which netlink does not show.

use std::fs;

/// A note for each family whose legacy table `nat` exists in this network namespace.
pub(super) fn notes() -> Vec<String> {
    let files = [("iptables", "ip_tables_names"), ("ip6tables", "ip6_tables_names")];
    let found = files.into_iter().filter(|(_, file)| {
        let names = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        has_nat(&names)
    });
    found.map(|(program, _)| note(program)).collect()
}

fn has_nat(names: &str) -> bool {
    names.lines().any(|table| table == "nat")
}

fn note(program: &str) -> String {
    format!(
        "this node has rules of {program}-legacy in the table nat. kube-ipvs cannot see them. If `{program}-legacy-save` \
         prints KUBE-SERVICES, they lead clients past kube-ipvs: remove them as docs/migrating-from-other-modes.md says"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_nat_table_is_recognized_by_its_exact_name() {
        assert!(has_nat("filter\nnat\n"));
        assert!(!has_nat("filter\nnat2\n") && !has_nat(""));
    }
}
