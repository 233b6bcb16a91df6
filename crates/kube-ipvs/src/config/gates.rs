//! Kubernetes' feature gates. kube-proxy gets the gates of the whole cluster, so each one has a verdict here.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{
    boolean,
    text::{items, join},
};

/// Gates that kube-ipvs accepts and ignores.
const WITHOUT_EFFECT: &str = include_str!("gates.txt");

fn without_effect() -> impl Iterator<Item = &'static str> {
    WITHOUT_EFFECT.lines().filter(|line| !line.starts_with('#'))
}

/// `--feature-gates`: the gates that the user sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FeatureGates(BTreeMap<String, bool>);

/// The only gate that changes how kube-ipvs serves.
const EXTERNAL_IPS: &str = "AllowServiceExternalIPs";

/// kube-proxy 1.36 refuses to turn this gate off too: it always follows `forNodes` hints.
const ALWAYS_ON: &str = "PreferSameTrafficDistribution";

fn is_known(gate: &str) -> bool {
    gate == EXTERNAL_IPS || gate == ALWAYS_ON || without_effect().any(|known| known == gate)
}

impl FeatureGates {
    /// Whether kube-ipvs serves external IPs of Services.
    pub fn allow_service_external_ips(&self) -> bool {
        self.0.get(EXTERNAL_IPS).copied().unwrap_or(true)
    }

    /// The gates that are set and have no effect.
    pub(super) fn without_effect(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|gate| *gate != EXTERNAL_IPS)
    }

    /// Rejects unknown gates as kube-proxy does: an unknown name can be a typo.
    fn checked(gates: BTreeMap<String, bool>) -> Result<Self, String> {
        for (gate, value) in &gates {
            if !is_known(gate) {
                return Err(format!(
                    "unrecognized feature gate {gate:?}: kube-proxy 1.36 does not know it either; correct or remove it"
                ));
            }
            if gate == ALWAYS_ON && !value {
                return Err(format!("cannot set feature gate {gate} to false: it is locked to true"));
            }
        }
        Ok(Self(gates))
    }
}

/// kube-proxy's notation: `A=true,B=false`.
impl FromStr for FeatureGates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let gate = |item: &str| {
            let (gate, value) =
                item.split_once('=').ok_or_else(|| format!("{item:?} is not of the form GATE=true or GATE=false"))?;
            let value = boolean::parse(value.trim()).map_err(|error| format!("feature gate {gate}: {error}"))?;
            Ok((gate.trim().to_owned(), value))
        };
        Self::checked(items(text).map(gate).collect::<Result<_, String>>()?)
    }
}

impl fmt::Display for FeatureGates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(self.0.iter().map(|(gate, value)| format!("{gate}={value}"))))
    }
}

impl<'de> Deserialize<'de> for FeatureGates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::checked(BTreeMap::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FeatureGates, String> {
        text.parse()
    }

    #[test]
    fn every_gate_of_kube_proxy_is_known_once() {
        let names: Vec<&str> = super::without_effect().collect();
        let distinct: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(distinct.len(), names.len(), "a gate is listed twice");
        assert!(names.iter().all(|name| name.chars().all(|letter| letter.is_ascii_alphanumeric())));
        // A gate that is set to `value` either has an effect, is reported as one without effect, or is rejected.
        let is_reported = |gate: &str, value: bool| {
            let gates = parse(&format!("{gate}={value}"))?;
            Ok::<bool, String>(gates.without_effect().eq([gate]))
        };
        for name in names {
            assert_eq!((is_reported(name, true), is_reported(name, false)), (Ok(true), Ok(true)), "{name}");
        }
        // The gates that kube-proxy 1.36 itself reads.
        for gate in [
            "PreferSameTrafficDistribution",
            "MultiCIDRServiceAllocator",
            "ComponentFlagz",
            "ComponentStatusz",
            "WinDSR",
            "WinOverlay",
            "ContextualLogging",
            "NativeHistograms",
            "AllAlpha",
            // The first is of 1.34, and the second of 1.37.
            "ComponentSLIs",
            "CompositePodGroup",
        ] {
            assert_eq!(is_reported(gate, true), Ok(true), "{gate}");
        }
        for value in [true, false] {
            assert_eq!(is_reported("AllowServiceExternalIPs", value), Ok(false));
        }
        for gate in ["allowserviceexternalips", "", "# Kubernetes 1.37, of kube-proxy."] {
            assert!(!is_known(gate), "{gate}");
            assert!(is_reported(gate, true).is_err(), "{gate}");
        }
    }

    #[test]
    fn external_ips_are_allowed_unless_the_gate_says_no() {
        let allows = |text| parse(text).unwrap().allow_service_external_ips();
        assert!(allows(""));
        assert!(allows("AllowServiceExternalIPs=true,WatchListClient=false"));
        assert!(!allows(" AllowServiceExternalIPs = false "));
        assert!(!allows("AllowServiceExternalIPs=true,AllowServiceExternalIPs=F"));
    }

    #[test]
    fn unknown_or_locked_gate_is_rejected_by_name() {
        let refused = |text| parse(text).unwrap_err();
        assert!(
            refused("AllowServiceExternalIP=false").starts_with("unrecognized feature gate \"AllowServiceExternalIP\"")
        );
        assert_eq!(
            refused("PreferSameTrafficDistribution=false"),
            "cannot set feature gate PreferSameTrafficDistribution to false: it is locked to true"
        );
        assert_eq!(refused("WinDSR"), "\"WinDSR\" is not of the form GATE=true or GATE=false");
        assert_eq!(refused("WinDSR=maybe"), "feature gate WinDSR: \"maybe\" is neither true nor false");
        let gates = parse("PreferSameTrafficDistribution=true,KubeProxyIPVS=true").unwrap();
        assert_eq!(gates.without_effect().collect::<Vec<_>>(), ["KubeProxyIPVS", "PreferSameTrafficDistribution"]);
        assert_eq!(gates.to_string(), "KubeProxyIPVS=true,PreferSameTrafficDistribution=true");
    }
}
