//! The kernel's modules for the initramfs: all of networking with its dependencies, and depmod's indexes. With the
//! indexes the kernel loads modules itself: the IPVS family on its first use, a scheduler by its name, nft's
//! expressions.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use super::cpio::Tree;
use super::kernel::Kernel;
use crate::janitor::Janitor;

/// Paths below the modules' `kernel/`. A name without a suffix is a file or a directory.
const WANTED: &[&str] = &[
    "arch/x86/crypto",
    "crypto",
    "drivers/char/virtio_console",
    "drivers/net/dummy",
    "drivers/net/ifb",
    "drivers/net/ipvlan",
    "drivers/net/macvlan",
    "drivers/net/net_failover",
    "drivers/net/nlmon",
    "drivers/net/tun",
    "drivers/net/veth",
    "drivers/net/virtio_net",
    "drivers/net/vrf",
    "drivers/net/vxlan",
    "drivers/net/geneve",
    "drivers/virtio",
    "net/802",
    "net/8021q",
    "net/bridge",
    "net/core",
    "net/ipv4",
    "net/ipv6",
    "net/llc",
    "net/netfilter",
    "net/netlink",
    "net/packet",
    "net/sched",
    "net/sctp",
    "net/unix",
    "net/xfrm",
];

/// The directory of the modules, decompressed and indexed as under /lib/modules. It is made once for each kernel.
pub(crate) fn staged(kernel: &Kernel, cache: &Path) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (WANTED, &kernel.root).hash(&mut hasher);
    let stage = cache.join(format!("modules-{}-{:08x}", kernel.version, hasher.finish() as u32));
    if !stage.exists() {
        eprintln!("bench: collecting the modules of Linux {}", kernel.version);
        let unfinished = cache.join(format!("modules-{}.unfinished-{}", kernel.version, std::process::id()));
        let janitor = Janitor::removing(&unfinished)?;
        collect(kernel, &unfinished)?;
        // If another xtask was faster, its result is equivalent, and this one is removed.
        let _ = fs::rename(&unfinished, &stage);
        janitor.finish()?;
    }
    Ok(stage)
}

fn collect(kernel: &Kernel, stage: &Path) -> Result<()> {
    let from = kernel.root.join("lib/modules").join(&kernel.version);
    let to = stage.join("lib/modules").join(&kernel.version);
    let index = from.join("modules.dep");
    let index = fs::read_to_string(&index).with_context(|| {
        let (root, version) = (kernel.root.display(), &kernel.version);
        format!("reading {}: to create it, run depmod -b {root} {version}", index.display())
    })?;
    let mut compressed: HashMap<String, Vec<PathBuf>> = HashMap::new();
    let mut staged = Vec::new();
    for module in closure(&index) {
        let target = to.join(module);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(from.join(module), &target).with_context(|| format!("copying {module}"))?;
        match module.rsplit_once(".ko.") {
            Some((_, suffix)) => {
                staged.push(target.with_extension(""));
                compressed.entry(suffix.to_owned()).or_default().push(target);
            }
            None => staged.push(target),
        }
    }
    for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(from.join(name), to.join(name)).with_context(|| format!("copying {name}"))?;
    }
    let sh = Shell::new()?;
    for (suffix, files) in compressed {
        match suffix.as_str() {
            "xz" => cmd!(sh, "xz --decompress {files...}").quiet().run()?,
            "zst" => cmd!(sh, "zstd --decompress --rm --quiet {files...}").quiet().run()?,
            "gz" => cmd!(sh, "gzip --decompress {files...}").quiet().run()?,
            other => bail!("the bench cannot decompress modules with the extension .{other}"),
        }
    }
    // This also removes signatures: under emulation, checking them takes longer than loading. The kernel logs that and
    // continues.
    let modules = &staged;
    cmd!(sh, "strip --strip-debug {modules...}").quiet().run()?;
    let version = &kernel.version;
    let depmod = super::packages::program("depmod")?;
    cmd!(sh, "{depmod} -b {stage} {version}").quiet().run()?;
    Ok(())
}

/// The wanted modules of a modules.dep with all their dependencies.
fn closure(index: &str) -> BTreeSet<&str> {
    let dependencies: HashMap<&str, &str> = index.lines().filter_map(|line| line.split_once(':')).collect();
    let mut pending: Vec<&str> = dependencies.keys().copied().filter(|module| is_wanted(module)).collect();
    let mut all = BTreeSet::new();
    while let Some(module) = pending.pop() {
        if all.insert(module) {
            pending.extend(dependencies.get(module).into_iter().flat_map(|needed| needed.split_whitespace()));
        }
    }
    all
}

fn is_wanted(module: &str) -> bool {
    let module = module.strip_prefix("kernel/").unwrap_or(module);
    WANTED.iter().any(|wanted| module.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(['/', '.'])))
}

pub(crate) fn add(tree: &mut Tree, stage: &Path) -> Result<()> {
    tree.copy_directory(stage, Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_closure_has_the_wanted_modules_and_dependencies() {
        let index = "kernel/net/netfilter/ipvs/ip_vs.ko: kernel/lib/libcrc32c.ko\n\
                     kernel/lib/libcrc32c.ko:\n\
                     kernel/drivers/net/veth.ko.xz:\n\
                     kernel/drivers/net/vethereal.ko:\n\
                     kernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko\n";
        let expected =
            ["kernel/drivers/net/veth.ko.xz", "kernel/lib/libcrc32c.ko", "kernel/net/netfilter/ipvs/ip_vs.ko"];
        assert_eq!(closure(index), BTreeSet::from(expected));
    }
}
