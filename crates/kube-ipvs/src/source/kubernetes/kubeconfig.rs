//! The address of the API server and the credentials, from flags, kubeconfig or pod.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, ensure};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use kube::{
    Config,
    config::{Cluster, KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;

use super::proxy;
use crate::config::ClientConnection;

#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) config: Config,
    pub(super) proxy: Option<Intercept>,
}

/// Follows kube-proxy and kubectl. The kubeconfig comes first, with its server replaced by `--master` if that is set.
/// Without a kubeconfig `--master` alone counts, and without both the pod's service account.
pub(super) async fn access(connection: &ClientConnection, pod: &Pod) -> anyhow::Result<Access> {
    let master = connection.master.as_str();
    let mut access = if !connection.kubeconfig.as_os_str().is_empty() {
        let path = &connection.kubeconfig;
        from_file(path, master).await.with_context(|| format!("--kubeconfig {}", path.display()))?
    } else if master.is_empty() {
        pod.access().await.context(
            "kube-ipvs has no API server to watch: it runs in no pod with a service account, and neither --kubeconfig \
             nor --manifests is set",
        )?
    } else {
        let url = with_scheme(master, false);
        let url = url.parse().with_context(|| format!("--master {master:?} is not a URL"))?;
        let config = Config::new(url);
        let proxy = proxy::choose(&config.cluster_url, None, &Matcher::from_env())?;
        Access { config, proxy }
    };
    let config = &mut access.config;
    let is_verified = config.cluster_url.scheme_str() == Some("https") && !config.accept_invalid_certs;
    if config.root_cert.is_none() && !is_verified {
        // Otherwise kube would load the system's certificates. A small image has none, and loading would fail.
        config.root_cert = Some(Vec::new());
    }
    Ok(access)
}

/// The kubelet's defaults for every pod, by which a pod without flags finds its API server.
#[derive(Debug, Clone)]
pub struct Pod {
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` of its environment.
    pub server: Option<(String, String)>,
    /// The folder with the service account's `token` and the API server's `ca.crt`.
    pub account: PathBuf,
}

impl Pod {
    /// Reads the environment of this process.
    pub fn of_this_process() -> Self {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            server: variable("KUBERNETES_SERVICE_HOST").zip(variable("KUBERNETES_SERVICE_PORT")),
            account: "/var/run/secrets/kubernetes.io/serviceaccount".into(),
        }
    }

    async fn access(&self) -> anyhow::Result<Access> {
        let (host, port) = self.server.as_ref().context("KUBERNETES_SERVICE_HOST and _PORT are not set")?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let path = |name: &str| -> anyhow::Result<String> {
            let path = self.account.join(name);
            ensure!(path.exists(), "there is no {}", path.display());
            Ok(path.to_string_lossy().into_owned())
        };
        let file = serde_json::json!({
            "clusters": [{"name": "pod", "cluster": {
                "server": format!("https://{host}:{port}"), "certificate-authority": path("ca.crt")?,
            }}],
            "users": [{"name": "pod", "user": {"tokenFile": path("token")?}}],
            "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
            "current-context": "pod",
        });
        from_kubeconfig(serde_json::from_value(file)?).await
    }
}

async fn from_file(path: &Path, master: &str) -> anyhow::Result<Access> {
    // These errors already name their causes.
    let file = Kubeconfig::read_from(path).map_err(|error| anyhow!("{error}"))?;
    from_kubeconfig(mended(file, master)?).await
}

async fn from_kubeconfig(file: Kubeconfig) -> anyhow::Result<Access> {
    let cluster = current_cluster(&file).cloned().unwrap_or_default();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|error| anyhow!("{error}"))?;
    if cluster.certificate_authority_data.is_none() {
        config.root_cert_file = cluster.certificate_authority.map(PathBuf::from);
    }
    let proxy = proxy::choose(&config.cluster_url, cluster.proxy_url.as_deref(), &Matcher::from_env())?;
    Ok(Access { config, proxy })
}

fn current_cluster(file: &Kubeconfig) -> Option<&Cluster> {
    let current = file.current_context.as_ref()?;
    let context = file.contexts.iter().find(|named| named.name == *current)?.context.as_ref()?;
    file.clusters.iter().find(|named| named.name == context.cluster)?.cluster.as_ref()
}

/// client-go accepts more than kube does. Returns the file in kube's form.
fn mended(file: Kubeconfig, master: &str) -> anyhow::Result<Kubeconfig> {
    let mut file = serde_json::to_value(file)?;
    let mut has_certificate = false;
    for user in named(&mut file, "users", "user") {
        ["client-certificate-data", "client-key-data"].iter().for_each(|field| join_lines(user, field));
        has_certificate |= ["client-certificate", "client-certificate-data"].iter().any(|field| has(user, field));
    }
    for cluster in named(&mut file, "clusters", "cluster") {
        join_lines(cluster, "certificate-authority-data");
        let tls = ["certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify"];
        let is_tls = has_certificate || tls.iter().any(|field| has(cluster, field));
        let server = cluster.get("server").and_then(Value::as_str).unwrap_or_default();
        let server = if master.is_empty() { server } else { master };
        if !server.is_empty() {
            cluster["server"] = with_scheme(server, is_tls).into();
        }
    }
    Ok(serde_json::from_value(file)?)
}

fn named<'a>(file: &'a mut Value, list: &str, field: &'a str) -> impl Iterator<Item = &'a mut Value> {
    let all = file.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
    all.filter_map(move |named| named.get_mut(field)).filter(|value| value.is_object())
}

fn has(fields: &Value, field: &str) -> bool {
    !matches!(fields.get(field), None | Some(Value::Null | Value::Bool(false)))
}

/// `base64 ca.crt` wraps lines, and Go ignores line breaks.
fn join_lines(fields: &mut Value, field: &str) {
    if let Some(Value::String(data)) = fields.get_mut(field) {
        data.retain(|c| !c.is_ascii_whitespace());
    }
}

/// As in client-go, an address without a scheme is a URL too.
fn with_scheme(server: &str, is_tls: bool) -> String {
    match (server.contains("://"), is_tls) {
        (true, _) => server.to_owned(),
        (false, true) => format!("https://{server}"),
        (false, false) => format!("http://{server}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mend(cluster: &str, user: &str, master: &str) -> Value {
        let text = format!(
            "{{clusters: [{{name: c, cluster: {cluster}}}], users: [{{name: u, user: {user}}}], contexts: [{{name: x, context: \
             {{cluster: c, user: u}}}}], current-context: x}}"
        );
        let file: Kubeconfig = serde_saphyr::from_str(&text).unwrap();
        serde_json::to_value(mended(file, master).unwrap()).unwrap()
    }

    #[test]
    fn server_without_a_scheme_gets_the_scheme_client_go_would_choose() {
        let server = |cluster: &str, user: &str, master: &str| {
            mend(cluster, user, master)["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned()
        };
        assert_eq!(server("{server: 10.0.0.5:8080}", "{}", ""), "http://10.0.0.5:8080");
        let with_authority = "{server: 10.0.0.5:6443, certificate-authority: /ca.crt}";
        assert_eq!(server(with_authority, "{}", ""), "https://10.0.0.5:6443");
        assert_eq!(
            server("{server: 10.0.0.5:6443, insecure-skip-tls-verify: true}", "{}", ""),
            "https://10.0.0.5:6443"
        );
        let client = "{client-certificate: /c, client-key: /k}";
        assert_eq!(server("{server: 10.0.0.5:6443}", client, ""), "https://10.0.0.5:6443");
        assert_eq!(server(with_authority, "{}", "10.0.0.6:6443"), "https://10.0.0.6:6443");
        assert_eq!(server(with_authority, "{}", "http://10.0.0.6:80/x"), "http://10.0.0.6:80/x");
    }

    #[test]
    fn line_breaks_in_base64_data_are_ignored() {
        let file = mend(
            "{server: 'https://a', certificate-authority-data: \"TFM\\nwdA==\\n\"}",
            "{client-certificate-data: \"YQ\\r\\n==\", client-key-data: \"Y g==\"}",
            "",
        );
        assert_eq!(file["clusters"][0]["cluster"]["certificate-authority-data"], "TFMwdA==");
        let user = &file["users"][0]["user"];
        assert_eq!((&user["client-certificate-data"], &user["client-key-data"]), (&"YQ==".into(), &"Yg==".into()));
    }

    #[test]
    fn mutated_kubeconfigs_are_read_or_refused() {
        let seeds = ["apiVersion: v1
kind: Config
current-context: x
contexts:
- name: x
  context: {cluster: c, user: u, namespace: n}
clusters:
- name: c
  cluster:
    server: 10.0.0.5:6443
    certificate-authority-data: TFMwdA==
    insecure-skip-tls-verify: false
    tls-server-name: api
    proxy-url: http://10.0.0.9:3128
users:
- name: u
  user:
    token: abc
    client-certificate-data: YQ==
    client-key-data: Yg==
    as: someone
    as-groups: [a, b]
    exec: {apiVersion: client.authentication.k8s.io/v1, command: /nonexistent, args: [a], env: [{name: A, value: b}]}
"];
        let runtime = crate::runtime::of_this_thread().unwrap();
        fuzz::fuzz("kubeconfig", seeds, |bytes| {
            let Ok(file) = Kubeconfig::from_yaml(&String::from_utf8_lossy(bytes)) else { return };
            if let Ok(file) = mended(file, "") {
                let _ = runtime.block_on(from_kubeconfig(file));
            }
        });
    }
}
