use std::sync::Arc;

use http::{StatusCode, request::Parts};
use proxier_kubernetes::GoDuration;

use super::{
    http::{PLAIN, Response, Site, not_found, text, verdict},
    status::Status,
};

pub(super) struct HealthSite(pub(super) Arc<Status>);

impl Site for HealthSite {
    async fn answer(&self, request: &Parts) -> Response {
        match request.uri.path() {
            "/healthz" => {
                let (good, report) = self.0.report().healthz();
                self.0.kube_proxy.healthz(good);
                verdict(good, &report)
            }
            "/livez" => {
                let (good, report) = self.0.report().livez();
                self.0.kube_proxy.livez(good);
                verdict(good, &report)
            }
            // kube-proxy lacks this path: it reports a proxy before its first sync as healthy.
            "/readyz" => match (self.0.has_synced(), self.0.out_of_contact()) {
                (true, None) => text(StatusCode::OK, PLAIN, "ok"),
                (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the first sync is not done yet"),
                (true, Some(time)) => {
                    let time = GoDuration::seconds(time.as_secs());
                    let why = format!("no contact with the API server for {time}");
                    text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, why)
                }
            },
            _ => not_found(),
        }
    }
}
