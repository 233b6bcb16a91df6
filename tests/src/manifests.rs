//! The folder of manifests that replaces the API server, and builders for its content.

use std::fmt::{self, Display, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::control_plane::ControlPlane;

/// A folder of YAML files. Each file changes atomically, as in a mounted ConfigMap. If there is a control plane, its
/// objects follow the files.
#[derive(Debug, Clone)]
pub struct Manifests {
    directory: PathBuf,
    /// The control plane that follows the files.
    control_plane: Option<&'static ControlPlane>,
}

impl Manifests {
    pub(crate) fn create(directory: &Path, control_plane: Option<&'static ControlPlane>) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        Ok(Self { directory: directory.to_owned(), control_plane })
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of the file called `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.yaml"))
    }

    /// Writes or replaces the file `name`.yaml. The daemon sees the old or the new content, never a part.
    pub fn write(&self, name: &str, content: &impl Display) -> Result<()> {
        // Outside the folder: the daemon must not see an unfinished file.
        let draft = self.directory.with_extension(format!("draft-{name}"));
        let content = content.to_string();
        let before = fs::read_to_string(self.path(name)).unwrap_or_default();
        fs::write(&draft, &content).with_context(|| format!("writing {}", draft.display()))?;
        fs::rename(&draft, self.path(name)).with_context(|| format!("writing {}", self.path(name).display()))?;
        self.control_plane.map_or(Ok(()), |control_plane| control_plane.replace(&before, &content))
    }

    /// Removes the file `name`.yaml.
    pub fn remove(&self, name: &str) -> Result<()> {
        let before = self.read(name)?;
        fs::remove_file(self.path(name)).with_context(|| format!("removing {}", self.path(name).display()))?;
        self.control_plane.map_or(Ok(()), |control_plane| control_plane.delete(&before))
    }

    /// Deletes the objects of all files from the control plane.
    pub(crate) fn withdraw(&self) -> Result<()> {
        let Some(control_plane) = self.control_plane else { return Ok(()) };
        for file in fs::read_dir(&self.directory)? {
            control_plane.delete(&fs::read_to_string(file?.path())?)?;
        }
        Ok(())
    }

    /// Copies the example manifests/examples/`name`.yaml, as a user would apply it.
    pub fn example(&self, name: &str) -> Result<()> {
        self.write(name, &of_project(&format!("examples/{name}.yaml"))?)
    }

    /// Replaces a text in the file `name`.yaml. Fails if the file does not contain it.
    pub fn edit(&self, name: &str, from: &str, to: &str) -> Result<()> {
        let text = self.read(name)?;
        ensure!(text.contains(from), "{} does not hold {from:?}", self.path(name).display());
        self.write(name, &text.replace(from, to))
    }

    /// Removes the endpoint with this address from the slices in the file `name`.yaml.
    pub fn remove_endpoint(&self, name: &str, address: &str) -> Result<()> {
        let text = without_endpoint(&self.read(name)?, address);
        self.write(name, &text.with_context(|| format!("{} has no endpoint {address}", self.path(name).display()))?)
    }

    /// The content of the file `name`.yaml.
    pub fn read(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.path(name)).with_context(|| format!("reading {}", self.path(name).display()))
    }
}

/// A slice's text without the list entry of an address; `None` if no entry has it.
fn without_endpoint(text: &str, address: &str) -> Option<String> {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let holds = |line: &&str| {
        let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == ':'));
        line.trim_start().starts_with("- addresses:") && words.into_iter().any(|word| word == address)
    };
    let start = lines.iter().position(holds)?;
    let rest = lines[start + 1..].iter().take_while(|line| indentation(line) > indentation(lines[start])).count();
    Some([&lines[..start], &lines[start + 1 + rest..]].concat().concat())
}

/// Reads a file below the project's folder `manifests`. Without the source tree, `KUBE_IPVS_MANIFESTS` names that
/// folder.
pub fn of_project(name: &str) -> Result<String> {
    let manifests = std::env::var_os("KUBE_IPVS_MANIFESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests"), PathBuf::from);
    let path = manifests.join(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// A Service manifest.
#[derive(Debug, Clone)]
#[must_use]
pub struct Service {
    name: String,
    annotations: Vec<String>,
    created: String,
    cluster_ips: Vec<String>,
    spec: String,
    ports: String,
    ingress: Vec<String>,
}

impl Service {
    /// A Service in the namespace `default`, without address or ports yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            annotations: Vec::new(),
            created: "2024-01-01T00:00:00Z".into(),
            cluster_ips: Vec::new(),
            spec: String::new(),
            ports: String::new(),
            ingress: Vec::new(),
        }
    }

    /// Adds an annotation `kube-ipvs.io/…`.
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.push(format!("kube-ipvs.io/{name}: {value:?}"));
        self
    }

    /// Adds an IP to the status, as a load balancer does.
    pub fn load_balancer_ip(mut self, address: &str) -> Self {
        self.ingress.push(format!("{{ ip: \"{address}\" }}"));
        self
    }

    /// Sets the creationTimestamp.
    pub fn created(mut self, time: &str) -> Self {
        self.created = time.into();
        self
    }

    /// Adds a ClusterIP. A second one makes the Service dual-stack.
    pub fn cluster_ip(mut self, address: &str) -> Self {
        self.cluster_ips.push(address.into());
        self
    }

    /// Adds a line to the spec, such as `type: NodePort`.
    pub fn line(mut self, line: &str) -> Self {
        let _ = writeln!(self.spec, "  {line}");
        self
    }

    /// Sets the type NodePort.
    pub fn node_port_type(self) -> Self {
        self.line("type: NodePort")
    }

    /// Adds an unnamed TCP port.
    pub fn port(self, port: u16) -> Self {
        self.port_line(&format!("port: {port}"))
    }

    /// Adds a named port of a protocol.
    pub fn named_port(self, name: &str, protocol: &str, port: u16) -> Self {
        self.port_line(&format!("name: {name}, protocol: {protocol}, port: {port}"))
    }

    /// Adds a port as a list of its fields, such as `port: 80, nodePort: 30080`.
    pub fn port_line(mut self, fields: &str) -> Self {
        let _ = writeln!(self.ports, "  - {{ {fields} }}");
        self
    }
}

impl Display for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, annotations, created, cluster_ips, spec, ports, ingress } = self;
        writeln!(out, "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default")?;
        if !annotations.is_empty() {
            writeln!(out, "  annotations: {{ {} }}", annotations.join(", "))?;
        }
        writeln!(out, "  creationTimestamp: \"{created}\"\nspec:\n  selector: {{ app: {name} }}")?;
        if let Some(first) = cluster_ips.first() {
            let all: Vec<String> = cluster_ips.iter().map(|address| format!("\"{address}\"")).collect();
            let families: Vec<&str> =
                cluster_ips.iter().map(|address| if address.contains(':') { "IPv6" } else { "IPv4" }).collect();
            let policy = if all.len() > 1 { "RequireDualStack" } else { "SingleStack" };
            writeln!(out, "  clusterIP: \"{first}\"\n  clusterIPs: [{}]", all.join(", "))?;
            writeln!(out, "  ipFamilies: [{}]\n  ipFamilyPolicy: {policy}", families.join(", "))?;
        }
        write!(out, "{spec}")?;
        if !ports.is_empty() {
            write!(out, "  ports:\n{ports}")?;
        }
        if !ingress.is_empty() {
            writeln!(out, "status:\n  loadBalancer: {{ ingress: [{}] }}", ingress.join(", "))?;
        }
        Ok(())
    }
}

/// An EndpointSlice manifest.
#[derive(Debug, Clone)]
#[must_use]
pub struct Slice {
    service: String,
    name: String,
    annotations: Vec<String>,
    ports: String,
    endpoints: String,
    ipv6: bool,
}

impl Slice {
    /// A slice of a Service in the namespace `default`.
    pub fn of(service: &str) -> Self {
        Self {
            service: service.into(),
            name: format!("{service}-1"),
            annotations: Vec::new(),
            ports: String::new(),
            endpoints: String::new(),
            ipv6: false,
        }
    }

    /// Sets another name than `SERVICE-1`, for the second slice of a Service.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Adds an annotation `kube-ipvs.io/…`.
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.push(format!("kube-ipvs.io/{name}: {value:?}"));
        self
    }

    /// Adds an unnamed TCP port.
    pub fn port(self, port: u16) -> Self {
        self.named_port("\"\"", "TCP", port)
    }

    /// Adds a named port.
    pub fn named_port(mut self, name: &str, protocol: &str, port: u16) -> Self {
        let _ = writeln!(self.ports, "- {{ name: {name}, protocol: {protocol}, port: {port} }}");
        self
    }

    /// Adds a ready endpoint.
    pub fn ready(self, address: &str) -> Self {
        self.endpoint(address, "ready: true, serving: true, terminating: false")
    }

    /// Adds an endpoint with these conditions.
    pub fn endpoint(mut self, address: &str, conditions: &str) -> Self {
        self.ipv6 = address.contains(':');
        let _ = writeln!(self.endpoints, "- addresses: [\"{address}\"]\n  conditions: {{ {conditions} }}");
        self
    }

    /// Sets the node of the last endpoint.
    pub fn on(mut self, node: &str) -> Self {
        let _ = writeln!(self.endpoints, "  nodeName: {node}");
        self
    }
}

impl Display for Slice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, name, annotations, ports, endpoints, ipv6 } = self;
        writeln!(out, "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}")?;
        writeln!(out, "  namespace: default\n  labels: {{ kubernetes.io/service-name: {service} }}")?;
        if !annotations.is_empty() {
            writeln!(out, "  annotations: {{ {} }}", annotations.join(", "))?;
        }
        writeln!(out, "addressType: {}", if *ipv6 { "IPv6" } else { "IPv4" })?;
        write!(out, "ports:\n{ports}")?;
        if endpoints.is_empty() { writeln!(out, "endpoints: []") } else { write!(out, "endpoints:\n{endpoints}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_builder_writes_a_valid_manifest() {
        let text = Service::new("web").cluster_ip("10.96.0.7").cluster_ip("fd00:96::7").port(80).to_string();
        assert_eq!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: default\n  creationTimestamp: \
             \"2024-01-01T00:00:00Z\"\nspec:\n  selector: { app: web }\n  clusterIP: \"10.96.0.7\"\n  clusterIPs: \
             [\"10.96.0.7\", \"fd00:96::7\"]\n  ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack\n  \
             ports:\n  - { port: 80 }\n"
        );
    }

    #[test]
    fn endpoint_is_removed_from_slice_text_by_exact_address() {
        let text = "endpoints:\n  - addresses: [10.1.1.1]\n    nodeName: a\n  - addresses: [10.1.1.11]\n    nodeName: \
                    b\n---\nkind: Service\n";
        let without = without_endpoint(text, "10.1.1.1").unwrap();
        assert_eq!(without, "endpoints:\n  - addresses: [10.1.1.11]\n    nodeName: b\n---\nkind: Service\n");
        let without = without_endpoint(text, "10.1.1.11").unwrap();
        assert_eq!(without, "endpoints:\n  - addresses: [10.1.1.1]\n    nodeName: a\n---\nkind: Service\n");
        assert_eq!(without_endpoint(text, "10.1.1"), None);
    }

    #[test]
    fn slice_builder_writes_a_valid_manifest() {
        let text = Slice::of("web").port(8080).ready("10.244.1.2").on("node-1").to_string();
        assert_eq!(
            text,
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  namespace: default\n  \
             labels: { kubernetes.io/service-name: web }\naddressType: IPv4\nports:\n- { name: \"\", protocol: TCP, \
             port: 8080 }\nendpoints:\n- addresses: [\"10.244.1.2\"]\n  conditions: { ready: true, serving: true, \
             terminating: false }\n  nodeName: node-1\n"
        );
    }
}
