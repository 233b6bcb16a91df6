use jiff::Timestamp;
use proxier::model::{EndpointSlice, Event};

use crate::{
    AnnotationPolicy, Invalid, Key, Kind, Remarks, endpoint_slice, endpoints::Endpoints, from_json, node::Node,
    service::Service, service_cidr::ServiceCidr,
};

/// A valid object, converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Identifies the object.
    pub key: Key,
    /// The event that applies it. `None` if this proxy does not serve the object:
    ///
    /// * The label `service.kubernetes.io/service-proxy-name` or `service.kubernetes.io/headless` is set.
    /// * The slice has host names instead of addresses, or names no Service that can exist.
    /// * The object is Endpoints. Kubernetes mirrors them into EndpointSlices.
    ///
    /// If an earlier content of the object was applied, [`Key::removed`] reverts it.
    pub event: Option<Event>,
    /// For a Service: whether it selects pods. If it does, Kubernetes does not mirror Endpoints of its name.
    pub selects_pods: bool,
    /// For a Service: whether it needs a ClusterIP and has none. Only an API server allocates a ClusterIP.
    pub lacks_cluster_ip: bool,
    /// For Endpoints: the slices into which Kubernetes mirrors them, if their Service exists and selects no pods. Their
    /// names have a colon, which no real slice has.
    pub mirrored: Vec<EndpointSlice>,
    /// For an EndpointSlice: the time of the Service or pod change that made the control plane write the slice
    /// (`endpoints.kubernetes.io/last-change-trigger-time`).
    pub trigger_time: Option<Timestamp>,
}

impl Object {
    /// Decodes an object of this kind from JSON. Unknown fields are ignored, as are `apiVersion` and `kind`.
    ///
    /// If a part of the object is invalid for every node, or an annotation is invalid or not allowed, that part is left
    /// out. The [`Remarks`] have the reason.
    ///
    /// ```
    /// use proxier_kubernetes::{AnnotationPolicy, Kind, Object};
    ///
    /// let json = r#"{"metadata": {"name": "web"}, "spec": {"ports": [{"port": 70000}]}}"#;
    /// let invalid = Object::read(Kind::Service, json, &AnnotationPolicy::default()).unwrap_err();
    /// assert_eq!(invalid.to_string(), "spec.ports[0].port: 70000 is not a port: 1 to 65535");
    /// ```
    ///
    /// # Errors
    ///
    /// If the object as a whole is invalid: its first invalid field, and why.
    pub fn read(kind: Kind, json: &str, policy: &AnnotationPolicy) -> Result<(Self, Remarks), Invalid> {
        let mut remarks = Remarks::default();
        let object = match kind {
            Kind::Node => from_json::<Node>(json)?.convert(&mut remarks),
            Kind::ServiceCidr => from_json::<ServiceCidr>(json)?.convert(),
            Kind::Service => from_json::<Service>(json)?.convert(policy, &mut remarks),
            Kind::EndpointSlice => from_json::<endpoint_slice::EndpointSlice>(json)?.convert(policy, &mut remarks),
            Kind::Endpoints => from_json::<Endpoints>(json)?.convert(policy, &mut remarks),
        };
        Ok((object?, remarks))
    }

    /// Converts an object of a type of [`k8s_openapi`], such as `k8s_openapi::api::core::v1::Service`. Needs the
    /// feature `k8s-openapi`.
    ///
    /// It encodes the object as JSON and [reads](Self::read) that JSON. This costs about as much as your client's
    /// decoding of the object. If that is too much, let your client deliver raw JSON.
    ///
    /// ```
    /// use k8s_openapi::api::core::v1::Node;
    /// use proxier_kubernetes::{AnnotationPolicy, Object};
    ///
    /// let mut node = Node::default();
    /// node.metadata.name = Some("node-1".into());
    /// let (object, _) = Object::from_resource(&node, &AnnotationPolicy::default())?;
    /// assert_eq!(object.key.to_string(), "Node node-1");
    /// assert!(object.event.is_some());
    /// # Ok::<(), proxier_kubernetes::Invalid>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read), and an error if a proxy acts on no objects of this type.
    #[cfg(feature = "k8s-openapi")]
    pub fn from_resource<T>(object: &T, policy: &AnnotationPolicy) -> Result<(Self, Remarks), Invalid>
    where
        T: k8s_openapi::Resource + serde::Serialize,
    {
        let unknown = || Invalid::new("kind", format!("a Service proxy does not use objects of the kind {}", T::KIND));
        let kind = Kind::of(T::API_VERSION, T::KIND).ok_or_else(unknown)?;
        let json = serde_json::to_string(object).map_err(|error| Invalid::new("", error.to_string()))?;
        Self::read(kind, &json, policy)
    }

    pub(crate) fn new(key: Key) -> Self {
        Self {
            key,
            event: None,
            selects_pods: false,
            lacks_cluster_ip: false,
            mirrored: Vec::new(),
            trigger_time: None,
        }
    }
}
