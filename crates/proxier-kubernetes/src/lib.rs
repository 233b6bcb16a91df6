//! From Kubernetes API objects to the [events](proxier::model::Event) of [`proxier`], for a Service proxy of your own.
//!
//! You watch the API server, in your own way, or read files. This crate reads the JSON of each object, checks it as the
//! API server does, and converts it. It knows Services, EndpointSlices, Nodes, ServiceCIDRs, and the older Endpoints.
//!
//! ```
//! use proxier::{Config, Engine, model::ServiceId};
//! use proxier_kubernetes::{AnnotationPolicy, Invalid, Key, Kind, Object};
//!
//! let mut engine = Engine::new(Config::new("node-1"));
//! let policy = AnnotationPolicy::default();
//!
//! // The API server has sent an object: it is new or has changed.
//! let service = r#"{
//!     "metadata": {"name": "web", "annotations": {"kube-ipvs.io/scheduler": "fastest"}},
//!     "spec": {"clusterIP": "10.96.0.1", "externalIPs": ["127.0.0.1"], "ports": [{"port": 80}]}
//! }"#;
//! let (object, remarks) = Object::read(Kind::Service, service, &policy)?;
//! for Invalid { field, message } in remarks.told() {
//!     println!("{}: {field}: {message}", object.key); // Service default/web: spec.externalIPs[0]: 127.0.0.1 is a …
//! }
//! if let Some(event) = object.event.or_else(|| object.key.removed()) {
//!     engine.apply(event);
//! }
//! assert!(engine.cluster().service(&ServiceId::new("default", "web")).is_some());
//!
//! // The object is gone.
//! engine.apply(Key::new(Kind::Service, "default", "web").removed().expect("Services have events"));
//! # Ok::<(), Invalid>(())
//! ```
//!
//! Then let the engine [sync](proxier::Engine::sync) the kernel.
//!
//! # What comes back
//!
//! * The [`Object`], if it is valid. Its [`event`](Object::event) is none if it is not for a proxy like this one:
//!   it is headless, or another proxy serves it.
//! * The [`Remarks`]: what of it has no effect. Annotations `kube-ipvs.io/…` are the choices of users, and the
//!   [`AnnotationPolicy`] is the operator's limit to them.
//! * [`Invalid`] otherwise, with the path of the field. Keep the last valid content of the object in force, and tell
//!   the engine by [`Engine::set_complete`](proxier::Engine::set_complete) if there never was one.
//!
//! What comes back is bounded, whatever the object has: values are cut, reasons are counted, lists have limits.
//!
//! # Types of other crates
//!
//! With the feature `k8s-openapi`, `Object::from_resource` takes the types of that crate, as `kube` delivers them. The
//! feature chooses no version of the API: your program does.
//!
//! This crate has no runtime, no client and no state.

mod annotations;
mod duration;
mod endpoint_slice;
mod endpoints;
mod exposure;
mod json;
mod kind;
mod list;
mod meta;
mod name;
mod node;
mod object;
mod policy;
mod remarks;
mod scalar;
mod scheduler;
mod service;
mod service_cidr;

pub use json::from_json;
pub use kind::{Key, Kind};
pub use meta::{HEADLESS, SERVICE_PROXY_NAME};
pub use object::Object;
pub use policy::{AnnotationPolicy, Annotations};
pub use remarks::{Reasons, Remarks};
pub use scheduler::parse_scheduler;

use std::fmt;

/// A rule that an object breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The path of the field within the object, such as `spec.ports[1].name`; empty for the object as a whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Invalid {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.field.is_empty() { "" } else { ": " };
        write!(f, "{}{colon}{}", self.field, self.message)
    }
}

impl std::error::Error for Invalid {}
