//! Runs a program under the seccomp profile of the manifests. `confined PROGRAM ARGUMENT...`
//!
//! The profile rejects a system call that it does not name. Here such a call ends the program, so that a scenario which
//! needs it fails.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use seccompiler::{apply_filter, compile_from_json};
use serde_json::{Value, json};

const PROFILE: &str = include_str!("../../../manifests/seccomp.json");

fn main() -> Result<()> {
    let mut words = env::args_os().skip(1);
    let mut program = Command::new(words.next().context("confined PROGRAM ARGUMENT...")?);
    program.args(words);
    for filter in filters(PROFILE)? {
        let filter = json!({ "all": filter }).to_string();
        for compiled in compile_from_json(filter.as_bytes(), env::consts::ARCH.try_into()?)?.values() {
            apply_filter(compiled)?;
        }
    }
    Err(program.exec()).with_context(|| format!("running {program:?}"))
}

/// Converts the profile from the format of container runtimes to that of seccompiler, whose filters have one action
/// each. The kernel takes the strictest of all. The last filter forbids further ones.
fn filters(profile: &str) -> Result<Vec<Value>> {
    let profile: Value = serde_json::from_str(profile)?;
    ensure!(profile["defaultAction"] == "SCMP_ACT_ERRNO", "a profile that rejects other system calls is looked for");
    let (mut filters, mut allowed) = (Vec::new(), Vec::new());
    for entry in list(&profile["syscalls"]) {
        let args: Vec<Value> = list(&entry["args"]).iter().map(condition).collect::<Result<_>>()?;
        let names = list(&entry["names"]).iter();
        let rules = names.map(|name| {
            if args.is_empty() { json!({ "syscall": name }) } else { json!({ "syscall": name, "args": args }) }
        });
        let rules: Vec<Value> = rules.collect();
        if entry["action"] == "SCMP_ACT_ERRNO" {
            let action = json!({ "errno": entry["errnoRet"] });
            filters.push(json!({ "mismatch_action": "allow", "match_action": action, "filter": rules }));
        }
        allowed.extend(rules);
    }
    filters.push(json!({ "mismatch_action": "kill_process", "match_action": "allow", "filter": allowed }));
    Ok(filters)
}

fn condition(arg: &Value) -> Result<Value> {
    let Value::String(operator) = &arg["op"] else { bail!("a condition without an operator: {arg}") };
    ensure!(operator == "SCMP_CMP_MASKED_EQ", "{operator} is not converted");
    let operator = json!({ "masked_eq": arg["value"] });
    Ok(json!({ "index": arg["index"], "type": "qword", "op": operator, "val": arg["valueTwo"] }))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
