//! `cargo xtask e2e`: users' scenarios on a real API server or a real cluster.

mod cluster;
mod conformance;
mod envtest;
mod kind;
mod scenarios;
mod step;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::testbench::is_installed;

/// Runs the scenarios of the field on a real API server or a real cluster
#[derive(Args)]
pub(crate) struct E2e {
    /// Only scenarios whose name contains this
    filter: Option<String>,
    /// The cluster to create for the run and to delete afterwards
    #[arg(long, value_enum, required_unless_present = "kubeconfig", conflicts_with = "kubeconfig")]
    cluster: Option<Kind>,
    /// The kubeconfig of an existing cluster that kube-ipvs serves: the run creates the namespace kube-ipvs-e2e there,
    /// and deletes it
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A Kubernetes release's e2e.test, to run its tests of Services on that cluster instead of our scenarios
    #[arg(long, value_name = "PATH", requires = "kubeconfig")]
    e2e_test: Option<PathBuf>,
    /// The bench's kernel for envtest: a package, or a directory with boot/vmlinuz* and lib/modules/*
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// etcd and kube-apiserver of $KUBEBUILDER_ASSETS on the test bench, with namespaces for pods
    Envtest,
    /// Containers for nodes, by kind, with the image and the manifests of this tree
    Kind,
}

pub(crate) fn run(args: &E2e) -> Result<ExitCode> {
    let filter = args.filter.as_deref();
    if let (Some(kubeconfig), Some(e2e_test)) = (&args.kubeconfig, &args.e2e_test) {
        tools::ensure_all(&[tools::KUBECTL], is_installed)?;
        conformance::run(kubeconfig, e2e_test, filter)?;
        return Ok(ExitCode::SUCCESS);
    }
    match (args.cluster, &args.kubeconfig) {
        (Some(Kind::Envtest), _) => envtest::run(args)?,
        (_, Some(kubeconfig)) => {
            tools::ensure_all(&[tools::KUBECTL], is_installed)?;
            cluster::Cluster::new(kubeconfig)?.run(filter)?;
        }
        (Some(Kind::Kind) | None, None) => {
            tools::ensure_all(&[tools::DOCKER, tools::KIND, tools::KUBECTL], is_installed)?;
            kind::run(filter)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
