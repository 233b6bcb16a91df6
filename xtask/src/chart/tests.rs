//! Checks without helm: the chart against its values and schema, and against the manifests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{CHART, GOLDEN};

/// Labels and annotations that only the chart has.
const OF_HELM: [&str; 3] = ["app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart"];
const CONFIGURATION: &str = "kube-ipvs.io/configuration";
/// Helm adds this value to those of a chart within a chart.
const GLOBAL: &str = "global";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn of_chart(name: &str) -> String {
    read(&format!("{CHART}/{name}"))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple::<Value>(text).unwrap().into_iter().filter(|document| !document.is_null()).collect()
}

fn schema() -> Value {
    serde_json::from_str(&of_chart("values.schema.json")).unwrap()
}

fn templates() -> String {
    let entries = fs::read_dir(root().join(CHART).join("templates")).unwrap();
    entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

/// The paths that follow `.Values` in the templates.
fn named(templates: &str) -> BTreeSet<String> {
    let after = templates.split(".Values.").skip(1);
    let path = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect::<String>();
    after.map(|text| path(text).trim_end_matches('.').to_owned()).collect()
}

fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

fn at_schema<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(schema, |schema, key| schema.get("properties")?.get(key))
}

/// Whether the schema of an object lists all of its fields.
fn is_closed(schema: &Value) -> bool {
    schema["additionalProperties"] == false
}

/// Collects the paths of the values that are not closed objects.
fn leaves(values: &Value, schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    for (key, value) in values.as_object().unwrap() {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match schema["properties"].get(key) {
            Some(of_key) if is_closed(of_key) => leaves(value, of_key, &path, found),
            Some(_) => drop(found.insert(path)),
            None => panic!("values.yaml has {path}, and the schema has not"),
        }
    }
}

/// Collects the paths of the schema that are not closed objects.
fn fields(schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    for (key, of_key) in schema["properties"].as_object().unwrap() {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match is_closed(of_key) {
            true => fields(of_key, &path, found),
            false => drop(found.insert(path)),
        }
    }
}

#[test]
fn chart_templates_values_and_schema_name_the_same_values() {
    let (values, schema, named) = (yaml(&of_chart("values.yaml")), schema(), named(&templates()));
    let (mut known, mut described) = (BTreeSet::new(), BTreeSet::new());
    leaves(&values, &schema, "", &mut known);
    fields(&schema, "", &mut described);
    assert!(described.remove(GLOBAL));
    assert_eq!(known, described, "values.yaml and its schema");
    for path in &named {
        // A field of a map that users fill in freely has no default.
        let map = path.split('.').next().unwrap();
        let is_field = at_schema(&schema, map).is_some_and(|of_map| !is_closed(of_map));
        assert!(is_field || at(&values, path).is_some(), "a template has .Values.{path}, and values.yaml has not");
        assert!(at_schema(&schema, path).is_some(), "the schema lacks {path}");
    }
    let is_used = |value: &&String| named.iter().any(|path| path == *value || value.starts_with(&format!("{path}.")));
    let unused: Vec<_> = known.iter().filter(|value| !is_used(value)).collect();
    assert!(unused.is_empty(), "no template uses {unused:?}");
}

/// The breaches of a schema. Supports only the keywords that `values.schema.json` has, and skips patterns.
fn breaches(value: &Value, schema: &Value, at: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let is_of = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("the type {other}"),
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is_of(name)) {
        breaches.push(format!("{at}: {value} is not of the type {types:?}"));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        breaches.push(format!("{at}: {value} is not among {}", schema["enum"]));
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let of_key = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
        match of_key {
            Value::Bool(false) => breaches.push(format!("{at}.{key} is unknown")),
            of_key => breaches.extend(self::breaches(value, of_key, &format!("{at}.{key}"))),
        }
    }
    for item in value.as_array().into_iter().flatten() {
        breaches.extend(self::breaches(item, &schema["items"], &format!("{at}[]")));
    }
    breaches
}

fn golden_names() -> Vec<String> {
    let values = super::values_files(&root().join(CHART)).unwrap();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().trim_end_matches(super::VALUES).to_owned();
    values.iter().map(name).collect()
}

#[test]
fn chart_schema_accepts_the_default_and_the_golden_values() {
    let schema = schema();
    assert_eq!(breaches(&yaml(&of_chart("values.yaml")), &schema, "values"), [""; 0]);
    for name in golden_names() {
        let values = yaml(&of_chart(&format!("{GOLDEN}/{name}{}", super::VALUES)));
        assert_eq!(breaches(&values, &schema, &name), [""; 0]);
    }
    let wrong = json!({"image": {"tagg": "1"}, "flags": "--a", "rbac": {"create": "yes"}});
    assert_eq!(breaches(&wrong, &schema, "values").len(), 3);
}

/// The object without the additions of the chart, and with its configuration files parsed.
fn plain(mut object: Value) -> Value {
    let of_pods = |object: &mut Value| object.pointer_mut("/spec/template/metadata").map(Value::take);
    let (mut own, pods) = (object["metadata"].take(), of_pods(&mut object));
    let strip = |metadata: &mut Value| {
        for (map, keys) in [("labels", &OF_HELM[..]), ("annotations", &[CONFIGURATION][..])] {
            let Some(fields) = metadata.get_mut(map).and_then(Value::as_object_mut) else { continue };
            fields.retain(|key, _| !keys.contains(&&**key));
            if fields.is_empty() {
                metadata.as_object_mut().unwrap().remove(map);
            }
        }
    };
    strip(&mut own);
    // Only some objects of the manifests have the label by which commands find the pods.
    if object["kind"] != "DaemonSet" {
        own.as_object_mut().unwrap().remove("labels");
    }
    object["metadata"] = own;
    if let Some(mut pods) = pods {
        strip(&mut pods);
        object["spec"]["template"]["metadata"] = pods;
    }
    if object["kind"] == "ConfigMap" {
        let texts = object["data"].as_object_mut().unwrap();
        texts.values_mut().for_each(|text| *text = yaml(text.as_str().unwrap()));
    }
    object
}

fn objects(texts: &[String]) -> Vec<Value> {
    let mut objects: Vec<Value> = texts.iter().flat_map(|text| documents(text)).map(plain).collect();
    objects.sort_by_key(|object| object["kind"].as_str().unwrap().to_owned());
    objects
}

#[test]
fn chart_with_default_values_equals_the_manifests() {
    let list = yaml(&read("manifests/kustomization.yaml"));
    let files = list["resources"].as_array().unwrap().iter().filter_map(Value::as_str);
    let manifests: Vec<String> = files.map(|file| read(&format!("manifests/{file}"))).collect();
    let (ours, rendered) = (objects(&manifests), objects(&[of_chart(&format!("{GOLDEN}/default.yaml"))]));
    let kinds = |objects: &[Value]| objects.iter().map(|object| object["kind"].clone()).collect::<Vec<_>>();
    assert_eq!(kinds(&ours), kinds(&rendered));
    for (ours, rendered) in ours.iter().zip(&rendered) {
        assert_eq!(ours, rendered, "{}", ours["kind"]);
    }
}

#[test]
fn init_container_and_daemon_of_the_chart_have_the_same_flags() {
    for name in golden_names() {
        let all = documents(&of_chart(&format!("{GOLDEN}/{name}.yaml")));
        let set = all.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
        let pod = &set["spec"]["template"]["spec"];
        let [first, daemon] = [&pod["initContainers"][0], &pod["containers"][0]];
        assert_eq!(first["args"], daemon["args"], "{name}");
        assert_eq!([&first["image"], &first["env"]], [&daemon["image"], &daemon["env"]], "{name}");
    }
}

#[test]
fn full_golden_file_has_the_optional_objects() {
    let all = documents(&of_chart(&format!("{GOLDEN}/full.yaml")));
    let named = |kind: &str, name: &str| all.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    for kind in ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "DaemonSet", "PodMonitor", "PrometheusRule"] {
        let name = if kind == "ServiceAccount" { "proxy" } else { "kube-ipvs-edge" };
        assert!(named(kind, name).is_some(), "{kind}");
    }
}

#[test]
fn chart_has_the_version_of_the_workspace() {
    let chart = yaml(&of_chart("Chart.yaml"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((chart["version"].as_str(), chart["appVersion"].as_str()), (Some(version), Some(version)));
}
