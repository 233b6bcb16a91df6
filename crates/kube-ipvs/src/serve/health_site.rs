use std::{future::Future, sync::Arc, time::Duration};

use http::{StatusCode, request::Parts};
use proxier_kubernetes::format_go_duration;

use super::{
    http::{PLAIN, Response, Site, not_found, text, verdict},
    status::Status,
};

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
                self.status.kube_proxy.healthz(good);
                verdict(good, &report)
            }
            "/livez" => {
                let (good, report) = self.status.report().livez();
                self.status.kube_proxy.livez(good);
                verdict(good, &report)
            }
            // kube-proxy has no such path: to it one that has not done anything yet is healthy.
            "/readyz" => match (self.status.has_synced(), self.status.out_of_contact()) {
                (true, None) => text(StatusCode::OK, PLAIN, "ok"),
                (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the first sync is not done yet"),
                (true, Some(time)) => {
                    let time = format_go_duration(Duration::from_secs(time.as_secs()));
                    let why = format!("no contact with the API server for {time}");
                    text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, why)
                }
            },
            _ => not_found(),
        }
    }
}

impl Site for HealthSite {
    fn answer(&self, request: &Parts) -> impl Future<Output = Response> + Send {
        std::future::ready(self.at(request.uri.path()))
    }
}
