//! `kube-ipvs`: Kubernetes Services in IPVS. See `kube-ipvs --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kube_ipvs::command::main()
}
