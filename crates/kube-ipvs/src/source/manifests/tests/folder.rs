//! Files that change one after the other.

use expect_test::{Expect, expect};
use proxier::Completeness;

use super::*;

fn service(name: &str, address: &str, selector: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {address}, selector: {selector}, ports: [{{port: 80}}]}}\n"
    )
}

fn endpoints(name: &str, address: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Endpoints\nmetadata: {{name: {name}{more}}}\nsubsets: [{{addresses: [{{ip: {address}}}], ports: [{{port: 80}}]}}]\n"
    )
}

fn step(folder: &mut Folder, file: &str, text: Option<&str>, expected: Expect) {
    let content = text.map_or(Content::Gone, |text| Content::Bytes(text.as_bytes()));
    expected.assert_eq(&render(&folder.load([(file, content)])));
}

#[test]
fn only_changed_objects_emit_events() {
    let mut folder = Folder::default();
    step(
        &mut folder,
        "a.yaml",
        Some(GOOD),
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""]
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.1 ready serving
    "#]],
    );
    step(&mut folder, "a.yaml", Some(GOOD), expect![""]);
    step(&mut folder, "a.yaml", Some(&format!("# a comment\n{GOOD}")), expect![""]);
    step(
        &mut folder,
        "a.yaml",
        Some(&GOOD.replace("10.244.1.1", "10.244.1.2")),
        expect![[r#"
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.2 ready serving
    "#]],
    );
    step(
        &mut folder,
        "a.yaml",
        Some(&service("web", "10.96.0.1", "{}")),
        expect![[r#"
        Slice default/web-1 is gone
    "#]],
    );
    step(
        &mut folder,
        "a.yaml",
        None,
        expect![[r#"
        Service default/web is gone
    "#]],
    );
    step(&mut folder, "a.yaml", None, expect![""]);
    step(
        &mut folder,
        "a.yaml",
        Some(GOOD),
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""]
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.1 ready serving
    "#]],
    );
    step(
        &mut folder,
        "a.yaml",
        Some(""),
        expect![[r#"
            problem: a.yaml: is empty. To remove its objects, remove the file
        "#]],
    );
}

#[test]
fn object_in_two_files_follows_the_first_by_name() {
    let mut folder = Folder::default();
    step(
        &mut folder,
        "b.yaml",
        Some(&service("web", "10.96.0.2", "{}")),
        expect![[r#"
        Service default/web [10.96.0.2] [TCP 80 ""]
    "#]],
    );
    step(
        &mut folder,
        "a.yaml",
        Some(&service("web", "10.96.0.1", "{}")),
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: b.yaml: Service default/web: is also in a.yaml, which comes first and takes precedence
        "#]],
    );
    step(&mut folder, "b.yaml", Some(&service("web", "10.96.0.3", "{}")), expect![""]);
    step(
        &mut folder,
        "a.yaml",
        Some(&service("web", "10.96.0.4", "{}")),
        expect![[r#"
        Service default/web [10.96.0.4] [TCP 80 ""]
    "#]],
    );
    step(
        &mut folder,
        "a.yaml",
        None,
        expect![[r#"
        Service default/web [10.96.0.3] [TCP 80 ""]
    "#]],
    );
    step(
        &mut folder,
        "a.yaml",
        Some(&service("web", "10.96.0.4", "{}")),
        expect![[r#"
            Service default/web [10.96.0.4] [TCP 80 ""]
            problem: b.yaml: Service default/web: is also in a.yaml, which comes first and takes precedence
        "#]],
    );
}

#[test]
fn object_moved_to_another_file_emits_no_event() {
    let mut folder = Folder::default();
    load(&mut folder, &[("a.yaml", GOOD)]);
    let changes = folder.load([("a.yaml", Content::Gone), ("b.yaml", Content::Bytes(GOOD.as_bytes()))]);
    assert!(changes.is_empty(), "{}", render(&changes));
}

#[test]
fn endpoints_are_mirrored_only_for_services_without_a_selector() {
    let mut folder = Folder::default();
    step(&mut folder, "e.yaml", Some(&endpoints("db", "10.0.0.1", "")), expect![""]);
    step(
        &mut folder,
        "s.yaml",
        Some(&service("db", "10.96.0.1", "{app: db}")),
        expect![[r#"
        Service default/db [10.96.0.1] [TCP 80 ""]
    "#]],
    );
    step(
        &mut folder,
        "s.yaml",
        Some(&service("db", "10.96.0.1", "{}")),
        expect![[r#"
        Slice default/db:endpoints-0-ipv4 of default/db IPv4 [TCP 80 ""]
          10.0.0.1 ready serving
    "#]],
    );
    step(
        &mut folder,
        "e.yaml",
        Some(&endpoints("db", "10.0.0.2", "")),
        expect![[r#"
        Slice default/db:endpoints-0-ipv4 of default/db IPv4 [TCP 80 ""]
          10.0.0.2 ready serving
    "#]],
    );
    let skip = ", labels: {endpointslice.kubernetes.io/skip-mirror: \"true\"}";
    step(
        &mut folder,
        "e.yaml",
        Some(&endpoints("db", "10.0.0.2", skip)),
        expect![[r#"
        Slice default/db:endpoints-0-ipv4 is gone
    "#]],
    );
    let leader = ", annotations: {control-plane.alpha.kubernetes.io/leader: \"{}\"}";
    step(&mut folder, "e.yaml", Some(&endpoints("db", "10.0.0.2", leader)), expect![""]);
    step(
        &mut folder,
        "e.yaml",
        Some(&endpoints("db", "10.0.0.2", "")),
        expect![[r#"
        Slice default/db:endpoints-0-ipv4 of default/db IPv4 [TCP 80 ""]
          10.0.0.2 ready serving
    "#]],
    );
    step(
        &mut folder,
        "s.yaml",
        Some(&service("db", "10.96.0.1", "{app: db}")),
        expect![[r#"
        Slice default/db:endpoints-0-ipv4 is gone
    "#]],
    );
    step(
        &mut folder,
        "s.yaml",
        Some(&service("db", "10.96.0.1", "{}")),
        expect![[r#"
        Slice default/db:endpoints-0-ipv4 of default/db IPv4 [TCP 80 ""]
          10.0.0.2 ready serving
    "#]],
    );
    step(
        &mut folder,
        "s.yaml",
        None,
        expect![[r#"
        Service default/db is gone
        Slice default/db:endpoints-0-ipv4 is gone
    "#]],
    );
}

#[test]
fn unreadable_file_keeps_its_last_good_content_in_force() {
    let mut folder = Folder::default();
    load(&mut folder, &[("a.yaml", GOOD)]);
    let changes = folder.load([("a.yaml", Content::Unreadable("cannot be read: permission denied"))]);
    expect![[r#"
        problem: a.yaml: cannot be read: permission denied
    "#]]
    .assert_eq(&render(&changes));
    assert!(folder.load([("a.yaml", Content::Unreadable("cannot be read: permission denied"))]).is_empty());
    step(
        &mut folder,
        "a.yaml",
        None,
        expect![[r#"
        Service default/web is gone
        Slice default/web-1 is gone
    "#]],
    );
}

#[test]
fn folder_is_complete_once_every_file_could_be_followed() {
    let mut folder = Folder::default();
    let mut complete = |name, text: Option<&str>| {
        let content = text.map_or(Content::Gone, |text| Content::Bytes(text.as_bytes()));
        folder.load([(name, content)]).complete == Completeness::Complete
    };
    assert!(complete("a.yaml", Some(GOOD)));
    assert!(!complete("b.yaml", Some("kind: [")));
    assert!(!complete("c.yaml", Some(&service("c", "10.96.0.3", "{}"))));
    assert!(complete("b.yaml", None));
    // The last good content of the file is known.
    assert!(complete("a.yaml", Some("")));
}
