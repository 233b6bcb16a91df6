use std::{future::Future, sync::Arc};

use http::request::Parts;

use super::{
    http::{Response, Site, not_found, verdict},
    status::Status,
};

/// Where load balancers and the kubelet ask for this proxy's health.
pub(super) struct HealthSite {
    status: Arc<Status>,
}

impl HealthSite {
    pub(super) fn new(status: Arc<Status>) -> Self {
        Self { status }
    }

    fn at(&self, path: &str) -> Response {
        match path {
            "/healthz" => {
                let (good, report) = self.status.report().healthz();
                self.status.kube_proxy().healthz(good);
                verdict(good, &report)
            }
            "/livez" => {
                let (good, report) = self.status.report().livez();
                self.status.kube_proxy().livez(good);
                verdict(good, &report)
            }
            _ => not_found(),
        }
    }
}

impl Site for HealthSite {
    fn answer(&self, request: &Parts) -> impl Future<Output = Response> + Send {
        std::future::ready(self.at(request.uri.path()))
    }
}
