//! The key file: the client's id and secret.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base64_text;
use crate::error::{Error, ErrorKind, Result};
use crate::percent;

/// The longest key file that is read, bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// Where the key file is. `Debug` shows a path, and of a `data:` URL nothing.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum KeySource {
    File(PathBuf),
    /// A whole `data:` URL.
    Data(String),
}

/// What the key file says.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) client_id: String,
    pub(super) client_secret: String,
}

impl KeySource {
    /// A path, `file:///path`, `file:/path` or `data:application/json;base64,...`.
    pub(super) fn new(text: &str) -> Self {
        let text = text.trim();
        if text.starts_with("data:") {
            return Self::Data(text.to_owned());
        }
        let Some(path) = text.strip_prefix("file:") else { return Self::File(text.into()) };
        let path = path.strip_prefix("//").unwrap_or(path);
        let decoded = percent::decoded(path).and_then(|bytes| String::from_utf8(bytes).ok());
        Self::File(decoded.unwrap_or_else(|| path.to_owned()).into())
    }

    /// Reads a file on a thread that may block.
    ///
    /// # Errors
    /// [`ErrorKind::Authentication`], final: there is no such file, or it is not a key file.
    pub(super) async fn read(&self) -> Result<Key> {
        match self {
            Self::Data(url) => {
                let bytes = data(url).map_err(|what| unusable("the data: URL of the key file", what))?;
                Key::parse(&bytes).map_err(|what| unusable("the key file in the data: URL", &what))
            }
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                read.map_err(|_| Error::local(ErrorKind::Closed, "the runtime shut down before the key file was read"))?
            }
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Data(_) => f.write_str("<data: URL>"),
        }
    }
}

impl Key {
    /// # Errors
    /// What is missing. Nothing of the text is in it.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(json).map_err(|_| "it is not JSON".to_owned())?;
        let field = |name: &str| match value.get(name).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(format!("it has no text `{name}`")),
        };
        Ok(Self { client_id: field("client_id")?, client_secret: field("client_secret")? })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, <hidden>)", self.client_id)
    }
}

fn read_file(path: &Path) -> Result<Key> {
    let name = format!("the key file {}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
    match file {
        Err(error) => Err(Error::local(ErrorKind::Authentication, format!("{name} cannot be read")).with_source(error)),
        Ok(read) if read as u64 > BYTES_MAX => {
            Err(unusable(&name, &format!("it is longer than {BYTES_MAX} bytes, so it is no key file")))
        }
        Ok(_) => Key::parse(&bytes).map_err(|what| unusable(&name, &what)),
    }
}

fn unusable(name: &str, what: &str) -> Error {
    Error::local(ErrorKind::Authentication, format!("{name} is not usable: {what}"))
}

/// The content of a `data:` URL (RFC 2397) of JSON, which is the type that other clients take.
///
/// # Errors
/// What is wrong. Nothing of the content is in it.
pub(super) fn data(url: &str) -> Result<Vec<u8>, &'static str> {
    let rest = url.strip_prefix("data:").ok_or("it does not start with data:")?;
    let (kind, content) = rest.split_once(',').ok_or("it has no comma in front of its content")?;
    let (media_type, is_base64) = match kind.strip_suffix(";base64") {
        Some(media_type) => (media_type, true),
        None => (kind, false),
    };
    let media_type = media_type.split(';').next().unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("application/json") {
        return Err("its type is not application/json, as in data:application/json;base64,...");
    }
    let content = percent::decoded(content).ok_or("a percent sign in it has no two hexadecimal digits behind it")?;
    if !is_base64 {
        return Ok(content);
    }
    let text = std::str::from_utf8(&content).ok();
    text.and_then(base64_text::decode).ok_or("its content is not base64")
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"type":"sn_service_account","client_id":"me","client_secret":"hunter2","issuer_url":"x"}"#;

    fn file(name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pulsar-native-key {name}-{}", std::process::id()));
        std::fs::write(&path, content).expect("a file can be written");
        path
    }

    #[tokio::test]
    async fn every_form_of_a_key_file_is_read() {
        let path = file("good", JSON);
        let text = path.to_str().expect("UTF-8");
        for source in [
            text.to_owned(),
            format!("file://{text}"),
            format!("file:{text}"),
            format!("file://{}\n", text.replace(' ', "%20")),
            format!("data:application/json;base64,{}", base64_text::encode(JSON.as_bytes())),
            format!("data:application/json;charset=utf-8;base64,{}", base64_text::encode(JSON.as_bytes())),
            format!("data:application/json,{}", JSON.replace('"', "%22")),
            format!("data:application/json,{JSON}"),
        ] {
            let key = KeySource::new(&source).read().await.expect(&source);
            assert_eq!((&*key.client_id, &*key.client_secret), ("me", "hunter2"), "{source}");
        }
        std::fs::remove_file(&path).expect("the file is there");
    }

    #[tokio::test]
    async fn what_is_no_key_file_is_one_line_without_the_secret() {
        let long = file("long", " ".repeat(70_000));
        let cases = [
            ("/no/such/key.json".to_owned(), "/no/such/key.json cannot be read"),
            (long.display().to_string(), "longer than 65536 bytes"),
            ("data:text/plain,hunter2".to_owned(), "not application/json"),
            ("data:;base64,hunter2".to_owned(), "not application/json"),
            ("data:application/json;base64,hunter2!".to_owned(), "not base64"),
            ("data:application/json,hunter2".to_owned(), "not JSON"),
            ("data:application/json,%hunter2".to_owned(), "percent sign"),
            ("data:hunter2".to_owned(), "no comma"),
            (r#"data:application/json,{"client_secret":"hunter2"}"#.to_owned(), "no text `client_id`"),
            (r#"data:application/json,{"client_id":"hunter2"}"#.to_owned(), "no text `client_secret`"),
        ];
        for (source, said) in cases {
            let source = KeySource::new(&source);
            let error = source.read().await.expect_err(said);
            assert!(error.kind() == ErrorKind::Authentication && !error.is_retriable(), "{error}");
            assert!(error.to_string().contains(said), "{error}");
            assert!(!format!("{error}{source:?}").contains("hunter2"), "{error} {source:?}");
        }
        std::fs::remove_file(&long).expect("the file is there");
        let key = Key::parse(JSON.as_bytes()).expect("a key");
        assert!(!format!("{key:?}").contains("hunter2"));
    }
}
