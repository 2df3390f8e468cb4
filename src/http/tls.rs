//! What a server shows that it is who it says: its certificate and its key, from two files in PEM.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustkernel_core::clock::{Clock, Timestamp};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// A certificate and its key, for [`HealthServer::start_tls`](super::HealthServer::start_tls). The files are read again when a connection comes a
/// minute or more after they were read last, so that a certificate that is renewed is shown; while they are unreadable the old one is.
pub struct Tls {
    files: Files,
    clock: Clock,
    shown: Mutex<(Timestamp, TlsAcceptor)>,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// Why two files are no certificate and its key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or is not in PEM.
    #[error("{file} cannot be read: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// There is no certificate in it.
    #[error("{file} holds no certificate")]
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// The two do not belong together, or are of a kind that is not known here.
    #[error("the certificate in {certificate} and the key in {key} cannot be used: {source}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
}

/// For how long a certificate is shown before its files are read again.
const FRESH: Duration = Duration::from_secs(60);

impl Tls {
    /// The chain of certificates, the server's own first, in one file, and its private key in another. For TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// [`TlsError`] says what is wrong with which file.
    pub fn new(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsError> {
        Self::with_clock(certificate.as_ref(), key.as_ref(), Clock::system())
    }

    fn with_clock(certificate: &Path, key: &Path, clock: Clock) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let shown = Mutex::new((clock.now(), files.read()?));
        Ok(Self { files, clock, shown })
    }

    /// What takes the next connection. Where the files are due it has them read, on a thread of their own: a file system that hangs keeps
    /// no probe waiting.
    pub(super) fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        if self.is_due() {
            let tls = Arc::clone(self);
            let reader = thread::Builder::new().name("rustkernel-tls".to_owned());
            if let Err(error) = reader.spawn(move || tls.read_again()) {
                tracing::warn!(%error, "the certificate is not read again");
            }
        }
        self.shown().1.clone()
    }

    /// Once in a while, to one who asks.
    fn is_due(&self) -> bool {
        let now = self.clock.now();
        let mut shown = self.shown();
        let is_due = now >= shown.0 + FRESH;
        if is_due {
            shown.0 = now;
        }
        is_due
    }

    fn read_again(&self) {
        match self.files.read() {
            Ok(acceptor) => self.shown().1 = acceptor,
            Err(error) => tracing::warn!(%error, "the certificate that was read before is shown"),
        }
    }

    fn shown(&self) -> MutexGuard<'_, (Timestamp, TlsAcceptor)> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.files.certificate).finish_non_exhaustive()
    }
}

impl Files {
    fn read(&self) -> Result<TlsAcceptor, TlsError> {
        let Self { certificate, key } = self;
        let unreadable = |file: &Path| {
            let file = file.to_owned();
            move |source| TlsError::File { file, source }
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(unreadable(certificate))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate { file: certificate.clone() });
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
        // Named, and not the process's default: that is the user's affair.
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|source| TlsError::Pair {
                certificate: certificate.clone(),
                key: key.clone(),
                source,
            })?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renew(folder: &Path) -> [PathBuf; 2] {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let [certificate, key] = ["renewed.pem", "renewed.key"].map(|name| folder.join(name));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        [certificate, key]
    }

    #[test]
    fn a_renewed_certificate_is_shown_after_a_minute_and_the_old_one_while_it_is_unreadable() {
        let folder = std::env::temp_dir().join(format!("rustkernel-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [certificate, key] = renew(&folder);
        let (clock, hand) = Clock::manual();
        let tls = Tls::with_clock(&certificate, &key, clock).unwrap();
        // As for a connection, on this thread.
        let shown = || {
            if tls.is_due() {
                tls.read_again();
            }
            tls.shown().1.clone()
        };
        let shows = |other: &TlsAcceptor| Arc::ptr_eq(shown().config(), other.config());
        let first = shown();
        renew(&folder);
        hand.advance(FRESH - Duration::from_millis(1));
        assert!(shows(&first), "not read yet");
        hand.advance(Duration::from_millis(1));
        assert!(!shows(&first), "renewed");
        let second = shown();
        std::fs::write(&key, "half a ke").unwrap();
        hand.advance(FRESH);
        assert!(shows(&second), "the one before");
        renew(&folder);
        hand.advance(FRESH);
        assert!(!shows(&second));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
