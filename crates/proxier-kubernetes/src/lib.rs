#![doc = include_str!("../README.md")]
//!
//! # Results
//!
//! * If the object is valid: the [`Object`], with the [event](Object::event) that applies it. Let the engine
//!   [sync](proxier::Engine::sync) the kernel afterwards.
//! * The [`Remarks`]: the parts of the object that have no effect, and why.
//! * If the object is invalid: [`Invalid`]. Keep the last valid content of the object in force. If there was none, name
//!   the Service in [`Engine::set_complete`](proxier::Engine::set_complete), so that the engine keeps its state.

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

pub use duration::GoDuration;
pub use json::from_json;
pub use kind::{Key, Kind};
pub use meta::{HEADLESS, SERVICE_PROXY_NAME};
pub use object::Object;
pub use policy::{AnnotationPolicy, Annotations};
pub use remarks::{Reasons, Remarks};
pub use scheduler::parse_scheduler;

use std::fmt;

/// A rule that an object violates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The path of the field within the object, such as `spec.ports[1].name`; empty for the object as a whole.
    pub field: String,
    /// Why the field is invalid.
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
