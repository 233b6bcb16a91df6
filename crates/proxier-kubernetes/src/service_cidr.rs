use proxier::model::{self, Event};
use serde::Deserialize;

use crate::{
    Invalid, Kind, Object,
    list::Bounded,
    meta::Meta,
    scalar::{Range, one_of_each_family},
};

/// A ServiceCIDR (`networking.k8s.io/v1`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct ServiceCidr {
    #[serde(default)]
    metadata: Option<Meta>,
    spec: Option<Spec>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Spec {
    #[serde(default)]
    cidrs: Bounded<Range, 2>,
}

impl ServiceCidr {
    pub(crate) fn convert(self) -> Result<Object, Invalid> {
        let key = self.metadata.unwrap_or_default().key(Kind::ServiceCidr)?;
        let ranges = one_of_each_family(&self.spec.unwrap_or_default().cidrs, "spec.cidrs")?;
        if ranges.is_empty() {
            return Err(Invalid::new("spec.cidrs", "a ServiceCIDR needs a range, or one range of each family"));
        }
        let range = model::ServiceCidr { name: (*key.name).into(), ranges };
        Ok(Object { event: Some(Event::ServiceCidrApplied(range)), ..Object::new(key) })
    }
}
