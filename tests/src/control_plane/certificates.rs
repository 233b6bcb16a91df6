//! The certificates and keys of a control plane. They need the feature `control-plane`, which the demo does without.

use std::path::Path;

use anyhow::Result;

/// Writes a CA, a server certificate for these addresses, and the key that signs ServiceAccount tokens.
#[cfg(feature = "control-plane")]
pub(super) fn write(directory: &Path, addresses: &[&str]) -> Result<()> {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // If issuer and subject had the same name, the server certificate would count as self-signed.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let addresses = addresses.iter().map(|address| (*address).to_owned()).collect::<Vec<_>>();
    let certificate = CertificateParams::new(addresses)?.signed_by(&key, &authority)?;
    let accounts = KeyPair::generate()?;
    for (name, content) in [
        ("ca.crt", authority.pem()),
        ("server.crt", certificate.pem()),
        ("server.key", key.serialize_pem()),
        ("service-accounts.key", accounts.serialize_pem()),
        ("service-accounts.pub", accounts.public_key_pem()),
    ] {
        std::fs::write(directory.join(name), content)?;
    }
    Ok(())
}

#[cfg(not(feature = "control-plane"))]
pub(super) fn write(_: &Path, _: &[&str]) -> Result<()> {
    anyhow::bail!("the scenarios were built without a control plane; build them with --features control-plane")
}
