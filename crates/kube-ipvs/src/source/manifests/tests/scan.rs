//! A folder on disk.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::symlink,
    path::Path,
    sync::mpsc::{Receiver, channel},
};

use expect_test::{Expect, expect};

use super::{
    super::{MAX_FILE_SIZE, ManifestSource, follow},
    *,
};

fn check(source: &mut ManifestSource, expected: Expect) {
    expected.assert_eq(&render(&source.scan()).replace(&source.dir().display().to_string(), "DIR"));
}

fn replace(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(".new"), text).unwrap();
    fs::rename(dir.join(".new"), dir.join(name)).unwrap();
}

#[test]
fn scan_follows_files_that_are_added_changed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = ManifestSource::open(dir.path()).unwrap();
    check(&mut source, expect![""]);
    for left_behind in [".web.yaml.swp", "web.yaml~", "#web.yaml#", ".hidden.yaml", "readme.txt", "web.yaml.bak"] {
        fs::write(dir.path().join(left_behind), "no: manifest").unwrap();
    }
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/web.yaml"), GOOD.replace("web", "deep")).unwrap();
    fs::write(dir.path().join("web.yaml"), GOOD).unwrap();
    check(
        &mut source,
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""]
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.1 ready serving
    "#]],
    );
    check(&mut source, expect![""]);
    // The same length, within the same second.
    fs::write(dir.path().join("web.yaml"), GOOD.replace("10.244.1.1", "10.244.1.2")).unwrap();
    check(
        &mut source,
        expect![[r#"
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.2 ready serving
    "#]],
    );
    replace(dir.path(), "web.yaml", GOOD);
    check(
        &mut source,
        expect![[r#"
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.1 ready serving
    "#]],
    );
    fs::rename(dir.path().join("web.yaml"), dir.path().join("web.json")).unwrap();
    check(&mut source, expect![""]);
    fs::remove_file(dir.path().join("web.json")).unwrap();
    check(
        &mut source,
        expect![[r#"
        Service default/web is gone
        Slice default/web-1 is gone
    "#]],
    );
}

#[test]
fn mounted_config_map_update_is_followed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let version = |name: &str, text: &str| {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("web.yaml"), text).unwrap();
        symlink(name, dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    };
    version("..2026_01", GOOD);
    symlink("..data/web.yaml", dir.path().join("web.yaml")).unwrap();
    let mut source = ManifestSource::open(dir.path()).unwrap();
    check(
        &mut source,
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""]
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.1 ready serving
    "#]],
    );
    version("..2026_02", &GOOD.replace("10.244.1.1", "10.244.1.9"));
    check(
        &mut source,
        expect![[r#"
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.9 ready serving
    "#]],
    );
    // A dangling link does not count as a deleted file.
    fs::remove_dir_all(dir.path().join("..2026_02")).unwrap();
    check(
        &mut source,
        expect![[r#"
        problem: web.yaml: cannot be read: No such file or directory (os error 2)
    "#]],
    );
    check(&mut source, expect![""]);
}

#[test]
fn missing_folder_keeps_the_state_in_force() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("manifests");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("web.yaml"), GOOD).unwrap();
    let mut source = ManifestSource::open(&dir).unwrap();
    source.scan();
    fs::remove_dir_all(&dir).unwrap();
    check(
        &mut source,
        expect![[r#"
            problem: DIR: cannot read the folder: No such file or directory (os error 2). kube-ipvs keeps its last known objects
        "#]],
    );
    check(&mut source, expect![""]);
    fs::create_dir(&dir).unwrap();
    check(
        &mut source,
        expect![[r#"
        Service default/web is gone
        Slice default/web-1 is gone
    "#]],
    );
}

#[test]
fn too_large_file_is_rejected_without_reading_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("big.yaml")).unwrap().set_len(MAX_FILE_SIZE + 1).unwrap();
    check(
        &mut ManifestSource::open(dir.path()).unwrap(),
        expect![[r#"
            problem: big.yaml: is too large: it has 65 MiB, and the maximum is 64 MiB
        "#]],
    );
}

#[test]
fn source_on_a_path_that_is_no_folder_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = |path: &Path| format!("{:#}", ManifestSource::open(path).unwrap_err());
    assert!(refused(&file).ends_with("/file is not a folder: pass the folder with the manifests"));
    let unreadable = refused(&dir.path().join("none"));
    assert!(unreadable.starts_with("cannot read the folder "), "{unreadable}");
    assert!(unreadable.contains("/none: No such file"), "{unreadable}");
}

/// Follows a folder on a thread that ends with the receiver.
fn followed(dir: &Path) -> Receiver<Changes> {
    let source = ManifestSource::open(dir).unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        follow(source, |changes| match sender.send(changes) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
    });
    receiver
}

fn next(receiver: &Receiver<Changes>) -> Changes {
    loop {
        // The timeout only ends a hanging test.
        let changes = receiver.recv_timeout(scenarios::patience()).expect("something changed");
        if !changes.is_empty() {
            return changes;
        }
    }
}

#[test]
fn folder_changes_are_followed_without_a_restart() {
    let parent = tempfile::tempdir().unwrap();
    let place = |name: &str| parent.path().join(name);
    let dir = place("manifests");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("web.yaml"), GOOD).unwrap();
    fs::write(dir.join("other.yaml"), GOOD.replace("web", "other")).unwrap();
    let receiver = followed(&dir);
    assert_eq!(next(&receiver).events.len(), 4, "the first look is one batch");

    replace(&dir, "web.yaml", &GOOD.replace("10.244.1.1", "10.244.1.2"));
    expect![[r#"
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.2 ready serving
    "#]]
    .assert_eq(&render(&next(&receiver)));

    // Editors write in several steps. A scan in between must remove no Service.
    fs::write(dir.join("web.yaml"), "").unwrap();
    fs::write(dir.join("web.yaml"), GOOD.replace("10.244.1.1", "10.244.1.3")).unwrap();
    let mut looks = std::iter::repeat_with(|| next(&receiver));
    let changes = looks.find(|changes| !changes.events.is_empty()).unwrap();
    expect![[r#"
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.3 ready serving
    "#]]
    .assert_eq(&render(&changes));

    // Each change is atomic: kube-ipvs would follow an intermediate state.
    fs::rename(&dir, place("away")).unwrap();
    assert_eq!(next(&receiver).problems.len(), 1);
    fs::create_dir(place("new")).unwrap();
    fs::write(place("new").join("web.yaml"), GOOD).unwrap();
    fs::rename(place("new"), &dir).unwrap();
    expect![[r#"
        Service default/other is gone
        Slice default/other-1 is gone
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.1 ready serving
    "#]]
    .assert_eq(&render(&next(&receiver)));
}
