//! A real control plane: etcd and kube-apiserver, as envtest runs them. kube-controller-manager adds the one controller
//! that mirrors Endpoints into EndpointSlices.
//!
//! If it is configured, scenarios apply their manifests to it and daemons watch it, with the rights of
//! `manifests/rbac.yaml`. It starts once per process and serves one cluster at a time.

mod certificates;
mod client;
mod credentials;
mod objects;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};

use crate::manifests::of_project;
use crate::namespace::Namespace;
use crate::programs::Program;
use crate::wait::eventually;
use client::Client;
use credentials::{ADMINISTRATOR, Credentials};
use objects::objects;

/// The environment variable with the folder of etcd and kube-apiserver. `cargo xtask e2e --cluster envtest` sets it.
const PROGRAMS: &str = "KUBE_IPVS_CONTROL_PLANE";
/// The control plane's address on the LAN.
pub(crate) const ADDRESS: &str = "192.168.128.250";
const URL: &str = "https://192.168.128.250:6443";
const LOCAL_URL: &str = "https://127.0.0.1:6443";
const ETCD: &str = "http://127.0.0.1:2379";
/// The ranges of the scenarios' ClusterIPs: the API server's flag, and further ServiceCIDRs.
const SERVICE_RANGES: &str = "10.96.0.0/12,fd00:10:96::/112";
const MORE_SERVICE_RANGES: [(&str, &str); 2] = [("hostnames", "10.0.91.0/24"), ("my-nginx", "10.10.0.0/16")];

/// A daemon's request from the API server's audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The verb, such as `watch` or `create`.
    pub verb: String,
    /// The path with its parameters.
    pub uri: String,
    /// The HTTP status of the answer.
    pub status: u64,
}

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    namespace: Arc<Namespace>,
    programs: PathBuf,
    credentials: Credentials,
    client: Client,
    kubeconfig: PathBuf,
    server: Mutex<Option<Program>>,
    /// Programs that run beside the API server until the process ends.
    _others: Vec<Program>,
    occupied: AtomicBool,
}

impl ControlPlane {
    /// Returns the control plane of this process, if one is configured.
    pub fn of_process() -> Result<Option<&'static Self>> {
        static STARTED: OnceLock<Result<Option<ControlPlane>>> = OnceLock::new();
        let started = STARTED.get_or_init(|| {
            let programs = std::env::var_os(PROGRAMS);
            programs.map(|programs| Self::start(Path::new(&programs))).transpose()
        });
        match started {
            Ok(started) => Ok(started.as_ref()),
            Err(error) => Err(anyhow!("the control plane did not start: {error:#}")),
        }
    }

    fn start(programs: &Path) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("kube-ipvs-control-plane-{}", std::process::id()));
        let credentials = Credentials::create(&directory, &[ADDRESS, "127.0.0.1", "10.96.0.1"])?;
        let namespace = Namespace::create(&format!("t{}-control-plane", std::process::id()))?;
        namespace.ip("link set lo up")?;
        let etcd = [
            format!("--data-dir={}", directory.join("etcd").display()),
            // The data need not survive a power cut.
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        ];
        let log = directory.join("etcd.log");
        let etcd = Program::start(&namespace, &program(programs, "etcd")?, &etcd, &log)?;
        let etcd = etcd.await_port(&namespace, 2379, &log)?;
        let client = Client::new(&namespace, LOCAL_URL, &credentials.path("ca.crt"), ADMINISTRATOR);
        let token_file = format!("tokenFile: {}", credentials.path("daemon.token").display());
        let kubeconfig = credentials.kubeconfig("daemon.kubeconfig", URL, &token_file)?;
        let mut made = Self {
            namespace,
            programs: programs.to_owned(),
            credentials,
            client,
            kubeconfig,
            server: Mutex::new(None),
            _others: vec![etcd],
            occupied: AtomicBool::new(false),
        };
        made.back()?;
        made.prepare()?;
        made.start_controllers()?;
        Ok(made)
    }

    /// Creates the daemon's rights and the ServiceCIDRs, and hides the API server's Service from the daemons.
    fn prepare(&self) -> Result<()> {
        eventually(|| self.client.get("/api/v1/namespaces/kube-system"))?;
        self.apply(&of_project("rbac.yaml")?)?;
        for (name, range) in MORE_SERVICE_RANGES {
            self.apply(&format!(
                "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {{name: {name}}}\nspec: {{cidrs: [{range}]}}\n"
            ))?;
        }
        // The API server creates a Service for itself. Scenarios count the served Services, so another proxy gets it.
        eventually(|| self.serve_own_service(false))?;
        std::fs::write(self.token_file(), self.token(None)?)?;
        // The authorizer sees new rules only after its watch delivers them.
        let daemon = Client::new(&self.namespace, LOCAL_URL, &self.credentials.path("ca.crt"), &self.token(None)?);
        eventually(|| daemon.get("/apis/networking.k8s.io/v1/servicecidrs")).map(drop)
    }

    fn start_controllers(&mut self) -> Result<()> {
        if !self.has_controllers() {
            return Ok(());
        }
        let user = format!("token: {ADMINISTRATOR}");
        let kubeconfig = self.credentials.kubeconfig("controllers.kubeconfig", LOCAL_URL, &user)?;
        let flags = [
            format!("--kubeconfig={}", kubeconfig.display()),
            // The EndpointSlice controller would delete the slices that scenarios write by hand.
            "--controllers=endpointslice-mirroring-controller".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        let program = program(&self.programs, "kube-controller-manager")?;
        let log = self.credentials.path("kube-controller-manager.log");
        self._others.push(Program::start(&self.namespace, &program, &flags, &log)?);
        Ok(())
    }

    /// Starts the real kube-proxy in ipvs mode on a node, with extra flags. Dropping the program kills it.
    pub fn kube_proxy(&self, node: &Namespace, name: &str, flags: &[&str]) -> Result<Program> {
        let user = format!("token: {ADMINISTRATOR}");
        let kubeconfig = self.credentials.kubeconfig("kube-proxy.kubeconfig", URL, &user)?;
        let own = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={name}"),
            "--proxy-mode=ipvs".to_owned(),
            // These limits apply to the machine. The node is only a network namespace.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-min=0".to_owned(),
        ];
        let all: Vec<String> = own.into_iter().chain(flags.iter().map(|&flag| flag.to_owned())).collect();
        let log = self.credentials.path("kube-proxy.log");
        Program::start(node, &program(&self.programs, "kube-proxy")?, &all, &log)
    }

    /// Whether this control plane mirrors Endpoints into EndpointSlices.
    pub fn has_controllers(&self) -> bool {
        self.programs.join("kube-controller-manager").is_file()
    }

    /// Starts or restarts the API server.
    pub fn back(&self) -> Result<()> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.credentials.path(name).display());
        let flags = [
            format!("--etcd-servers={ETCD}"),
            format!("--advertise-address={ADDRESS}"),
            "--secure-port=6443".to_owned(),
            file("tls-cert-file", "server.crt"),
            file("tls-private-key-file", "server.key"),
            file("token-auth-file", "tokens.csv"),
            file("service-account-key-file", "service-accounts.pub"),
            file("service-account-signing-key-file", "service-accounts.key"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_RANGES}"),
            "--authorization-mode=RBAC".to_owned(),
            file("audit-policy-file", "audit.yaml"),
            file("audit-log-path", "audit.log"),
        ];
        let log = self.credentials.path("kube-apiserver.log");
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        // The old server must free the port first.
        server.take();
        let program = program(&self.programs, "kube-apiserver")?;
        let server = server.insert(Program::start(&self.namespace, &program, &flags, &log)?);
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let ready = eventually(|| match server.ended()? {
            Some(status) => Ok(Err(anyhow!("it ended: {status}"))),
            None => self.client.get("/readyz").map(Ok),
        });
        ready.flatten().map(drop).with_context(|| format!("kube-apiserver says:\n{}", said()))
    }

    /// Kills the API server, as in a crash.
    pub fn away(&self) {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Creates or updates the objects of a manifest, as `kubectl apply --server-side`.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        objects(manifest)?.iter().try_for_each(|object| self.client.apply(object))
    }

    /// Deletes the objects of a manifest.
    pub fn delete(&self, manifest: &str) -> Result<()> {
        objects(manifest)?.iter().try_for_each(|object| self.client.delete(&object.path))
    }

    /// Applies a changed manifest: deletes the objects that it dropped, and creates or updates the rest.
    pub(crate) fn replace(&self, before: &str, after: &str) -> Result<()> {
        let (before, after) = (objects(before)?, objects(after)?);
        let is_gone = |object: &&objects::Object| !after.iter().any(|kept| kept.path == object.path);
        before.iter().filter(is_gone).try_for_each(|object| self.client.delete(&object.path))?;
        after.iter().try_for_each(|object| self.client.apply(object))
    }

    /// Sends a GET for a path such as `/api/v1/namespaces/default/services/web`.
    pub fn get(&self, path: &str) -> Result<serde_json::Value> {
        self.client.get(path)
    }

    /// The daemons' requests so far with their HTTP statuses, from the API server's audit log.
    pub fn requests(&self) -> Result<Vec<Request>> {
        let log = std::fs::read_to_string(self.credentials.path("audit.log")).unwrap_or_default();
        // The last line can be incomplete.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let read = |line: &str| -> Result<(String, Request)> {
            let entry: serde_json::Value = serde_json::from_str(line)?;
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let status = entry["responseStatus"]["code"].as_u64().unwrap_or_default();
            let request = Request { verb: text(&entry["verb"]), uri: text(&entry["requestURI"]), status };
            Ok((text(&entry["stage"]), request))
        };
        let all = whole.lines().map(read).collect::<Result<Vec<_>>>()?;
        // The audit log has a watch twice: when it starts and when it ends.
        let is_end = |(stage, request): &(String, Request)| {
            request.verb == "watch" && request.status == 200 && stage == "ResponseComplete"
        };
        Ok(all.into_iter().filter(|entry| !is_end(entry)).map(|(_, request)| request).collect())
    }

    /// The kubeconfig of the daemons.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The file with the daemons' token.
    pub fn token_file(&self) -> PathBuf {
        self.credentials.path("daemon.token")
    }

    /// Requests a new token for the daemons' ServiceAccount. If bound to a Secret in kube-system, it expires with the
    /// Secret.
    pub fn token(&self, bound_to: Option<&str>) -> Result<String> {
        self.client.token("kube-system", "kube-ipvs", bound_to)
    }

    /// Sets whether daemons serve the Service `kubernetes`, which the API server creates for itself.
    pub fn serve_own_service(&self, served: bool) -> Result<()> {
        let label = (!served).then_some("no-proxy");
        let patch = serde_json::json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": label}}});
        self.client.merge("/api/v1/namespaces/default/services/kubernetes", &patch)
    }

    /// Reserves the control plane for one cluster and returns its namespace, which that cluster connects to its LAN.
    pub(crate) fn occupy(&self) -> Result<&Arc<Namespace>> {
        let was_occupied = self.occupied.swap(true, Ordering::SeqCst);
        ensure!(!was_occupied, "two clusters at a time have one control plane: --test-threads=1 is missing");
        Ok(&self.namespace)
    }

    /// Frees the control plane for the next cluster.
    pub(crate) fn leave(&self) -> Result<()> {
        let left = self.namespace.ip("link del eth0");
        self.occupied.store(false, Ordering::SeqCst);
        left
    }
}

fn program(programs: &Path, name: &str) -> Result<String> {
    let path = programs.join(name);
    ensure!(path.is_file(), "there is no {}", path.display());
    Ok(path.to_string_lossy().into_owned())
}
