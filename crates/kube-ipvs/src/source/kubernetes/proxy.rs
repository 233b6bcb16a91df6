//! The HTTP or SOCKS5 proxy between kube-ipvs and the API server.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use http::Uri;
use hyper_util::client::{
    legacy::connect::{
        HttpConnector,
        proxy::{SocksV5, Tunnel},
    },
    proxy::matcher::{Intercept, Matcher},
};
use tower::{BoxError, Service, ServiceBuilder, util::BoxCloneSyncService};

use super::connect::{Resolver, Stream};

/// As in client-go, `proxy-url` of the kubeconfig precedes the environment (`HTTPS_PROXY`, `NO_PROXY`). The environment
/// does not apply to an API server on a loopback address.
pub(super) fn choose(server: &Uri, field: Option<&str>, environment: &Matcher) -> anyhow::Result<Option<Intercept>> {
    let (proxy, origin) = match field.filter(|url| !url.is_empty()) {
        Some(url) => {
            let proxy = Matcher::builder().all(url).build().intercept(server);
            (Some(proxy.context("proxy-url is not the URL of an HTTP or SOCKS5 proxy")?), "proxy-url")
        }
        None if is_on_this_host(server) => (None, ""),
        None => (environment.intercept(server), "HTTPS_PROXY or HTTP_PROXY of the environment"),
    };
    if let Some(proxy) = &proxy {
        let scheme = proxy.uri().scheme_str().unwrap_or_default();
        ensure!(
            matches!(scheme, "http" | "socks5" | "socks5h"),
            "{origin}: a proxy with {scheme}:// is not supported: use http:// or socks5://"
        );
    }
    Ok(proxy)
}

/// Without the brackets of an IPv6 address.
pub(super) fn host(url: &Uri) -> &str {
    url.host().unwrap_or_default().trim_matches(['[', ']'])
}

fn is_on_this_host(server: &Uri) -> bool {
    let host = host(server);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn connector(
    direct: HttpConnector<Resolver>,
    proxy: Option<&Intercept>,
) -> BoxCloneSyncService<Uri, Stream, BoxError> {
    let Some(proxy) = proxy else { return boxed(direct) };
    if proxy.uri().scheme_str() == Some("http") {
        let tunnel = Tunnel::new(proxy.uri().clone(), direct);
        let tunnel = match proxy.basic_auth() {
            Some(credentials) => tunnel.with_auth(credentials.clone()),
            None => tunnel,
        };
        return boxed(tunnel);
    }
    let socks = SocksV5::new(proxy.uri().clone(), direct);
    let socks = match proxy.raw_auth() {
        Some((user, password)) => socks.with_auth(user.into(), password.into()),
        None => socks,
    };
    boxed(socks)
}

fn boxed<C>(connector: C) -> BoxCloneSyncService<Uri, Stream, BoxError>
where
    C: Service<Uri, Response = Stream, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static,
{
    BoxCloneSyncService::new(ServiceBuilder::new().map_err(Into::into).service(connector))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(server: &str, field: Option<&str>) -> String {
        let environment = Matcher::builder().https("http://env:3128").no("10.0.0.0/8, .internal").build();
        match choose(&server.parse().unwrap(), field, &environment) {
            Ok(proxy) => proxy.map_or_else(|| "none".into(), |proxy| proxy.uri().to_string()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn proxy_url_of_the_kubeconfig_precedes_the_environment() {
        assert_eq!(check("https://192.0.2.1:6443", None), "http://env:3128/");
        assert_eq!(check("https://192.0.2.1:6443", Some("")), "http://env:3128/");
        assert_eq!(check("https://10.0.0.1:6443", None), "none");
        assert_eq!(check("https://api.internal", None), "none");
        assert_eq!(check("https://localhost:6443", None), "none");
        assert_eq!(check("https://[::1]:6443", None), "none");
        // `proxy-url` applies to every API server.
        assert_eq!(check("https://10.0.0.1:6443", Some("http://field:3128")), "http://field:3128/");
        assert_eq!(check("https://127.0.0.1:6443", Some("socks5://u:p@field:1080")), "socks5://field:1080/");
    }

    #[test]
    fn unsupported_proxy_is_rejected_with_its_scheme_and_no_password() {
        let said = check("https://192.0.2.1", Some("https://u:secret@field:3128"));
        assert!(said.starts_with("proxy-url: ") && said.contains("https://") && !said.contains("secret"), "{said}");
        let said = check("https://192.0.2.1", Some("ftp://field"));
        assert!(said.starts_with("proxy-url"), "{said}");
    }
}
