//! Certificates for one test server: an authority of its own, and what that has signed.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use tempfile::TempDir;

use super::process::folder;
use super::{TestRedisError, guard};

/// How long a test that ends may wait for its files to be removed.
const REMOVAL: Duration = Duration::from_secs(5);

/// Removes the files of a test that was killed.
const SCRIPT: &str = r#"
while read -r _; do :; done
rm -rf "$1"
"#;

/// Files with the certificates; dropped, they are gone.
pub(super) struct Certificates {
    folder: TempDir,
    guard: Child,
}

impl Certificates {
    /// New ones, for a server on this host, or at one of these other names.
    pub(super) fn new(other_names: Vec<String>) -> Result<Self, TestRedisError> {
        let Signed { ca, certificate, key } = sign(other_names)?;
        let folder = folder()?;
        let guard = guard::command(SCRIPT).arg(folder.path()).spawn();
        let guard = guard.map_err(|error| TestRedisError::refused("starting the guard", error))?;
        let made = Self { folder, guard };
        for (path, text) in [(made.ca_file(), &ca), (made.certificate_file(), &certificate), (made.key_file(), &key)] {
            std::fs::write(path, text).map_err(|error| TestRedisError::refused("writing the certificates", error))?;
        }
        Ok(made)
    }

    pub(super) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(super) fn certificate_file(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.folder.path().join("server.key")
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        guard::end(&mut self.guard, REMOVAL);
    }
}

struct Signed {
    ca: String,
    certificate: String,
    key: String,
}

#[cfg(feature = "tls")]
fn sign(other_names: Vec<String>) -> Result<Signed, TestRedisError> {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    let make = || {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "group-redis test authority");
        let authority_key = KeyPair::generate()?;
        let ca = authority.self_signed(&authority_key)?.pem();
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().chain(other_names);
        let mut server = CertificateParams::new(names.collect::<Vec<_>>())?;
        server.distinguished_name.push(DnType::CommonName, "group-redis test server");
        server.use_authority_key_identifier_extension = true;
        // A server is its replicas' and its cluster nodes' client too.
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &Issuer::new(authority, authority_key))?.pem();
        Ok(Signed { ca, certificate, key: key.serialize_pem() })
    };
    make().map_err(|error: rcgen::Error| TestRedisError::refused("making the certificates", error))
}

#[cfg(not(feature = "tls"))]
fn sign(_: Vec<String>) -> Result<Signed, TestRedisError> {
    Err(TestRedisError::unsuitable("TLS needs the feature \"tls\" of group-redis; switch it on"))
}
