//! The programs that a test on a cluster needs.

use anyhow::{Result, ensure};

/// A program and its installation instructions.
pub(super) type Tool = (&'static str, &'static str);

pub(super) const KUBECTL: Tool = ("kubectl", "https://kubernetes.io/docs/tasks/tools/");
pub(super) const KIND: Tool = ("kind", "https://kind.sigs.k8s.io/docs/user/quick-start/#installation");
pub(super) const DOCKER: Tool = ("docker", "https://docs.docker.com/engine/install/");

/// Fails if programs are missing, and names all of them.
pub(super) fn ensure_all(needed: &[Tool], exists: impl Fn(&str) -> bool) -> Result<()> {
    let missing = needed.iter().filter(|(name, _)| !exists(name));
    let missing: Vec<String> = missing.map(|(name, place)| format!("  {name}: {place}")).collect();
    ensure!(missing.is_empty(), "these programs are missing:\n{}", missing.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tools_are_all_named_in_one_error() {
        let error = ensure_all(&[DOCKER, KIND, KUBECTL], |name| name == "docker").unwrap_err().to_string();
        assert_eq!(
            error,
            "these programs are missing:\n  kind: https://kind.sigs.k8s.io/docs/user/quick-start/#installation\n  \
             kubectl: https://kubernetes.io/docs/tasks/tools/"
        );
        assert!(ensure_all(&[DOCKER, KIND], |_| true).is_ok());
    }
}
