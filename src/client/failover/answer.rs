//! What a provider of service URLs answers: the cluster to use, as JSON.

use serde_json::{Map, Value};

use super::Cluster;
use crate::client::auth::{Basic, NoAuthentication, TlsAuthentication, Token};
use crate::client::dial::{ClientCertFiles, TlsSettings};
use crate::error::{Error, ErrorKind, Result};

/// The names of the Java client's methods of authentication all begin like this.
const PLUGINS: &str = "org.apache.pulsar.client.impl.auth.";

/// An answer that can be used. Two that are equal ask for the same cluster.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Answer {
    service_url: String,
    ca_file: Option<String>,
    credentials: Option<Credentials>,
}

#[derive(Clone, PartialEq, Eq)]
enum Credentials {
    Token(String),
    /// The name of a method of the Java client, and its parameters.
    Plugin(String, String),
}

impl Answer {
    /// The cluster at this URL, with the options of the client's builder.
    pub(super) fn of_url(service_url: &str) -> Self {
        Self { service_url: service_url.to_owned(), ca_file: None, credentials: None }
    }

    /// # Errors
    /// [`ErrorKind::Connection`] for another status than 200, [`ErrorKind::Protocol`] for a body that names no cluster.
    /// Nothing of the body is in it.
    pub(super) fn read(status: u16, body: &[u8]) -> Result<Self> {
        if status != 200 {
            return Err(Error::network(format!("status {status}")));
        }
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
            return Err(Error::protocol("its answer is not a JSON object"));
        };
        let Some(service_url) = text(&object, "serviceUrl")? else {
            return Err(Error::protocol("its answer has no `serviceUrl`"));
        };
        let plugin = text(&object, "authPluginClassName")?;
        let parameters = text(&object, "authParamsString")?;
        let credentials = match (text(&object, "token")?, plugin.zip(parameters)) {
            (Some(_), Some(_)) => {
                return Err(Error::protocol("its answer has both a `token` and an `authPluginClassName`"));
            }
            (Some(token), None) => Some(Credentials::Token(token)),
            (None, plugin) => plugin.map(|(name, parameters)| Credentials::Plugin(name, parameters)),
        };
        Ok(Self { service_url, ca_file: text(&object, "tlsTrustCertsFilePath")?, credentials })
    }

    /// The cluster that is asked for, with the TLS options of the client's builder where the answer has none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] or [`ErrorKind::Unsupported`]: the credentials are not usable. No value is in it.
    pub(super) fn cluster(&self, tls: &TlsSettings) -> Result<Cluster> {
        let mut cluster = Cluster::new(&*self.service_url);
        if let Some(path) = &self.ca_file {
            cluster.tls = Some(TlsSettings { ca_file: Some(path.into()), ..tls.clone() });
        }
        match &self.credentials {
            None => Ok(cluster),
            Some(Credentials::Token(token)) => Ok(cluster.authentication(Token::new(token))),
            Some(Credentials::Plugin(name, parameters)) => with_plugin(cluster, tls, name, parameters),
        }
    }
}

/// A member that is a text; a blank one counts as none, as in the Java client.
fn text(object: &Map<String, Value>, name: &str) -> Result<Option<String>> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Some(_) => Err(Error::protocol(format!("`{name}` of its answer is not a text"))),
    }
}

/// With the credentials of a method that the Java client knows by this name.
fn with_plugin(cluster: Cluster, tls: &TlsSettings, name: &str, parameters: &str) -> Result<Cluster> {
    match name.strip_prefix(PLUGINS) {
        Some("AuthenticationToken") => Ok(cluster.authentication(token(parameters))),
        Some("AuthenticationBasic") => Ok(cluster.authentication(Basic::from_params(parameters)?)),
        Some("AuthenticationTls") => {
            let mut cluster = cluster.authentication(TlsAuthentication);
            let files = certificate(parameters).ok_or_else(|| {
                invalid("the parameters of AuthenticationTls lack `tlsCertFile` or `tlsKeyFile`".to_owned())
            })?;
            cluster.tls.get_or_insert_with(|| tls.clone()).client_cert = Some(files);
            Ok(cluster)
        }
        #[cfg(feature = "oauth2")]
        Some("oauth2.AuthenticationOAuth2") => {
            Ok(cluster.authentication(crate::client::oauth2::OAuth2::from_params(parameters)?))
        }
        #[cfg(not(feature = "oauth2"))]
        Some("oauth2.AuthenticationOAuth2") => {
            let what = "AuthenticationOAuth2 needs the crate feature `oauth2`, which this build lacks";
            Err(Error::local(ErrorKind::Unsupported, what))
        }
        Some("AuthenticationDisabled") => Ok(cluster.authentication(NoAuthentication)),
        _ => Err(invalid(format!(
            "`authPluginClassName` of its answer is none of {PLUGINS}AuthenticationToken, \
                                  AuthenticationBasic, AuthenticationTls, oauth2.AuthenticationOAuth2"
        ))),
    }
}

fn invalid(what: String) -> Error {
    Error::local(ErrorKind::InvalidArgument, what)
}

/// `{"token":"..."}`, or what [`Token::new`] takes.
fn token(parameters: &str) -> Token {
    let parsed = serde_json::from_str::<Value>(parameters).ok();
    let member = parsed.as_ref().and_then(|parsed| parsed.get("token")?.as_str());
    Token::new(member.unwrap_or(parameters))
}

/// As JSON, or as `tlsCertFile:/path,tlsKeyFile:/path`.
fn certificate(parameters: &str) -> Option<ClientCertFiles> {
    let parsed = serde_json::from_str::<Value>(parameters).ok();
    let pair = |name: &str| parameters.split(',').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix(':'));
    let path = |name| match &parsed {
        Some(parsed) => parsed.get(name)?.as_str(),
        None => pair(name),
    };
    let path = |name| path(name).map(str::trim).filter(|path| !path.is_empty());
    Some(ClientCertFiles { certificate: path("tlsCertFile")?.into(), key: path("tlsKeyFile")?.into() })
}

/// The body of the fuzz target: an answer, the first byte of which says whether its status is 200.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any(bytes: &[u8]) {
    let [status, body @ ..] = bytes else { return };
    let status = if status % 8 == 7 { 503 } else { 200 };
    let used = Answer::read(status, body).and_then(|answer| {
        assert!(!answer.service_url.trim().is_empty() && answer == answer.clone());
        answer.cluster(&TlsSettings::default()).map(drop)
    });
    if let Err(error) = used {
        let text = error.to_string();
        assert!(!text.contains("hunter2") && !text.contains('\n') && text.len() < 1000, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value) -> Answer {
        Answer::read(200, body.to_string().as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    fn with(plugin: &str, parameters: &str) -> Answer {
        read(&serde_json::json!({
            "serviceUrl": "pulsar://a", "authPluginClassName": plugin, "authParamsString": parameters,
        }))
    }

    #[test]
    fn an_answer_is_the_java_clients() {
        let answer = read(&serde_json::json!({
            "serviceUrl": " pulsar+ssl://a:6651 ",
            "tlsTrustCertsFilePath": "/ca.pem",
            "authPluginClassName": "org.apache.pulsar.client.impl.auth.AuthenticationToken",
            "authParamsString": "token:secret",
            "unknown": [],
        }));
        let tls = TlsSettings { skips_host_name: true, ..Default::default() };
        let cluster = answer.cluster(&tls).expect("a cluster");
        assert_eq!(cluster.service_url(), "pulsar+ssl://a:6651");
        let tls = cluster.tls.expect("its own");
        assert_eq!((tls.ca_file, tls.skips_host_name), (Some("/ca.pem".into()), true), "the rest is the builder's");
        assert!(cluster.authentication.is_some());
    }

    #[test]
    fn what_is_blank_is_not_there() {
        let plain = Answer::of_url("pulsar://a");
        for more in [
            serde_json::json!({ "serviceUrl": "pulsar://a" }),
            serde_json::json!({ "serviceUrl": "pulsar://a", "tlsTrustCertsFilePath": "", "token": null }),
            serde_json::json!({ "serviceUrl": "pulsar://a", "authPluginClassName": "x", "authParamsString": " " }),
            serde_json::json!({ "serviceUrl": "pulsar://a", "authParamsString": "token:secret" }),
        ] {
            assert!(read(&more) == plain, "{more}");
        }
        let cluster = plain.cluster(&TlsSettings::default()).expect("a cluster");
        assert!(cluster.tls.is_none() && cluster.authentication.is_none(), "those of the builder");
        assert!(read(&serde_json::json!({ "serviceUrl": "pulsar://a", "token": "secret" })) != plain);
    }

    #[test]
    fn methods_have_their_names_and_parameters_of_java() {
        let cluster =
            |plugin: &str, parameters| with(&format!("{PLUGINS}{plugin}"), parameters).cluster(&TlsSettings::default());
        for (plugin, parameters) in [
            ("AuthenticationToken", r#"{"token":"secret"}"#),
            ("AuthenticationToken", "file:///run/token"),
            ("AuthenticationBasic", r#"{"userId":"alice","password":"secret"}"#),
            ("AuthenticationDisabled", "none"),
            #[cfg(feature = "oauth2")]
            ("oauth2.AuthenticationOAuth2", r#"{"issuerUrl":"https://a","privateKey":"/key.json"}"#),
        ] {
            let cluster = cluster(plugin, parameters).unwrap_or_else(|error| panic!("{plugin}: {error}"));
            assert!(cluster.authentication.is_some(), "{plugin}");
        }
        for parameters in [r#"{"tlsCertFile":"/c.pem","tlsKeyFile":"/k.pem"}"#, "tlsCertFile:/c.pem, tlsKeyFile:/k.pem"]
        {
            let tls = cluster("AuthenticationTls", parameters).expect("a cluster").tls.expect("its own");
            let files = tls.client_cert.expect("a certificate");
            assert_eq!((files.certificate, files.key), ("/c.pem".into(), "/k.pem".into()));
        }
    }

    #[test]
    fn what_is_not_usable_is_named_without_its_values() {
        let url = r#""serviceUrl":"pulsar://a""#;
        for (status, body, said) in [
            (503, r#"{"hunter2":1}"#.to_owned(), "status 503"),
            (200, "hunter2".to_owned(), "not a JSON object"),
            (200, r#"["hunter2"]"#.to_owned(), "not a JSON object"),
            (200, r#"{"serviceURL":"hunter2"}"#.to_owned(), "no `serviceUrl`"),
            (200, r#"{"serviceUrl":["hunter2"]}"#.to_owned(), "`serviceUrl` of its answer is not a text"),
            (200, format!(r#"{{{url},"token":7}}"#), "`token` of its answer is not a text"),
            (
                200,
                format!(r#"{{{url},"token":"hunter2","authPluginClassName":"a","authParamsString":"b"}}"#),
                "both a `token` and",
            ),
        ] {
            let error = Answer::read(status, body.as_bytes()).err().unwrap_or_else(|| panic!("{body}"));
            assert!(error.to_string().contains(said) && !error.to_string().contains("hunter2"), "{error}");
        }
        for (plugin, parameters, said) in [
            ("com.example.Hunter2", "hunter2", "is none of"),
            ("org.apache.pulsar.client.impl.auth.AuthenticationTls", "tlsCertFile:hunter2", "`tlsKeyFile`"),
            ("org.apache.pulsar.client.impl.auth.AuthenticationBasic", "hunter2", "a user"),
        ] {
            let error = with(plugin, parameters).cluster(&TlsSettings::default()).err();
            let error = error.unwrap_or_else(|| panic!("{plugin}"));
            assert!(error.to_string().contains(said) && !error.to_string().contains("hunter2"), "{error}");
        }
    }
}
