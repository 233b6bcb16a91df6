//! `cargo xtask e2e`: what users run, on a real API server or a real cluster.

mod envtest;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

/// Runs the scenarios of the field on a real API server or a real cluster
#[derive(Args)]
pub(crate) struct E2e {
    /// Only scenarios whose name contains this
    filter: Option<String>,
    /// The cluster to make for it
    #[arg(long, value_enum, required_unless_present = "kubeconfig", conflicts_with = "kubeconfig")]
    cluster: Option<Kind>,
    /// The kubeconfig of a cluster that exists
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// How long all scenarios of envtest may take
    #[arg(long, value_name = "SECONDS", default_value_t = 5400)]
    timeout: u64,
    /// The bench's kernel for envtest: a package, or a directory with boot/vmlinuz* and lib/modules/*
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// etcd and kube-apiserver of $KUBEBUILDER_ASSETS on the test bench, with namespaces for pods
    Envtest,
}

pub(crate) fn run(args: &E2e) -> Result<ExitCode> {
    envtest::run(args)
}
