//! What is read from an X.509 certificate: the hash that logins are bound to, and the names that may come in by it.
//!
//! Reads certificates that TLS has verified, or that the operator has given; checks nothing itself. What it can't read
//! has no hash and no name.

use aws_lc_rs::digest::{self, Algorithm};
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Tag, TagNumber, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef};

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Names of one certificate that count; one with more has been made to be a nuisance.
const NAMES_MAX: usize = 256;

/// What a login over TLS is bound to (`tls-server-end-point`, RFC 5929 §4.1): the server certificate's hash, by the hash
/// function of its own signature, but never MD5 or SHA-1. `None`: the signature has no hash function (Ed25519), or an
/// unknown one; nothing can be bound then.
pub fn end_point_binding(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(der).ok()?;
    let hash = signature_hash(&certificate.signature_algorithm)?;
    Some(digest::digest(hash, der).as_ref().to_vec())
}

/// The hash function of a signature's algorithm; SHA-256 in place of those that are weaker.
fn signature_hash(algorithm: &AlgorithmIdentifierOwned) -> Option<&'static Algorithm> {
    if algorithm.oid == RSASSA_PSS {
        return pss_hash(algorithm);
    }
    Some(match algorithm.oid.to_string().as_str() {
        // RSA with MD5, SHA-1, SHA-256 (RFC 8017 §A.2.4), ECDSA with SHA-1 (RFC 3279 §2.2.3), with SHA-256 (RFC 5758 §3.2).
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => &digest::SHA224,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    })
}

/// RSASSA-PSS names its hash in its parameters (RFC 8017 §A.2.3): `SEQUENCE { [0] HashAlgorithm DEFAULT sha1, ... }`.
fn pss_hash(algorithm: &AlgorithmIdentifierOwned) -> Option<&'static Algorithm> {
    let parameters = algorithm.parameters.as_ref()?.to_der().ok()?;
    let fields = Vec::<AnyRef<'_>>::from_der(&parameters).ok()?;
    let first = Tag::ContextSpecific { constructed: true, number: TagNumber::N0 };
    let Some(named) = fields.iter().find(|field| field.tag() == first) else { return Some(&digest::SHA256) };
    let named = AlgorithmIdentifierRef::from_der(named.value()).ok()?;
    Some(match named.oid.to_string().as_str() {
        // SHA-1 and SHA-256 (RFC 8017 §A.2.1).
        "1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1" => &digest::SHA256,
        "2.16.840.1.101.3.4.2.4" => &digest::SHA224,
        "2.16.840.1.101.3.4.2.2" => &digest::SHA384,
        "2.16.840.1.101.3.4.2.3" => &digest::SHA512,
        _ => return None,
    })
}

/// The subject's common names and the DNS names, mail addresses and URIs among its alternative names, as they are
/// written.
pub fn names(der: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(der) else { return Vec::new() };
    let subject = certificate.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let common = subject.filter(|attribute| attribute.oid == COMMON_NAME).filter_map(|name| text((&name.value).into()));
    let alternative = match certificate.tbs_certificate.get::<SubjectAltName>() {
        Ok(Some((_, names))) => names.0,
        Ok(None) | Err(_) => Vec::new(),
    };
    let alternative = alternative.into_iter().filter_map(|name| match name {
        GeneralName::DnsName(name) | GeneralName::Rfc822Name(name) | GeneralName::UniformResourceIdentifier(name) => {
            Some(name.as_str().to_owned())
        }
        GeneralName::OtherName(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::IpAddress(_)
        | GeneralName::RegisteredId(_) => None,
    });
    // A NUL in a name has fooled others (CVE-2009-4034): no configured name holds one, and none is cut at it.
    common.chain(alternative).take(NAMES_MAX).collect()
}

/// A name in any of the string types that certificates use and that are ASCII or UTF-8.
fn text(value: AnyRef<'_>) -> Option<String> {
    let is_text = matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString);
    let text = std::str::from_utf8(value.value()).ok()?;
    is_text.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    fn signed_with(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    /// Made by `openssl req -x509 -sha384 -sigopt rsa_padding_mode:pss`, with names of every kind.
    fn pss() -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(include_bytes!("../../tests/fixtures/rsa-pss-sha384.pem")).unwrap()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (algorithm, hash) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(&digest::SHA256)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(&digest::SHA384)),
            (&rcgen::PKCS_RSA_SHA256, Some(&digest::SHA256)),
            (&rcgen::PKCS_RSA_SHA384, Some(&digest::SHA384)),
            (&rcgen::PKCS_RSA_SHA512, Some(&digest::SHA512)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let der = signed_with(algorithm);
            let wanted = hash.map(|hash| digest::digest(hash, &der).as_ref().to_vec());
            assert_eq!(end_point_binding(&der), wanted, "{algorithm:?}");
        }
        assert_eq!(end_point_binding(&pss()), Some(digest::digest(&digest::SHA384, &pss()).as_ref().to_vec()));
    }

    #[test]
    fn weak_hashes_are_replaced_and_unknown_ones_are_none() {
        let of = |oid: &str| {
            let oid = ObjectIdentifier::new(oid).unwrap();
            signature_hash(&AlgorithmIdentifierOwned { oid, parameters: None })
        };
        for (oid, hash) in [
            ("1.2.840.113549.1.1.4", Some(&digest::SHA256)),
            ("1.2.840.113549.1.1.5", Some(&digest::SHA256)),
            ("1.2.840.10045.4.1", Some(&digest::SHA256)),
            ("1.2.840.113549.1.1.14", Some(&digest::SHA224)),
            ("1.2.840.10045.4.3.4", Some(&digest::SHA512)),
            ("1.2.840.113549.1.1.10", None),
            ("1.2.3.4", None),
        ] {
            assert_eq!(of(oid), hash, "{oid}");
        }
    }

    #[test]
    fn names_of_every_kind() {
        assert_eq!(
            names(&pss()),
            ["app.internal", "Second", "app.example.com", "app@example.com", "spiffe://example.com/app"]
        );
    }

    #[test]
    fn what_is_no_certificate_has_nothing() {
        for junk in [&b""[..], b"junk", &pss()[..100]] {
            assert_eq!((end_point_binding(junk), names(junk)), (None, Vec::new()));
        }
    }
}
