//! Kubeconfig fields beyond the address and the token.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube_ipvs::{
    config::ClientConnection,
    source::kubernetes::{KubernetesSource, Limits},
};
use scenarios::{ApiServer, Service, StreamingLists};
use tempfile::TempDir;

use crate::{
    follower::{Follower, LIMITS, fast},
    tls,
};

fn kubeconfig(folder: &TempDir, cluster: &str, user: &str) -> Result<ClientConnection> {
    let file = folder.path().join("kubeconfig");
    let text = format!(
        "{{clusters: [{{name: c, cluster: {cluster}}}], users: [{{name: u, user: {user}}}], contexts: [{{name: x, context: \
         {{cluster: c, user: u}}}}], current-context: x}}"
    );
    fs::write(&file, text)?;
    Ok(ClientConnection { kubeconfig: file, ..fast() })
}

fn api() -> Result<ApiServer> {
    let api = ApiServer::start()?;
    api.apply(&Service::new("web").cluster_ip("10.96.0.7").port(80))?;
    Ok(api)
}

fn error(flags: &ClientConnection) -> Result<String> {
    error_within(flags, LIMITS)
}

fn error_within(flags: &ClientConnection, limits: Limits) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let source = KubernetesSource::open(flags, "node-1").await?.with_limits(limits);
        source.follow(|_| std::ops::ControlFlow::Break(())).await
    });
    Ok(outcome.err().map(|error| format!("{error:#}")).unwrap_or_default())
}

/// A proxy that connects every request to one server. Returns its address and the request heads.
fn proxy(to: SocketAddr) -> Result<(SocketAddr, Arc<Mutex<Vec<String>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, asked) = (listener.local_addr()?, Arc::default());
    let seen: Arc<Mutex<Vec<String>>> = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let seen = Arc::clone(&seen);
            thread::spawn(move || -> Result<()> {
                let mut reader = BufReader::new(stream.try_clone()?);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    ensure!(reader.read_line(&mut head)? > 0, "closed");
                }
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(head);
                let (mut client, mut server) = (stream, TcpStream::connect(to)?);
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                let (mut from, mut into) = (reader, server.try_clone()?);
                thread::spawn(move || std::io::copy(&mut from, &mut into));
                std::io::copy(&mut server, &mut client)?;
                Ok(())
            });
        }
    });
    Ok((address, asked))
}

#[test]
fn proxy_url_of_the_kubeconfig_is_used() -> Result<()> {
    let (api, folder) = (api()?, tempfile::tempdir()?);
    let (address, asked) = proxy(api.address())?;
    // The address is reachable only through the proxy.
    let cluster = format!("{{server: \"http://192.0.2.1:6443\", proxy-url: \"http://me:secret@{address}\"}}");
    let follower = Follower::start_with(kubeconfig(&folder, &cluster, "{}")?, LIMITS);
    follower.eventually(|world| world.services.len() == 1)?;
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let first = asked.first().context("a request")?;
    ensure!(first.starts_with("CONNECT 192.0.2.1:6443 "), "{first}");
    ensure!(first.to_lowercase().contains("proxy-authorization: basic "), "{first}");
    // kube-ipvs cannot tell which of the two is the API server, so it reports both.
    assert_eq!(follower.world().servers, [address.to_string(), "192.0.2.1:6443".into()]);
    Ok(())
}

#[test]
fn unsupported_proxy_is_rejected_by_the_name_of_its_field() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = kubeconfig(&folder, "{server: \"https://192.0.2.1\", proxy-url: \"https://p:1\"}", "{}")?;
    let said = error(&flags)?;
    ensure!(said.contains("proxy-url: a proxy with https:// is not supported"), "{said}");
    Ok(())
}

/// kube-ipvs impersonates the user of the kubeconfig, with that user's rights only.
#[test]
fn impersonation_headers_follow_the_kubeconfig() -> Result<()> {
    let (api, folder) = (api()?, tempfile::tempdir()?);
    let cluster = format!("{{server: \"{}\"}}", api.url());
    let flags = kubeconfig(&folder, &cluster, "{as: proxy-user, as-uid: '7', as-groups: [a, b]}")?;
    let follower = Follower::start_with(flags, LIMITS);
    follower.eventually(|world| world.services.len() == 1)?;
    let header = |name| api.last_header(name).unwrap_or_default();
    assert_eq!(header("impersonate-user"), "proxy-user");
    assert_eq!(header("impersonate-uid"), "7");
    assert_eq!(header("impersonate-group"), "a,b");
    Ok(())
}

#[test]
fn requests_send_a_user_agent_and_accept_compression() -> Result<()> {
    let api = api()?;
    api.streaming(StreamingLists::Refused);
    let follower = Follower::start(&api);
    follower.eventually(|world| world.services.len() == 1)?;
    let agent = api.last_header("user-agent").unwrap_or_default();
    let start = format!("kube-ipvs/{} (linux/", env!("CARGO_PKG_VERSION"));
    ensure!(agent.starts_with(&start) && agent.contains(") kubernetes/"), "{agent}");
    // Lists may be compressed. A watch must deliver each event at once.
    let encodings = api.headers("accept-encoding");
    for encoding in ["gzip", "identity"] {
        ensure!(encodings.iter().flatten().any(|found| found == encoding), "{encodings:?}");
    }
    Ok(())
}

#[test]
fn missing_exec_plugin_is_named_in_the_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let user = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-plugin, interactiveMode: Never, \
                installHint: 'See https://example.org/install'}}";
    let said = error(&kubeconfig(&folder, "{server: \"http://127.0.0.1:9\"}", user)?)?;
    ensure!(said.contains("exec plugin \"no-such-plugin\": "), "{said}");
    ensure!(said.contains("PATH=") && said.contains("tokenFile") && said.contains("example.org/install"), "{said}");
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
    Ok(())
}

#[test]
fn hanging_exec_plugin_is_named_in_the_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // The plugin ends with this process.
    let user = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, args: [\"-c\", 'while kill -0 $PPID; do \
                sleep 1; done'], interactiveMode: Never}}";
    let flags = kubeconfig(&folder, "{server: \"http://127.0.0.1:9\"}", user)?;
    let said = error_within(&flags, Limits { plugin: Duration::from_millis(50), ..LIMITS })?;
    ensure!(said.contains("exec plugin \"sh\" has not answered for 50ms"), "{said}");
    Ok(())
}

/// The API server rejects the plugin's token, although the token named no expiry. kube-ipvs runs the plugin again.
#[test]
fn exec_plugin_runs_again_when_its_token_is_rejected() -> Result<()> {
    let (api, folder) = (api()?, tempfile::tempdir()?);
    let path = |name: &str| folder.path().join(name);
    let script = format!(
        "echo '{{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \"status\": \
         {{\"token\": \"'$(cat {})'\"}}}}'\n",
        path("token").display()
    );
    fs::write(path("plugin"), script)?;
    fs::write(path("token"), "first")?;
    api.tokens(&["first"]);
    let user = format!(
        "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: [\"{}\"], interactiveMode: \
         Never}}}}",
        path("plugin").display()
    );
    let flags = kubeconfig(&folder, &format!("{{server: \"{}\"}}", api.url()), &user)?;
    let follower = Follower::start_with(flags, LIMITS);
    follower.eventually(|world| world.services.len() == 1)?;
    fs::write(path("token"), "second")?;
    api.tokens(&["second"]);
    api.cut();
    api.apply(&Service::new("late").cluster_ip("10.96.0.8").port(80))?;
    follower.eventually(|world| world.services.len() == 2)
}

#[test]
fn replaced_authority_is_read_again() -> Result<()> {
    let (mut api, folder) = (api()?, tempfile::tempdir()?);
    let (old, new) = (tls::Authority::new()?, tls::Authority::new()?);
    let front = tls::Front::start(&old, &[], api.address())?;
    let file = folder.path().join("ca.crt");
    fs::write(&file, old.pem())?;
    let cluster = format!("{{server: \"{}\", certificate-authority: ca.crt}}", front.listener().url());
    let follower = Follower::start_with(kubeconfig(&folder, &cluster, "{}")?, LIMITS);
    follower.eventually(|world| world.services.len() == 1)?;
    front.become_signed_by(&new)?;
    api.away();
    api.back()?;
    api.apply(&Service::new("late").cluster_ip("10.96.0.8").port(80))?;
    front.listener().await_refusals(4)?;
    assert_eq!(follower.world().services.len(), 1);
    fs::write(&file, new.pem())?;
    follower.eventually(|world| world.services.len() == 2)
}

/// kubectl accepts wrapped base64 data, as from `base64 ca.crt`, and an address without a scheme.
#[test]
fn kubeconfig_with_wrapped_data_and_bare_address_is_read() -> Result<()> {
    let (api, folder) = (api()?, tempfile::tempdir()?);
    let authority = tls::Authority::new()?;
    let tls = tls::serve(&authority, api.address())?;
    let file = folder.path().join("kubeconfig");
    let data: Vec<String> = base64(authority.pem().as_bytes())
        .as_bytes()
        .chunks(64)
        .map(|line| format!("      {}\n", String::from_utf8_lossy(line)))
        .collect();
    let text = format!(
        "current-context: x\ncontexts:\n- name: x\n  context: {{cluster: c}}\nclusters:\n- name: c\n  cluster:\n    server: \
         {}\n    certificate-authority-data: |\n{}",
        tls.url().trim_start_matches("https://"),
        data.concat(),
    );
    fs::write(&file, text)?;
    let follower = Follower::start_with(ClientConnection { kubeconfig: file, ..fast() }, LIMITS);
    follower.eventually(|world| world.services.len() == 1)?;
    drop(follower);
    let master = api.url().trim_start_matches("http://").to_owned();
    let follower = Follower::start_with(ClientConnection { master, ..fast() }, LIMITS);
    follower.eventually(|world| world.services.len() == 1)
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let is_there = at <= three.len();
            let letter = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if is_there { letter.into() } else { '=' });
        }
    }
    text
}
