//! What encrypts the connections of `rediss://`.

/// Chooses it for the process, if nobody has: without a choice, connecting would panic where several are built in.
#[cfg(feature = "tls")]
pub(crate) fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Whoever was first has chosen for the process; that is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
