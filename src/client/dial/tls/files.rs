//! The PEM files of a client, read anew for each connection, and the configuration they come to.
//!
//! | what is read | what the connection uses |
//! | --- | --- |
//! | the same bytes as before | the same configuration, with its sessions that can be resumed |
//! | others, all usable | a new configuration |
//! | others that are not: a file is missing or half written, a key does not belong to its certificate, a certificate of `ca_file` cannot be read | the last good configuration; it is told once, and in the error of a connection that fails |
//! | the first ever, not usable | none: the connection fails |
//!
//! The bytes are compared, not times or names: a link that leads to another folder is a change like any other, as when
//! Kubernetes replaces a mounted secret.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::roots::{Roots, read_client_cert, unusable};
use super::verifier::ServerVerifier;
use crate::client::dial::ClientCertFiles;
use crate::error::{Error, ErrorKind, Result};
use crate::tls_provider;

/// What a file may have, bytes: far more than any chain of certificates.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where the files are, and what they held.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    ca_file: Option<PathBuf>,
    client_cert: Option<ClientCertFiles>,
    skips_host_name: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    good: Option<Good>,
    /// Why the files are not usable that have changed since.
    trouble: Option<Arc<str>>,
    /// Without a `ca_file`. They are read once.
    system_roots: Option<Arc<Roots>>,
}

/// The last files that were usable.
#[derive(Debug)]
struct Good {
    contents: Contents,
    setup: Setup,
}

/// The bytes of each file.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    ca: Option<Vec<u8>>,
    /// The certificate's file, and that of its key.
    client_cert: Option<(Vec<u8>, Vec<u8>)>,
}

/// What a connection uses.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) config: Arc<ClientConfig>,
    /// Certificates of `ca_file` that could not be read, for the error of a connection that may have needed them.
    pub(super) unreadable: Arc<[String]>,
    /// Why the files are not usable that have changed since.
    pub(super) trouble: Option<Arc<str>>,
    /// The first connection with this trouble.
    pub(super) is_news: bool,
}

impl TlsFiles {
    pub(super) fn new(ca_file: Option<PathBuf>, client_cert: Option<ClientCertFiles>, skips_host_name: bool) -> Self {
        Self { ca_file, client_cert, skips_host_name, state: Mutex::default() }
    }

    /// Reads the files: only on a thread that may block.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: they are not usable, and never were.
    pub(super) fn setup(&self) -> Result<Setup> {
        let read = self.read();
        // No user code runs under this lock; a panic elsewhere leaves at worst what was read before.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let is_same =
            |contents: &Contents, good: &Option<Good>| good.as_ref().is_some_and(|good| good.contents == *contents);
        let error = match read {
            Ok(contents) if is_same(&contents, &state.good) => None,
            Ok(contents) => match self.configure(&contents, state) {
                Ok(setup) => {
                    state.good = Some(Good { contents, setup });
                    None
                }
                Err(error) => Some(error),
            },
            Err(error) => Some(error),
        };
        let Some(good) = &state.good else { return Err(error.unwrap_or_else(no_files)) };
        let trouble = error.map(|error| Arc::<str>::from(error.to_string()));
        let is_news = trouble.is_some() && trouble != state.trouble;
        state.trouble.clone_from(&trouble);
        Ok(Setup { trouble, is_news, ..good.setup.clone() })
    }

    fn read(&self) -> Result<Contents> {
        let client_cert = self.client_cert.as_ref();
        Ok(Contents {
            ca: self.ca_file.as_deref().map(read_file).transpose()?,
            client_cert: client_cert
                .map(|files| Ok::<_, Error>((read_file(&files.certificate)?, read_file(&files.key)?)))
                .transpose()?,
        })
    }

    fn configure(&self, contents: &Contents, state: &mut State) -> Result<Setup> {
        let roots = match (&self.ca_file, &contents.ca) {
            (Some(path), Some(pem)) => {
                let roots = Roots::of_pem(path, pem)?;
                match roots.unreadable.first() {
                    // It may be half written, and there is a whole one.
                    Some(why) if state.good.is_some() => return Err(unusable(path).with_source(why.clone())),
                    _ => Arc::new(roots),
                }
            }
            _ => system_roots(&mut state.system_roots)?,
        };
        let provider = tls_provider::provider().map_err(|what| Error::local(ErrorKind::Unsupported, what))?;
        let verifier = ServerVerifier::new(&roots, provider.clone(), self.skips_host_name)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::local(ErrorKind::Unsupported, "TLS is not available").with_source(error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match (&self.client_cert, &contents.client_cert) {
            (Some(files), Some((certificate, key))) => {
                let (chain, key): (Vec<CertificateDer<'static>>, _) = read_client_cert(files, certificate, key)?;
                config.with_client_auth_cert(chain, key).map_err(|error| unusable(&files.key).with_source(error))?
            }
            _ => config.with_no_client_auth(),
        };
        Ok(Setup {
            config: Arc::new(config),
            unreadable: roots.unreadable.clone().into(),
            trouble: None,
            is_news: false,
        })
    }
}

fn system_roots(kept: &mut Option<Arc<Roots>>) -> Result<Arc<Roots>> {
    if let Some(roots) = kept {
        return Ok(roots.clone());
    }
    let roots = Arc::new(Roots::of_system()?);
    *kept = Some(roots.clone());
    Ok(roots)
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| unusable(path).with_source(error))?;
    Ok(bytes)
}

/// Not reached: what is not good has an error.
fn no_files() -> Error {
    Error::local(ErrorKind::InvalidArgument, "the TLS files are not usable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenario/tls").join(name)
    }

    /// Files of their own, which go with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("pulsar-native-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder");
            Self(folder)
        }

        fn put(&self, name: &str, from: &str) {
            std::fs::copy(file(from), self.0.join(name)).expect("a copy");
        }

        fn files(&self) -> TlsFiles {
            let client_cert = ClientCertFiles { certificate: self.0.join("tls.crt"), key: self.0.join("tls.key") };
            TlsFiles::new(Some(self.0.join("ca.crt")), Some(client_cert), false)
        }

        fn filled(name: &str) -> Self {
            let folder = Self::new(name);
            folder.put("ca.crt", "ca.pem");
            folder.put("tls.crt", "client.pem");
            folder.put("tls.key", "client-key.pem");
            folder
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_same_bytes_keep_the_configuration_and_others_make_a_new_one() {
        let folder = Folder::filled("tls-same");
        let files = folder.files();
        let first = files.setup().expect("usable");
        // As a copy of the same secret: another file with the same bytes.
        std::fs::remove_file(folder.0.join("tls.crt")).expect("it is there");
        folder.put("tls.crt", "client.pem");
        assert!(Arc::ptr_eq(&first.config, &files.setup().expect("usable").config));
        folder.put("tls.crt", "server.pem");
        folder.put("tls.key", "server-key.pem");
        let second = files.setup().expect("usable");
        assert!(!Arc::ptr_eq(&first.config, &second.config));
        folder.put("ca.crt", "self-signed.pem");
        assert!(!Arc::ptr_eq(&second.config, &files.setup().expect("usable").config));
    }

    #[test]
    fn what_is_half_written_leaves_the_last_good_files_in_use() {
        let folder = Folder::filled("tls-half");
        let files = folder.files();
        let good = files.setup().expect("usable");
        let half = |name: &str| {
            let bytes = std::fs::read(folder.0.join(name)).expect("it is there");
            std::fs::write(folder.0.join(name), &bytes[..bytes.len() / 2]).expect("written");
        };
        // The new certificate without its key, files that are cut, and one that is not there.
        let steps: [(&str, &dyn Fn()); 4] = [
            ("tls.key", &|| folder.put("tls.crt", "server.pem")),
            ("tls.crt", &|| half("tls.crt")),
            ("ca.crt", &|| half("ca.crt")),
            ("tls.key", &|| std::fs::remove_file(folder.0.join("tls.key")).expect("it is there")),
        ];
        for (named, step) in steps {
            folder.put("ca.crt", "ca.pem");
            folder.put("tls.crt", "client.pem");
            assert_eq!(files.setup().expect("usable").trouble, None);
            step();
            let setup = files.setup().expect("the last good ones");
            assert!(Arc::ptr_eq(&good.config, &setup.config));
            assert!(setup.trouble.as_deref().is_some_and(|text| text.contains(named)), "{named}: {setup:?}");
        }
        // What has no last good files fails.
        let error = folder.files().setup().expect_err("no key");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        // The other half of the change.
        folder.put("tls.crt", "server.pem");
        folder.put("tls.key", "server-key.pem");
        let setup = files.setup().expect("usable");
        assert!(setup.trouble.is_none() && !Arc::ptr_eq(&good.config, &setup.config));
    }
}
