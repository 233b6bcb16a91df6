//! The address of the API server, and the credentials.

use std::fs;

use anyhow::{Context, Result, ensure};
use kube_ipvs::{
    config::ClientConnection,
    source::kubernetes::{KubernetesSource, Pod},
};
use scenarios::{ApiServer, Service, eventually};

use crate::{
    follower::{Follower, LIMITS, asked, fast},
    tls,
};

fn open(flags: &ClientConnection) -> Result<KubernetesSource> {
    tokio::runtime::Builder::new_current_thread().build()?.block_on(KubernetesSource::open(flags, "node-1"))
}

fn error(flags: &ClientConnection) -> String {
    format!("{:#}", open(flags).err().map_or_else(|| "no error".into(), |error| format!("{error:#}")))
}

#[test]
fn kubeconfig_gives_address_and_token_and_master_overrides_the_address() -> Result<()> {
    let api = ApiServer::start()?;
    api.tokens(&["secret"]);
    api.apply(&Service::new("web").cluster_ip("10.96.0.7").port(80))?;
    let folder = tempfile::tempdir()?;
    let (token, file) = (folder.path().join("token"), folder.path().join("kubeconfig"));
    fs::write(&token, "secret")?;
    fs::write(&file, api.kubeconfig(token.to_str()))?;
    let kubeconfig = file.to_str().context("a path")?.to_owned();
    let follower = Follower::start_with(ClientConnection { kubeconfig: kubeconfig.clone().into(), ..fast() }, LIMITS);
    follower.eventually(|world| world.services.len() == 1)?;
    assert_eq!(api.last_token().as_deref(), Some("secret"));
    drop(follower);

    // `--master` precedes the server in the file, and the credentials still apply.
    let text = api.kubeconfig(token.to_str()).replace(&api.url(), "http://127.0.0.1:9");
    fs::write(&file, text)?;
    let follower =
        Follower::start_with(ClientConnection { kubeconfig: kubeconfig.into(), master: api.url(), ..fast() }, LIMITS);
    follower.eventually(|world| world.services.len() == 1)
}

#[test]
fn server_name_with_several_addresses_is_reached() -> Result<()> {
    let api = ApiServer::start()?;
    api.apply(&Service::new("web").cluster_ip("10.96.0.7").port(80))?;
    let master = api.url().replace("127.0.0.1", "localhost");
    let follower = Follower::start_with(ClientConnection { master, ..fast() }, LIMITS);
    follower.eventually(|world| world.services.len() == 1)
}

#[test]
fn invalid_flags_are_reported_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let missing = folder.path().join("missing");
    let flags = ClientConnection { kubeconfig: missing.clone(), ..fast() };
    assert!(error(&flags).contains(&format!("--kubeconfig {}", missing.display())), "{}", error(&flags));
    let flags = ClientConnection { master: "not a url".into(), ..fast() };
    assert!(error(&flags).contains("--master \"not a url\" is not a URL"), "{}", error(&flags));
    assert!(error(&fast()).contains("neither --kubeconfig nor --manifests"), "{}", error(&fast()));
    Ok(())
}

/// With TLS kube-ipvs trusts only an API server whose certificate the CA in the file signed.
#[test]
fn api_server_is_trusted_only_by_its_authority() -> Result<()> {
    let api = ApiServer::start()?;
    api.tokens(&["secret"]);
    api.apply(&Service::new("web").cluster_ip("10.96.0.7").port(80))?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let authority = tls::Authority::new()?;
    let tls = tls::serve(&authority, api.address())?;
    fs::write(path("token"), "secret\n")?;
    for (known, reached) in [(&authority, true), (&tls::Authority::new()?, false)] {
        fs::write(path("ca.crt"), known.pem())?;
        let server = format!("{{ server: \"{}\", certificate-authority: {} }}", tls.url(), path("ca.crt"));
        let text = api.kubeconfig(Some(&path("token"))).replace(&format!("{{ server: \"{}\" }}", api.url()), &server);
        fs::write(path("kubeconfig"), text)?;
        let follower =
            Follower::start_with(ClientConnection { kubeconfig: path("kubeconfig").into(), ..fast() }, LIMITS);
        if reached {
            follower.eventually(|world| world.services.len() == 1)?;
        } else {
            tls.await_refusals(8)?;
            assert_eq!(follower.world().deliveries, 0);
        }
    }
    Ok(())
}

/// The kubelet replaces a client certificate before it expires. kube-ipvs uses the new one for later connections.
#[test]
fn replaced_client_certificate_is_read_again() -> Result<()> {
    let mut api = ApiServer::start()?;
    api.apply(&Service::new("web").cluster_ip("10.96.0.7").port(80))?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (server, old, new) = (tls::Authority::new()?, tls::Authority::new()?, tls::Authority::new()?);
    let front = tls::Front::start(&server, &[&old], api.address())?;
    fs::write(path("ca.crt"), server.pem())?;
    let write = |authority: &tls::Authority| -> Result<()> {
        let (certificate, key) = authority.client()?;
        fs::write(path("client.crt"), certificate)?;
        Ok(fs::write(path("client.key"), key)?)
    };
    write(&old)?;
    let text = format!(
        "{{clusters: [{{name: c, cluster: {{server: \"{}\", certificate-authority: {}}}}}], users: [{{name: u, user: \
         {{client-certificate: {}, client-key: {}}}}}], contexts: [{{name: x, context: {{cluster: c, user: u}}}}], \
         current-context: x}}",
        front.listener().url(),
        path("ca.crt"),
        path("client.crt"),
        path("client.key"),
    );
    fs::write(path("kubeconfig"), text)?;
    let follower = Follower::start_with(ClientConnection { kubeconfig: path("kubeconfig").into(), ..fast() }, LIMITS);
    follower.eventually(|world| world.services.len() == 1)?;
    // Until they are cut, no other connections will be made.
    let is_watched = |path: &str| asked(&api, |request| request.contains(path) && request.contains("watch="));
    eventually(|| {
        let watched = ["/services?", "/endpointslices?", "/nodes?", "/servicecidrs?"].map(is_watched);
        ensure!(!watched.contains(&0), "{watched:?} are watched");
        Ok(())
    })?;
    // The server rejects the old certificate, as after its expiry.
    front.know(&[&new])?;
    api.away();
    api.back()?;
    api.apply(&Service::new("late").cluster_ip("10.96.0.8").port(80))?;
    front.listener().await_refusals(8)?;
    assert_eq!(follower.world().services.len(), 1);
    write(&new)?;
    follower.eventually(|world| world.services.len() == 2)
}

#[test]
fn pod_without_flags_finds_its_api_server() -> Result<()> {
    let api = ApiServer::start()?;
    api.tokens(&["of-the-pod"]);
    let authority = tls::Authority::new()?;
    let tls = tls::serve(&authority, api.address())?;
    let (_, port) = tls.url().rsplit_once(':').context("a port")?;
    let account = tempfile::tempdir()?;
    let pod = Pod { server: Some(("127.0.0.1".into(), port.into())), account: account.path().into() };
    let list = |pod: &Pod| -> Result<usize> {
        let mut found = 0;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let source = KubernetesSource::open_in(&fast(), "node-1", pod).await?.with_limits(LIMITS);
            source
                .follow(|changes| {
                    found = changes.events.len();
                    std::ops::ControlFlow::Break(())
                })
                .await
        })?;
        Ok(found)
    };
    let said = |pod: &Pod| list(pod).err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(said(&pod).contains("ca.crt"), "{}", said(&pod));
    fs::write(account.path().join("ca.crt"), authority.pem())?;
    fs::write(account.path().join("token"), "of-the-pod\n")?;
    api.apply(&Service::new("web").cluster_ip("10.96.0.7").port(80))?;
    assert_eq!(list(&pod)?, 2);
    assert_eq!(api.last_token().as_deref(), Some("of-the-pod"));
    let elsewhere = Pod { server: None, ..pod };
    assert!(said(&elsewhere).contains("KUBERNETES_SERVICE_HOST"), "{}", said(&elsewhere));
    Ok(())
}
