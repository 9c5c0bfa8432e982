//! PEM files, and the system's trust roots.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::client::dial::ClientCertFiles;
use crate::error::{Error, ErrorKind, Result};

/// What is trusted.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) store: Arc<RootCertStore>,
    /// Certificates of `ca_file` as they are, which a peer may show as its own.
    pub(super) pinned: Vec<CertificateDer<'static>>,
    /// Which certificates of `ca_file` could not be read, and why.
    pub(super) unreadable: Vec<String>,
}

impl Roots {
    /// The readable certificates of a PEM file with these bytes. One that is not readable does not spoil the others.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: no certificate in it can be read.
    pub(super) fn of_pem(path: &Path, pem: &[u8]) -> Result<Self> {
        let mut store = RootCertStore::empty();
        let (mut pinned, mut unreadable) = (Vec::new(), Vec::new());
        for (n, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let added = certificate.map_err(|error| error.to_string()).and_then(|certificate| {
                store.add(certificate.clone()).map_err(|error| error.to_string())?;
                Ok(certificate)
            });
            match added {
                Ok(certificate) => pinned.push(certificate),
                Err(why) => unreadable.push(format!("certificate {} of {} ({why})", n + 1, path.display())),
            }
        }
        match unreadable.first() {
            _ if !pinned.is_empty() => Ok(Self { store: Arc::new(store), pinned, unreadable }),
            Some(_) => Err(unusable(path).with_source(unreadable.join(", "))),
            None => Err(unusable(path).with_source("it holds no certificate")),
        }
    }

    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: there are none, or none can be read.
    pub(super) fn of_system() -> Result<Self> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
            let what = format!("the system's trust roots cannot be read ({why}); name a CA file");
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        Ok(Self { store: Arc::new(store), pinned: Vec::new(), unreadable: Vec::new() })
    }
}

/// The client's certificate with those of its authorities, at least one, and its private key. All have to be readable.
pub(super) fn read_client_cert(
    files: &ClientCertFiles,
    certificate: &[u8],
    key: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let path = &files.certificate;
    let read = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, pem::Error>>();
    let chain = read.map_err(|error| unusable(path).with_source(error))?;
    if chain.is_empty() {
        return Err(unusable(path).with_source("it holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable(&files.key).with_source(error))?;
    Ok((chain, key))
}

pub(super) fn unusable(path: &Path) -> Error {
    Error::local(ErrorKind::InvalidArgument, format!("the PEM file {} is not usable", path.display()))
}
