//! PEM files, and the system's trust roots.

use std::path::Path;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::ClientCertFiles;
use crate::error::{Error, ErrorKind, Result};

/// What is trusted.
pub(super) struct Roots {
    pub(super) store: RootCertStore,
    /// Certificates of `ca_file` as they are, which a peer may show as its own.
    pub(super) pinned: Vec<CertificateDer<'static>>,
    /// Which certificates of `ca_file` could not be read, and why.
    pub(super) unreadable: Vec<String>,
}

impl Roots {
    /// The readable certificates of a PEM file. One that is not readable does not spoil the others.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: the file cannot be read, or no certificate in it can.
    pub(super) fn of_file(path: &Path) -> Result<Self> {
        let mut roots = Self { store: RootCertStore::empty(), pinned: Vec::new(), unreadable: Vec::new() };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(path).with_source(error))?;
        for (n, certificate) in certificates.enumerate() {
            let added = certificate.map_err(|error| error.to_string()).and_then(|certificate| {
                roots.store.add(certificate.clone()).map_err(|error| error.to_string())?;
                Ok(certificate)
            });
            match added {
                Ok(certificate) => roots.pinned.push(certificate),
                Err(why) => roots.unreadable.push(format!("certificate {} of {} ({why})", n + 1, path.display())),
            }
        }
        match roots.unreadable.first() {
            _ if !roots.pinned.is_empty() => Ok(roots),
            Some(_) => Err(unusable(path).with_source(roots.unreadable.join(", "))),
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
        Ok(Self { store, pinned: Vec::new(), unreadable: Vec::new() })
    }
}

/// The client's certificate with those of its authorities, at least one, and its private key. All have to be readable.
pub(super) fn read_client_cert(
    files: &ClientCertFiles,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let path = &files.certificate;
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, pem::Error>>);
    let chain = read.map_err(|error| unusable(path).with_source(error))?;
    if chain.is_empty() {
        return Err(unusable(path).with_source("it holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key).with_source(error))?;
    Ok((chain, key))
}

pub(super) fn unusable(path: &Path) -> Error {
    Error::local(ErrorKind::InvalidArgument, format!("the PEM file {} is not usable", path.display()))
}
