//! Verifies the certificate of the API server.

use std::sync::Arc;

use anyhow::Context;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Trusts a certificate that a CA of the kubeconfig signed, or that is itself in the CA file. Go does so too, and
/// self-signed certificates often serve as the CA.
#[derive(Debug)]
pub(super) struct Trust {
    authorities: Arc<WebPkiServerVerifier>,
    known: Vec<CertificateDer<'static>>,
}

impl Trust {
    pub(super) fn new(known: Vec<CertificateDer<'static>>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in &known {
            roots.add(certificate.clone()).context("certificate-authority contains an invalid certificate")?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { authorities, known })
    }

    fn is_known(&self, certificate: &CertificateDer<'_>) -> bool {
        self.known.iter().any(|known| known == certificate)
    }
}

/// Whether only the chain to a CA is missing. rustls checks the validity period first; the test with an expired
/// certificate guards this.
fn is_without_issuer(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            format!("{cause:?}") == "CaUsedAsEndEntity"
        }
        _ => false,
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.authorities.verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        match verdict {
            Err(error) if is_without_issuer(&error) && self.is_known(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

    /// Self-signed for `api`, and valid until the end of that year.
    fn certificate(is_ca: bool, until: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["api".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    fn check(known: &CertificateDer<'static>, shown: &CertificateDer<'_>, name: &'static str) -> Result<(), Error> {
        let trust = Trust::new(vec![known.clone()]).unwrap();
        trust.verify_server_cert(shown, &[], &name.try_into().unwrap(), &[], NOW).map(drop)
    }

    #[test]
    fn self_signed_certificate_is_trusted_only_if_the_ca_file_holds_it() {
        for is_ca in [false, true] {
            let good = certificate(is_ca, 2040);
            assert_eq!(check(&good, &good, "api"), Ok(()), "{is_ca}");
            assert!(check(&good, &good, "other").is_err(), "{is_ca}");
            assert!(check(&good, &certificate(is_ca, 2040), "api").is_err(), "{is_ca}");
            let expired = certificate(is_ca, 2021);
            assert!(check(&expired, &expired, "api").is_err(), "{is_ca}");
        }
    }
}
