//! What an application sets, and how `client.conf` has it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::discovery::OPENID_CONFIGURATION;
use super::key_file::KeySource;
use crate::client::dial::ClientCertFiles;
use crate::error::{Error, ErrorKind, Result};

/// What is shown to the token endpoint.
#[derive(Debug, Clone)]
pub(super) enum Client {
    /// Id and secret of a key file (`client_secret_post`).
    Key(KeySource),
    /// An id; the certificate of the connection is the secret (`tls_client_auth`, RFC 8705).
    Certificate(String),
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) issuer_url: String,
    pub(super) client: Client,
    pub(super) audience: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) well_known_path: String,
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "a build without TLS refuses it by name"))]
    pub(super) ca_file: Option<PathBuf>,
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "a build without TLS refuses it by name"))]
    pub(super) client_cert: Option<ClientCertFiles>,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(super) early_refresh: f64,
}

impl Settings {
    pub(super) fn new(issuer_url: String, client: Client) -> Self {
        Self {
            issuer_url,
            client,
            audience: None,
            scope: None,
            well_known_path: OPENID_CONFIGURATION.to_owned(),
            ca_file: None,
            client_cert: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            early_refresh: 0.9,
        }
    }

    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a value out of its range, [`ErrorKind::Unsupported`] for what this build lacks.
    pub(super) fn check(&self) -> Result<()> {
        if !(self.early_refresh > 0.0 && self.early_refresh <= 1.0) {
            return Err(invalid("early_refresh has to be above 0 and at most 1"));
        }
        for (name, value) in [("connect_timeout", self.connect_timeout), ("read_timeout", self.read_timeout)] {
            if value.is_zero() {
                return Err(invalid(format!("{name} of OAuth2 must be above zero")));
            }
        }
        #[cfg(not(feature = "tls"))]
        for (name, is_set) in [("ca_file", self.ca_file.is_some()), ("client_cert_file", self.client_cert.is_some())] {
            if is_set {
                let what = format!("{name} of OAuth2 needs the crate feature `tls`");
                return Err(Error::local(ErrorKind::Unsupported, what));
            }
        }
        Ok(())
    }

    /// The settings of a JSON object, as the Java client names them.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: not JSON, a missing or an unusable value. Values are not shown.
    pub(super) fn from_params(params: &str) -> Result<Self> {
        let Ok(Value::Object(object)) = serde_json::from_str(params) else {
            return Err(invalid("the parameters of OAuth2 are not a JSON object"));
        };
        let params = Params(object);
        if params.text(&["type"]).is_some_and(|kind| kind != "client_credentials") {
            return Err(invalid("`type` of OAuth2 is not client_credentials, which is the only one"));
        }
        let issuer_url = params.required(&["issuerUrl", "issuer_url"])?;
        let client_cert = params.certificate()?;
        let client = match params.text(&["tokenEndpointAuthMethod"]).as_deref() {
            None | Some("client_secret_post") => {
                Client::Key(KeySource::new(&params.required(&["privateKey", "private_key"])?))
            }
            Some("tls_client_auth") if client_cert.is_some() => {
                Client::Certificate(params.text(&["clientId"]).unwrap_or_else(|| DEFAULT_CLIENT_ID.to_owned()))
            }
            Some("tls_client_auth") => {
                return Err(invalid("tls_client_auth of OAuth2 needs `tlsCertFile` and `tlsKeyFile`"));
            }
            Some(_) => {
                return Err(invalid(
                    "`tokenEndpointAuthMethod` of OAuth2 is neither client_secret_post nor tls_client_auth",
                ));
            }
        };
        let mut settings = Self::new(issuer_url, client);
        settings.audience = params.text(&["audience"]);
        settings.scope = params.text(&["scope"]);
        settings.ca_file = params.text(&["trustCertsFilePath"]).map(PathBuf::from);
        settings.client_cert = client_cert;
        settings.connect_timeout = params.duration("connectTimeout")?.unwrap_or(settings.connect_timeout);
        settings.read_timeout = params.duration("readTimeout")?.unwrap_or(settings.read_timeout);
        settings.well_known_path = params.text(&["wellKnownMetadataPath"]).unwrap_or(settings.well_known_path);
        settings.early_refresh = params.early_refresh()?.unwrap_or(settings.early_refresh);
        settings.check()?;
        Ok(settings)
    }
}

/// The client's id where a certificate is the secret and no id was set.
pub(super) const DEFAULT_CLIENT_ID: &str = "pulsar-client";

struct Params(Map<String, Value>);

impl Params {
    /// The first of these names that has a value; numbers as text. A blank one counts as none.
    fn text(&self, names: &[&str]) -> Option<String> {
        let value = names.iter().find_map(|name| self.0.get(*name))?;
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        Some(text).filter(|text| !text.is_empty())
    }

    fn required(&self, names: &[&str]) -> Result<String> {
        self.text(names).ok_or_else(|| invalid(format!("the parameters of OAuth2 lack `{}`", names[0])))
    }

    fn certificate(&self) -> Result<Option<ClientCertFiles>> {
        match (self.text(&["tlsCertFile"]), self.text(&["tlsKeyFile"])) {
            (Some(certificate), Some(key)) => {
                Ok(Some(ClientCertFiles { certificate: certificate.into(), key: key.into() }))
            }
            (None, None) => Ok(None),
            _ => Err(invalid("`tlsCertFile` and `tlsKeyFile` of OAuth2 belong together, and one is missing")),
        }
    }

    fn duration(&self, name: &str) -> Result<Option<Duration>> {
        let Some(text) = self.text(&[name]) else { return Ok(None) };
        let duration = iso_duration(&text);
        duration.map(Some).ok_or_else(|| invalid(format!("`{name}` of OAuth2 is not a duration like PT10S")))
    }

    /// A number with a point is a part of the lifetime, one without a percentage.
    fn early_refresh(&self) -> Result<Option<f64>> {
        let name = "earlyTokenRefreshPercent";
        let Some(text) = self.text(&[name]) else { return Ok(None) };
        let part: Option<f64> = match text.contains('.') {
            true => text.parse().ok(),
            false => text.parse::<u32>().ok().map(|percent| f64::from(percent) / 100.0),
        };
        let part = part.filter(|part| *part > 0.0);
        part.map(|part| Some(part.min(1.0))).ok_or_else(|| invalid(format!("`{name}` of OAuth2 is not a part above 0")))
    }
}

fn invalid(what: impl Into<String>) -> Error {
    Error::local(ErrorKind::InvalidArgument, what)
}

/// `PT1M30.5S` and the like, as `java.time.Duration` reads them; none below zero.
fn iso_duration(text: &str) -> Option<Duration> {
    let upper = text.to_ascii_uppercase();
    let rest = upper.strip_prefix('P')?;
    let (days, time) = rest.split_once('T').map_or((rest, None), |(days, time)| (days, Some(time)));
    let mut seconds = units(days, &[("D", 86_400.0)])?;
    if let Some(time) = time {
        seconds += units(time, &[("H", 3600.0), ("M", 60.0), ("S", 1.0)]).filter(|_| !time.is_empty())?;
    }
    if days.is_empty() && time.is_none() {
        return None;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// The sum of numbers with these units behind them, in this order, each at most once.
fn units(text: &str, known: &[(&str, f64)]) -> Option<f64> {
    let (mut rest, mut sum) = (text, 0.0);
    for (unit, seconds) in known {
        if let Some((number, behind)) = rest.split_once(unit) {
            let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            sum += number.parse::<f64>().ok().filter(|_| is_number(number))? * seconds;
            rest = behind;
        }
    }
    rest.is_empty().then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_the_java_client() {
        let settings = Settings::from_params(
            r#"{"type":"client_credentials","issuerUrl":"https://issuer.example.com","privateKey":"file:///key.json",
                "audience":"urn:pulsar","scope":"a b","connectTimeout":"PT5S","readTimeout":"PT1M30.5S",
                "trustCertsFilePath":"/ca.pem","tlsCertFile":"/c.pem","tlsKeyFile":"/k.pem","unknown":[],
                "wellKnownMetadataPath":"/.well-known/oauth-authorization-server","earlyTokenRefreshPercent":"80"}"#,
        );
        let settings = settings.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(settings.issuer_url, "https://issuer.example.com");
        assert!(matches!(&settings.client, Client::Key(KeySource::File(path)) if path.ends_with("key.json")));
        assert_eq!((settings.audience.as_deref(), settings.scope.as_deref()), (Some("urn:pulsar"), Some("a b")));
        assert_eq!(settings.connect_timeout, Duration::from_secs(5));
        assert_eq!(settings.read_timeout, Duration::from_millis(90_500));
        assert_eq!((settings.early_refresh, settings.ca_file), (0.8, Some("/ca.pem".into())));
        assert_eq!(settings.client_cert.map(|files| files.key), Some("/k.pem".into()));
        assert_eq!(settings.well_known_path, "/.well-known/oauth-authorization-server");
    }

    #[test]
    fn those_of_python_and_of_a_certificate_are_read_too() {
        let python = Settings::from_params(r#"{"issuer_url":"https://a","private_key":"/key.json","audience":" "}"#);
        let python = python.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((python.audience, python.early_refresh), (None, 0.9));
        let certificate = r#"{"issuerUrl":"https://a","tokenEndpointAuthMethod":"tls_client_auth",
                              "tlsCertFile":"/c.pem","tlsKeyFile":"/k.pem"}"#;
        let certificate = Settings::from_params(certificate).unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(&certificate.client, Client::Certificate(id) if id == "pulsar-client"));
    }

    #[test]
    fn unusable_parameters_are_named_without_their_values() {
        let with = |more: &str| format!(r#"{{"issuerUrl":"https://a","privateKey":"data:hunter2"{more}}}"#);
        for (params, named) in [
            ("hunter2".to_owned(), "not a JSON object"),
            (r#"{"privateKey":"hunter2"}"#.to_owned(), "`issuerUrl`"),
            (r#"{"issuerUrl":"hunter2"}"#.to_owned(), "`privateKey`"),
            (with(r#","type":"hunter2""#), "`type`"),
            (with(r#","tlsCertFile":"hunter2""#), "`tlsKeyFile`"),
            (with(r#","tokenEndpointAuthMethod":"hunter2""#), "`tokenEndpointAuthMethod`"),
            (with(r#","tokenEndpointAuthMethod":"tls_client_auth""#), "`tlsCertFile`"),
            (with(r#","readTimeout":"hunter2""#), "`readTimeout`"),
            (with(r#","connectTimeout":"PT0S""#), "connect_timeout"),
            (with(r#","earlyTokenRefreshPercent":"hunter2""#), "`earlyTokenRefreshPercent`"),
            (with(r#","earlyTokenRefreshPercent":0"#), "`earlyTokenRefreshPercent`"),
        ] {
            let error = Settings::from_params(&params).err().unwrap_or_else(|| panic!("{params}"));
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(named) && !error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn durations_are_read_as_java_writes_them() {
        for (text, seconds) in
            [("PT10S", 10.0), ("pt1m", 60.0), ("PT1H1M1S", 3661.0), ("P1D", 86_400.0), ("P1DT0.5S", 86_400.5)]
        {
            assert_eq!(iso_duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for bad in ["", "P", "PT", "10", "10S", "PT-1S", "PTS", "PT1S1M", "PT1", "P1DT", "PT1e9S", "PTinfS", "PT..S"] {
            assert_eq!(iso_duration(bad), None, "{bad}");
        }
    }
}
