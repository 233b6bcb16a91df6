//! The Kubernetes API, as far as a proxy acts on it: what is read is already valid.
//!
//! These types mirror the API's field names and nothing more; unknown fields are passed over. The rules of
//! one value (a port is 1 to 65535, a list has so many entries) live in the types' `Deserialize`, so that
//! the parser itself says where a bad value stands and a list too long is refused while it is read. The
//! rules between fields are checked by the conversion into the [model](proxier::model), whose errors carry
//! the path of the field.

mod annotations;
mod endpoint_slice;
mod endpoints;
mod exposure;
mod list;
mod meta;
mod name;
mod node;
mod policy;
mod read;
mod remarks;
mod scalar;
mod service;
mod service_cidr;

pub use endpoint_slice::{ConvertedSlice, EndpointSlice};
pub use endpoints::{ConvertedEndpoints, Endpoints, MAX_MIRRORED};
pub use list::{Bounded, FirstOf};
pub use meta::{HEADLESS, Meta, SERVICE_PROXY_NAME};
pub use name::{Label, PortName, Subdomain};
pub use node::Node;
pub use read::read;
use remarks::cut_to;
pub use remarks::{Reasons, Remarks};
pub use scalar::{Address, NodePort, Port, Protocol, Range, Seconds};
pub use service::{ConvertedService, Service};
pub use service_cidr::ServiceCidr;

/// A rule between fields that an object breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Invalid {
    /// The path of the field within the object, such as `spec.ports[1].name`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Invalid {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}
