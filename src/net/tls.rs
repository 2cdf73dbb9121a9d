//! TLS configurations, towards clients and towards databases, and certificates for demos and tests.
//!
//! TLS 1.2 and 1.3, aws-lc-rs. Errors name the file and say what to do, and never quote a key file. Certificates are
//! not watched: whoever reloads builds a new configuration, and tickets of the old one are worth nothing then.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig, SignatureScheme,
};

use super::certificate::end_point_binding;
use crate::config::{TargetAddress, TargetTls, TargetTlsMode, TlsConfig};

/// Plaintext per record to clients. libpq's asynchronous interface (and pg, ruby-pg ... on top) reads the socket in
/// pieces of 8 KiB or so and may go to sleep while the rest of a larger record sits decrypted in OpenSSL.
const RECORD_BYTES_MAX: usize = 8 * 1024;
/// rustls counts a record's header in.
const RECORD_HEADER_BYTES: usize = 5;

/// Why a TLS configuration can't be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file can't be read.
    #[error("can't read {}: {source}; check the path and the rights of the proxy's user", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not PEM, or cut off.
    #[error("{} is not a PEM file of {wanted}: its sections can't be read", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// What should be in it.
        wanted: &'static str,
    },
    /// The file is PEM, but has nothing of use in it.
    #[error("{} holds no {wanted}; it should have a section -----BEGIN {section}-----", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// The section's name.
        section: &'static str,
    },
    /// The key belongs to another certificate.
    #[error(
        "the private key in {} does not belong to the first certificate in {}; the server's own certificate comes \
         first, then those between it and its CA",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate or key can't be used.
    #[error("{} can't be used: {source}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// rustls's word.
        source: rustls::Error,
    },
    /// Client certificates can't be checked by it.
    #[error("the CA of client certificates in {} can't be used: {source}", file.display())]
    ClientCa {
        /// The file.
        file: PathBuf,
        /// rustls's word.
        source: VerifierBuilderError,
    },
    /// The system trusts nobody.
    #[error("the system has no trusted CA certificates: install ca-certificates, or name a file with `ca_file`")]
    NoSystemRoots,
    /// The target's name can't stand in a certificate.
    #[error("the host {host} is not a name that a certificate can be checked for")]
    HostName {
        /// The name.
        host: String,
    },
    /// No cryptography.
    #[error("TLS can't be set up: {0}")]
    Setup(rustls::Error),
    /// A certificate could not be made.
    #[error("can't make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// What clients are shown, and what a login over it is bound to.
#[derive(Clone)]
pub struct ServerTls {
    /// For the handshake.
    pub config: Arc<ServerConfig>,
    /// See [`end_point_binding`].
    pub end_point: Option<Vec<u8>>,
}

/// What clients are shown. The files are read now; nothing is kept open. A client that names protocols (ALPN) must name
/// this one.
pub fn server_config(tls: &TlsConfig, alpn: Option<&[u8]>) -> Result<ServerTls, TlsError> {
    let certificates = read_certificates(&tls.certificate)?;
    let end_point = certificates.first().and_then(|certificate| end_point_binding(certificate));
    let key = read_key(&tls.private_key)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(Some(file))?, provider())
                // Who must have one, the user's `auth` says.
                .allow_unauthenticated()
                .build()
                .map_err(|source| TlsError::ClientCa { file: file.clone(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(|source| {
        let (certificate, key) = (tls.certificate.clone(), tls.private_key.clone());
        if matches!(source, rustls::Error::InconsistentKeys(_)) {
            TlsError::Mismatch { certificate, key }
        } else if matches!(source, rustls::Error::InvalidCertificate(_)) {
            TlsError::Unusable { file: certificate, source }
        } else {
            TlsError::Unusable { file: key, source }
        }
    })?;
    config.max_fragment_size = Some(RECORD_BYTES_MAX + RECORD_HEADER_BYTES);
    if tls.client_ca.is_none() {
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
        // Each costs as much as a small reply, and one is enough for a driver that resumes at all.
        config.send_tls13_tickets = 1;
    } else {
        // A ticket brings the client's certificate with it, which is then looked at no more: neither at its end nor at who
        // has signed it.
        config.send_tls13_tickets = 0;
    }
    // Tickets make a memory of sessions, shared behind a lock, superfluous.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
    Ok(ServerTls { config: Arc::new(config), end_point })
}

/// How a database is spoken to.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// For the handshake.
    pub config: Arc<ClientConfig>,
    /// Who answers must show a certificate that is trusted. False: anybody in between may have answered.
    pub verifies: bool,
}

/// How a target group's databases are spoken to; `None`: without TLS.
pub fn client_config(tls: &TargetTls) -> Result<Option<ClientTls>, TlsError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(TlsError::Setup)?;
    let builder = match tls.mode {
        TargetTlsMode::Off => return Ok(None),
        TargetTlsMode::Require => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(LenientVerifier { roots: None, algorithms }))
        }
        TargetTlsMode::VerifyCa => {
            let roots = Some(roots(tls.ca_file.as_deref())?);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(LenientVerifier { roots, algorithms }))
        }
        TargetTlsMode::VerifyFull => builder.with_root_certificates(roots(tls.ca_file.as_deref())?),
    };
    let mut config = builder.with_no_client_auth();
    // PostgreSQL hands out no tickets, and the cache is a lock between workers.
    config.resumption = Resumption::disabled();
    Ok(Some(ClientTls { config: Arc::new(config), verifies: tls.mode != TargetTlsMode::Require }))
}

/// The name a target's certificate must be for, and that is sent along (SNI).
pub fn server_name(address: &TargetAddress) -> Result<ServerName<'static>, TlsError> {
    let host = match address {
        TargetAddress::Tcp { host, .. } => host.as_str(),
        TargetAddress::Unix(_) => "localhost",
    };
    // A trailing dot is DNS's way to say "absolute"; certificates have none.
    let name = host.strip_suffix('.').unwrap_or(host).to_owned();
    ServerName::try_from(name).map_err(|_| TlsError::HostName { host: host.to_owned() })
}

/// What an operator can do about a handshake with a database that failed, if the error is one of the usual ones.
pub fn advice(error: &io::Error) -> Option<&'static str> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    // rustls adds variants; only those an operator meets are here.
    #[allow(clippy::wildcard_enum_match_arm)]
    match error {
        // A bad signature: a CA of the same name with another key, as when it was made anew.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Some(
            "the target's certificate is not signed by a CA that is trusted here: name that CA's file in `ca_file`",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Some(
            "the target's certificate is for another name (subjectAltName counts, the common name does not): connect \
             by a name it is for, or set tls = \"verify-ca\"",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("the target's certificate has expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("the target's certificate is not valid yet; is the clock right?")
        }
        CertificateError::Other(OtherError(other)) if other.to_string().contains("CaUsedAsEndEntity") => Some(
            "the target uses a CA's certificate as its own: give it one signed by that CA (basicConstraints CA:FALSE)",
        ),
        _ => None,
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(ca_file: Option<&Path>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            for certificate in read_certificates(file)? {
                roots.add(certificate).map_err(|source| TlsError::Unusable { file: file.to_owned(), source })?;
            }
        }
        None => {
            // Some systems carry certificates nobody can read; the rest will do.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoSystemRoots);
            }
        }
    }
    Ok(Arc::new(roots))
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source })
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const WANTED: &str = "certificates";
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(file)?)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::Pem { file: file.to_owned(), wanted: WANTED })?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { file: file.to_owned(), wanted: "certificate", section: "CERTIFICATE" });
    }
    Ok(certificates)
}

/// The parser's own words may quote the file: they are left out.
fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|error| {
        let file = file.to_owned();
        if matches!(error, pem::Error::NoItemsFound) {
            TlsError::Empty { file, wanted: "private key (an encrypted one can't be used)", section: "PRIVATE KEY" }
        } else {
            TlsError::Pem { file, wanted: "a private key" }
        }
    })
}

/// `require` (no roots: any certificate will do) and `verify-ca` (its chain must hold, its name does not matter).
/// The handshake's signature is checked in both: the server must have the key of the certificate it shows.
#[derive(Debug)]
struct LenientVerifier {
    roots: Option<Arc<RootCertStore>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for LenientVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A CA made on the spot and a certificate signed by it, all in PEM. For demos and tests: the CA's key is thrown away.
pub struct SelfSigned {
    /// The CA's certificate, for clients: `sslrootcert`.
    pub ca: String,
    /// The server's certificate.
    pub certificate: String,
    /// The server's private key.
    pub private_key: String,
}

impl fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SelfSigned(***)")
    }
}

/// Makes a CA and a certificate for these DNS names and IP addresses, such as `localhost`, `127.0.0.1`, `::1`.
pub fn self_signed(names: &[&str]) -> Result<SelfSigned, TlsError> {
    let mut ca = rcgen::CertificateParams::new(Vec::new())?;
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    ca.distinguished_name = common_name("Sluicegate throwaway CA");
    let ca = rcgen::CertifiedIssuer::self_signed(ca, rcgen::KeyPair::generate()?)?;

    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut leaf = rcgen::CertificateParams::new(names)?;
    leaf.is_ca = rcgen::IsCa::ExplicitNoCa;
    leaf.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    leaf.distinguished_name = common_name("Sluicegate throwaway certificate");
    let key = rcgen::KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &ca)?;
    Ok(SelfSigned { ca: ca.pem(), certificate: certificate.pem(), private_key: key.serialize_pem() })
}

fn common_name(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished_name = rcgen::DistinguishedName::new();
    distinguished_name.push(rcgen::DnType::CommonName, name);
    distinguished_name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Stream;
    use rustls::HandshakeKind;
    use std::io::{Read, Write};

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new(contents: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, content) in contents {
                fs::write(folder.path().join(name), content).unwrap();
            }
            Self { folder }
        }

        fn tls(&self, certificate: &str, key: &str) -> TlsConfig {
            TlsConfig {
                certificate: self.folder.path().join(certificate),
                private_key: self.folder.path().join(key),
                client_ca: None,
            }
        }

        fn target(&self, mode: TargetTlsMode, ca: &str) -> TargetTls {
            TargetTls { mode, ca_file: Some(self.folder.path().join(ca)) }
        }
    }

    #[test]
    fn errors_name_the_file_and_never_quote_a_key() {
        let (one, other) = (self_signed(&["localhost"]).unwrap(), self_signed(&["localhost"]).unwrap());
        let cut = one.private_key.replace("-----END", "-----FIN");
        let files = Files::new(&[
            ("one.pem", &one.certificate),
            ("one.key", &one.private_key),
            ("other.key", &other.private_key),
            ("cut.key", &cut),
            ("broken.key", "-----BEGIN PRIVATE KEY-----\nMIsecret!\n-----END PRIVATE KEY-----\n"),
            ("empty", ""),
        ]);
        let check = |certificate: &str, key: &str, words: &[&str]| {
            let error = server_config(&files.tls(certificate, key), None).err().unwrap();
            let text = format!("{error} {error:?}").replace(&*files.folder.path().to_string_lossy(), "");
            for word in words {
                assert!(text.contains(word), "{word:?} is not in {text}");
            }
            assert!(!text.contains("MI"), "{text}");
        };
        check("missing.pem", "one.key", &["missing.pem", "can't read"]);
        check("one.pem", "missing.key", &["missing.key", "can't read"]);
        check("empty", "one.key", &["empty", "BEGIN CERTIFICATE"]);
        check("one.key", "one.key", &["one.key", "BEGIN CERTIFICATE"]);
        check("one.pem", "empty", &["empty", "BEGIN PRIVATE KEY"]);
        check("one.pem", "cut.key", &["cut.key", "a private key"]);
        check("one.pem", "broken.key", &["broken.key", "a private key"]);
        check("one.pem", "other.key", &["one.pem", "other.key", "does not belong"]);
        assert!(server_config(&files.tls("one.pem", "one.key"), None).is_ok());
        let missing = client_config(&files.target(TargetTlsMode::VerifyFull, "missing.pem")).unwrap_err();
        assert!(missing.to_string().contains("missing.pem"), "{missing}");
    }

    /// What comes of a handshake in this mode, with this CA, for this host: `None` is success.
    async fn handshake(files: &Files, mode: TargetTlsMode, ca: &str, host: &str) -> Option<io::Error> {
        let server = server_config(&files.tls("leaf.pem", "leaf.key"), None).unwrap().config;
        let client = client_config(&files.target(mode, ca)).unwrap().unwrap().config;
        let name = server_name(&TargetAddress::Tcp { host: host.to_owned(), port: 5432 }).unwrap();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (client, server) = tokio::join!(
            Stream::memory(ours).into_tls_client(client, name),
            Stream::memory(theirs).into_tls_server(server),
        );
        assert_eq!(client.is_ok(), server.is_ok());
        client.err()
    }

    #[tokio::test]
    async fn modes_check_what_they_say() {
        let (ours, foreign) = (self_signed(&["db.internal", "10.0.0.1"]).unwrap(), self_signed(&[]).unwrap());
        let files = Files::new(&[
            ("ca.pem", &ours.ca),
            ("foreign.pem", &foreign.ca),
            ("leaf.pem", &ours.certificate),
            ("leaf.key", &ours.private_key),
        ]);
        use TargetTlsMode::{Require, VerifyCa, VerifyFull};
        for (mode, ca, host, good) in [
            (VerifyFull, "ca.pem", "db.internal", true),
            (VerifyFull, "ca.pem", "db.internal.", true),
            (VerifyFull, "ca.pem", "10.0.0.1", true),
            (VerifyFull, "ca.pem", "db2.internal", false),
            (VerifyFull, "foreign.pem", "db.internal", false),
            (VerifyCa, "ca.pem", "db_2.internal", true),
            (VerifyCa, "foreign.pem", "db.internal", false),
            (Require, "foreign.pem", "::1", true),
        ] {
            let error = handshake(&files, mode, ca, host).await;
            assert_eq!(error.is_none(), good, "{mode:?} {ca} {host}: {error:?}");
            if let Some(error) = error {
                let advice = advice(&error).unwrap();
                assert!(advice.contains(if ca == "ca.pem" { "another name" } else { "ca_file" }), "{advice}");
            }
        }
        assert!(client_config(&files.target(TargetTlsMode::Off, "missing.pem")).unwrap().is_none());
    }

    /// Says "hello" and hears it again; how the handshake went.
    fn greets(server: &ServerTls, client: &Arc<ClientConfig>) -> HandshakeKind {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = rustls::ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::clone(&server.config)).unwrap();
        let mut carry = Vec::new();
        client.writer().write_all(b"hello").unwrap();
        // Until neither has anything to say: tickets come behind the handshake.
        while client.wants_write() || server.wants_write() {
            carry.clear();
            client.write_tls(&mut carry).unwrap();
            server.read_tls(&mut carry.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            carry.clear();
            server.write_tls(&mut carry).unwrap();
            client.read_tls(&mut carry.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        let mut heard = [0; 5];
        server.reader().read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        client.handshake_kind().unwrap()
    }

    #[test]
    fn tickets_are_good_until_the_next_configuration_and_never_beside_client_certificates() {
        let made = self_signed(&["localhost"]).unwrap();
        let files =
            Files::new(&[("ca.pem", &made.ca), ("leaf.pem", &made.certificate), ("leaf.key", &made.private_key)]);
        let plain = files.tls("leaf.pem", "leaf.key");
        let asking = TlsConfig { client_ca: Some(files.folder.path().join("ca.pem")), ..plain.clone() };
        let of = |tls: &TlsConfig| server_config(tls, None).unwrap();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            // A client that keeps its tickets.
            let client = || {
                let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]);
                let roots = roots(Some(&files.folder.path().join("ca.pem"))).unwrap();
                Arc::new(builder.unwrap().with_root_certificates(roots).with_no_client_auth())
            };
            let (server, ours) = (of(&plain), client());
            assert_eq!(greets(&server, &ours), HandshakeKind::Full, "{version:?}");
            assert_eq!(greets(&server, &ours), HandshakeKind::Resumed, "{version:?}");
            assert_eq!(greets(&of(&plain), &ours), HandshakeKind::Full, "{version:?}");
            // What was handed out without a look at certificates does not help either.
            let (server, asking) = (of(&plain), of(&asking));
            let ours = client();
            greets(&server, &ours);
            for _ in 0..3 {
                assert_eq!(greets(&asking, &ours), HandshakeKind::Full, "{version:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_server_without_the_key_is_refused_even_when_nothing_else_is_checked() {
        let (shown, owned) = (self_signed(&["localhost"]).unwrap(), self_signed(&["localhost"]).unwrap());
        let files = Files::new(&[("ca.pem", &shown.ca)]);
        // A server configuration that shows one certificate and signs with another's key.
        let key = PrivateKeyDer::from_pem_slice(owned.private_key.as_bytes()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap()];
        let key = rustls::sign::CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(&key).unwrap());
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
        for mode in [TargetTlsMode::Require, TargetTlsMode::VerifyCa] {
            let client = client_config(&files.target(mode, "ca.pem")).unwrap().unwrap();
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let (client, _) = tokio::join!(
                Stream::memory(ours).into_tls_client(client.config, ServerName::try_from("localhost").unwrap()),
                Stream::memory(theirs).into_tls_server(Arc::new(server.clone())),
            );
            assert!(client.unwrap_err().to_string().contains("BadSignature"));
        }
    }
}
