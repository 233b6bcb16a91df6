//! `cargo xtask release`: everything that a release publishes, in one folder. With the same Rust and C compiler, the
//! same source gives the same files.

mod archive;
mod contents;
mod names;
mod packages;
mod sbom;
mod sums;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use crate::image;
use crate::platform::Platform;
use crate::workspace::Workspace;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes everything that a release publishes: binary, packages, image, chart, manifests, SBOM, checksums
#[derive(Args)]
pub(crate) struct Release {
    /// The version of the workspace. Cargo.toml, the manifests and the chart have to have it already
    #[arg(long)]
    version: String,
    /// A new or empty folder
    #[arg(long)]
    out: PathBuf,
    /// The name of the image in its archive, the manifests and the chart, such as REGISTRY/kube-ipvs
    #[arg(long, default_value = image::NAME)]
    image: String,
    /// Also the binary, the packages and the image for arm64, by Debian's cross compiler. It runs once, emulated
    #[arg(long)]
    arm64: bool,
    /// A secret key of minisign, which signs SHA256SUMS
    #[arg(long)]
    sign_key: Option<PathBuf>,
}

impl Release {
    fn platforms(&self) -> impl Iterator<Item = Platform> {
        [Platform::Host].into_iter().chain(self.arm64.then_some(Platform::Arm64))
    }
}

pub(crate) fn run(args: &Release) -> Result<ExitCode> {
    ensure!(args.version == VERSION, "the workspace has the version {VERSION}: set it in Cargo.toml first");
    args.platforms().try_for_each(Platform::prepare)?;
    let workspace = Workspace::load()?;
    let out = new_folder(&args.out)?;
    let time = time(&workspace)?;
    warn_of_changes(&workspace)?;
    let place = |name: String| out.join(name);
    let manifests = contents::manifests(&workspace.root, &args.image)?;
    for platform in args.platforms() {
        let architecture = platform.architecture();
        let image = image::make(&workspace, &format!("{}:{VERSION}", args.image), platform)?;
        fs::copy(&image.archive, place(names::image(architecture)))?;
        let binary = workspace.build_published_daemon(platform)?.path;
        let version = platform.version_of(&binary)?;
        ensure!(version == format!("kube-ipvs {VERSION}"), "{} has the version {version:?}", binary.display());
        let files = contents::tarball(&workspace.root, &binary, &args.image)?;
        fs::write(place(names::tarball(architecture)), archive::pack(&format!("kube-ipvs-{VERSION}"), &files, time)?)?;
        packages::make(&workspace, &binary, &out, time)?;
    }
    let chart = contents::chart(&workspace.root, &args.image)?;
    fs::write(place(names::chart()), archive::pack("kube-ipvs", &chart, time)?)?;
    fs::write(place(names::manifests()), contents::one_file(&manifests))?;
    fs::write(place(names::sbom()), sbom::make(&workspace, time)?)?;
    let made: Vec<String> =
        sums::files(&out)?.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    let expected = names::all(args.platforms().map(Platform::architecture));
    ensure!(made == expected, "a release has the files {expected:?}, and these were made: {made:?}");
    sums::write(&out)?;
    if let Some(key) = &args.sign_key {
        sums::sign(&out, key)?;
    }
    for path in sums::files(&out)? {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates the folder if it does not exist. Returns its absolute path.
fn new_folder(path: &Path) -> Result<PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
    let is_empty = fs::read_dir(path)?.next().is_none();
    ensure!(is_empty, "{} is not empty: SHA256SUMS would list the files of another release", path.display());
    Ok(path.canonicalize()?)
}

/// A release with uncommitted changes has the time of a commit that does not make it.
fn warn_of_changes(workspace: &Workspace) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(&workspace.root);
    let changed = cmd!(sh, "git status --porcelain").quiet().read()?;
    if !changed.is_empty() {
        eprintln!(
            "xtask: these files differ from the last commit, so that commit does not make this release:\n{changed}"
        );
    }
    Ok(())
}

/// Seconds since 1970, for each file in each archive: SOURCE_DATE_EPOCH, or else the time of the last commit.
fn time(workspace: &Workspace) -> Result<u64> {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let text = match given {
        Some(text) => text,
        None => {
            let sh = Shell::new()?;
            sh.change_dir(&workspace.root);
            cmd!(sh, "git log -1 --format=%ct").quiet().read().context("set SOURCE_DATE_EPOCH outside of git")?
        }
    };
    text.trim().parse().with_context(|| format!("{text:?} is no number of seconds since 1970"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        release: Release,
    }

    /// The host of the repository runs this file, and nothing here can.
    #[test]
    fn workflow_calls_this_command_with_a_rust_that_compiles_it() {
        let text = include_str!("../../../.github/workflows/release.yml");
        let workflow: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        let job = &workflow["jobs"]["release"];
        let steps = job["steps"].as_array().unwrap().iter().filter_map(|step| step["run"].as_str());
        let calls: Vec<&str> =
            steps.flat_map(str::lines).filter_map(|line| line.strip_prefix("cargo xtask ")).collect();
        let [call] = calls[..] else { panic!("not one call: {calls:?}") };
        let release = Command::try_parse_from(call.split_whitespace()).unwrap().release;
        assert!(release.arm64 && release.sign_key.is_some(), "{call}");
        assert_eq!(release.version, "\"${GITHUB_REF_NAME#v}\"");
        let rust = job["container"].as_str().unwrap().strip_prefix("rust:").unwrap();
        let minor = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
        assert!(minor(rust) >= minor(env!("CARGO_PKG_RUST_VERSION")), "{rust}");
    }
}
