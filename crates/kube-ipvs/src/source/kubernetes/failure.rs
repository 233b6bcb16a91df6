use std::{error::Error as _, time::Duration};

use kube::core::Status;

const GONE: u16 = 410;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{}", describe(.0))]
    Kube(#[from] kube::Error),
    #[error("the API server ended the watch: {}", .0.message)]
    Ended(Box<Status>),
    #[error("the API server sent nothing for {0:?}: the connection is dead")]
    Silent(Duration),
    #[error(
        "the API server did not answer within {0:?}: it is busy, or too many requests of kube-ipvs wait \
             (--kube-api-qps)"
    )]
    Unanswered(Duration),
    #[error("the API server's answer is invalid: {0}")]
    Unreadable(serde_json::Error),
    #[error(
        "the API server went back from version {known} to {now}, as after a restore of etcd. kube-ipvs lists \
         everything again"
    )]
    GoneBack { known: String, now: String },
    #[error("the API server began a streaming list and does not end it")]
    Endless,
    #[error("the connection closed at once")]
    Closed,
    #[error("the API server sent no resourceVersion")]
    NoVersion,
}

impl Failure {
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) | Self::Ended(status) => Some(status.code),
            _ => None,
        }
    }

    /// Whether the watch cannot resume, so that everything must be listed again.
    pub(super) fn needs_list(&self) -> bool {
        match self {
            // It is unknown whether the version is still valid. An event that cannot be parsed is lost.
            Self::Ended(_) | Self::NoVersion | Self::GoneBack { .. } | Self::Kube(kube::Error::SerdeError(_)) => true,
            _ => self.code() == Some(GONE),
        }
    }

    /// Whether the API server has not reached the requested version yet, or has compacted it.
    pub(super) fn is_unknown_version(&self) -> bool {
        let Self::Kube(kube::Error::Api(status)) = self else { return false };
        let mut causes = status.details.iter().flat_map(|details| &details.causes);
        status.code == GONE
            || causes.any(|cause| cause.reason == "ResourceVersionTooLarge")
            || status.message.contains("Too large resource version")
    }

    /// Whether the API server rejected the form of the request.
    pub(super) fn is_invalid(&self) -> bool {
        matches!(self.code(), Some(400 | 422))
    }

    /// Whether the API server lacks the resource, or denies access to it.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.code(), Some(403 | 404))
    }

    pub(super) fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// Whether a healthy watch can fail like this.
    pub(super) fn is_usual(&self) -> bool {
        matches!(self, Self::Closed | Self::Ended(_) | Self::Silent(_) | Self::Kube(kube::Error::ReadEvents(_)))
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Kube(kube::Error::Api(status)) | Self::Ended(status) => {
                let seconds = status.details.as_ref()?.retry_after_seconds;
                Some(Duration::from_secs(seconds.into())).filter(|pause| !pause.is_zero())
            }
            _ => None,
        }
    }
}

/// If a connection failed, only the innermost error names the reason.
fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let hint = match status.code {
                401 => ": check that the API server knows the token and that it has not expired",
                403 => ": bind the ClusterRole system:node-proxier to this account",
                _ => "",
            };
            let said = if status.message.is_empty() { &status.reason } else { &status.message };
            format!("the API server answers {}: {said}{hint}", status.code)
        }
        error => {
            let mut innermost = error.source();
            while let Some(deeper) = innermost.and_then(|error| error.source()) {
                innermost = Some(deeper);
            }
            innermost.map_or_else(|| error.to_string(), |cause| format!("{}: {cause}", outline(error)))
        }
    }
}

fn outline(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Service(_) | kube::Error::HyperError(_) => "cannot reach the API server",
        kube::Error::ReadEvents(_) => "the connection broke",
        kube::Error::SerdeError(_) => "the API server's answer is invalid",
        _ => "the request failed",
    }
}
