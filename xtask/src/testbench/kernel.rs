//! A distribution's kernel for the virtual machine: downloaded once, unpacked under target/bench, never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use super::packages;
use crate::janitor::Janitor;

pub(crate) struct Kernel {
    /// The output of `uname -r`.
    pub(crate) version: String,
    pub(crate) image: PathBuf,
    /// The directory with lib/modules.
    pub(crate) root: PathBuf,
}

impl Kernel {
    /// The kernel of `package`, or of a directory if `package` has a slash. The default is the distribution's small
    /// kernel for virtual machines.
    pub(crate) fn get(cache: &Path, package: Option<&str>) -> Result<Self> {
        if let Some(directory) = package.filter(|package| package.contains('/')) {
            return Self::in_directory(Path::new(directory));
        }
        let package = match package {
            Some(package) => package,
            None => default_package()?,
        };
        let root = cache.join(format!("kernel-{package}"));
        if !root.exists() {
            // Unpacked beside its final path and renamed as a whole: an interrupted download leaves no partial kernel.
            let unpacking = cache.join(format!("kernel-{package}.unpacking-{}", std::process::id()));
            let janitor = Janitor::removing(&unpacking)?;
            download(package, &unpacking)?;
            fs::rename(&unpacking, &root)?;
            janitor.finish()?;
        }
        Self::in_directory(&root)
    }

    fn in_directory(root: &Path) -> Result<Self> {
        let modules = root.join("lib/modules");
        let version = single_entry(&modules, "")?;
        let name = single_entry(&root.join("boot"), "vmlinuz")?;
        Ok(Self { version, image: root.join("boot").join(name), root: root.to_owned() })
    }
}

fn single_entry(directory: &Path, prefix: &str) -> Result<String> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let names: Vec<String> = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter(|name| name.starts_with(prefix))
        .collect();
    match names.as_slice() {
        [name] => Ok(name.clone()),
        _ => bail!("expected one {prefix}* in {}, found {names:?}", directory.display()),
    }
}

fn default_package() -> Result<&'static str> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is = |id: &str| {
        release.lines().any(|line| {
            line.split_once('=').is_some_and(|(key, value)| {
                (key == "ID" || key == "ID_LIKE") && value.trim_matches('"').split(' ').any(|word| word == id)
            })
        })
    };
    // Ubuntu has ID_LIKE=debian, so it is checked first.
    if is("ubuntu") {
        Ok("linux-image-virtual")
    } else if is("debian") {
        Ok("linux-image-cloud-amd64")
    } else {
        bail!(
            "the bench takes its kernel from Debian or Ubuntu. On other systems, pass a directory with boot/vmlinuz* \
             and lib/modules/* as --kernel DIRECTORY or KUBE_IPVS_BENCH_KERNEL"
        )
    }
}

fn download(package: &str, unpacking: &Path) -> Result<()> {
    let packages = match concrete_packages(package) {
        Ok(packages) => packages,
        Err(_) if packages::is_root() => {
            eprintln!("bench: apt does not know {package}; refreshing its package lists");
            let complaints = packages::update_lists()?;
            concrete_packages(package).with_context(|| format!("{complaints}\n{}", packages::MIRRORS))?
        }
        Err(error) => return Err(error),
    };
    fs::create_dir_all(unpacking)?;
    let sh = Shell::new()?;
    sh.change_dir(unpacking);
    eprintln!("bench: downloading {}", packages.join(" "));
    // As root, apt would switch to a user that cannot write here.
    let names = &packages;
    let get = || cmd!(sh, "apt-get -qq -o APT::Sandbox::User=root download {names...}").quiet().ignore_stdout().run();
    if get().is_err() {
        ensure!(packages::is_root(), "apt could not download {package}: run `sudo apt-get update`, and try again");
        eprintln!("bench: the package lists are out of date; refreshing them");
        packages::update_lists()?;
        get().with_context(|| format!("apt cannot download {package}: {}", packages::MIRRORS))?;
    }
    for deb in sh.read_dir(unpacking)? {
        cmd!(sh, "dpkg-deb -x {deb} {unpacking}").quiet().run()?;
        fs::remove_file(&deb)?;
    }
    // Newer packages have their modules only under /usr/lib; depmod expects them in /lib.
    if !unpacking.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", unpacking.join("lib"))?;
    }
    let version = single_entry(&unpacking.join("lib/modules"), "")?;
    let depmod = packages::program("depmod")?;
    cmd!(sh, "{depmod} -b {unpacking} {version}").quiet().run()?;
    Ok(())
}

/// The packages with the files. A name such as linux-image-cloud-amd64 only depends on the package of the current
/// version. Ubuntu has the modules in separate packages.
fn concrete_packages(package: &str) -> Result<Vec<String>> {
    let dependencies = depends(package)?;
    if let Some(concrete) = dependencies.iter().find(|name| is_versioned_image(name)) {
        return concrete_packages(concrete);
    }
    let mut packages = vec![package.to_owned()];
    for modules in dependencies.into_iter().filter(|name| name.starts_with("linux-modules-")) {
        let extra = modules.replacen("linux-modules-", "linux-modules-extra-", 1);
        packages.push(modules);
        if depends(&extra).is_ok() {
            packages.push(extra);
        }
    }
    Ok(packages)
}

fn is_versioned_image(name: &str) -> bool {
    name.strip_prefix("linux-image-")
        .map(|rest| rest.strip_prefix("unsigned-").unwrap_or(rest))
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn depends(package: &str) -> Result<Vec<String>> {
    let sh = Shell::new()?;
    let shown = cmd!(sh, "apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances {package}")
        .quiet()
        .ignore_stderr()
        .read()
        .with_context(|| format!("apt does not know the kernel package {package}: pass another one with --kernel"))?;
    Ok(parse_depends(&shown))
}

fn parse_depends(shown: &str) -> Vec<String> {
    shown
        .lines()
        .filter_map(|line| line.trim_start().trim_start_matches('|').strip_prefix("Depends: "))
        .map(|name| name.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versioned_kernel_image_is_found_among_dependencies() {
        let shown = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n |Depends: kmod\n";
        assert_eq!(parse_depends(shown), ["linux-image-6.1.0-56-cloud-amd64", "kmod"]);
        assert!(is_versioned_image("linux-image-6.1.0-56-cloud-amd64"));
        assert!(is_versioned_image("linux-image-unsigned-6.8.0-60-generic"));
        assert!(!is_versioned_image("linux-image-generic"));
    }
}
