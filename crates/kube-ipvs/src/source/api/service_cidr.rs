use proxier::model;
use serde::Deserialize;

use super::{
    Bounded, Invalid, Meta,
    scalar::{Range, one_of_each_family},
};

/// A ServiceCIDR (`networking.k8s.io/v1`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ServiceCidr {
    #[serde(default)]
    metadata: Option<Meta>,
    spec: Option<Spec>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Spec {
    #[serde(default)]
    cidrs: Bounded<Range, 2>,
}

impl TryFrom<ServiceCidr> for model::ServiceCidr {
    type Error = Invalid;

    fn try_from(ServiceCidr { metadata, spec }: ServiceCidr) -> Result<Self, Invalid> {
        let name = (**metadata.unwrap_or_default().name()?).into();
        let ranges = one_of_each_family(&spec.unwrap_or_default().cidrs, "spec.cidrs")?;
        if ranges.is_empty() {
            return Err(Invalid::new("spec.cidrs", "a ServiceCIDR has a range, or one of each family"));
        }
        Ok(Self { name, ranges })
    }
}
