//! Kubernetes Services to IPVS virtual servers: a pure core and one Linux back end.

pub mod model;
