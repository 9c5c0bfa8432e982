//! Why a certificate was not accepted, in a line that says what to do.

use std::fmt;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::{AlertDescription, CertificateError, OtherError};

use crate::client::dial::TlsPeer;
use crate::error::{Error, ErrorKind};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// As it is called in a sentence.
impl fmt::Display for TlsPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broker => "the broker",
            Self::WebServer(name) => name,
        })
    }
}

/// What to do where the port has no TLS.
pub(super) fn plain_port(peer: TlsPeer) -> &'static str {
    match peer {
        TlsPeer::Broker => "; if this is a plain port, use pulsar://, or http:// for a web port",
        TlsPeer::WebServer(_) => "; if this is a plain port, use http://",
    }
}

pub(super) fn describe(error: &CertificateError, peer: TlsPeer) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            format!("{peer}'s certificate expired {} days ago", days_between(*not_after, *time))
        }
        CertificateError::Expired => format!("{peer}'s certificate has expired"),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "{peer}'s certificate is not valid for another {} days; check this machine's clock",
            days_between(*time, *not_before)
        ),
        CertificateError::NotValidYet => format!("{peer}'s certificate is not valid yet"),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!(
                "{peer}'s certificate names no host: it has no subjectAltName, and its common name (CN) does not count"
            )
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<_> = presented.iter().map(|name| plain_name(name)).collect();
            format!("{peer}'s certificate is for another host: {}", names.join(", "))
        }
        CertificateError::NotValidForName => format!("{peer}'s certificate is for another host"),
        CertificateError::UnknownIssuer => format!(
            "{peer}'s certificate is signed by an authority that is not trusted; name the authority's certificate as `ca_file`"
        ),
        CertificateError::Other(other) if is_authority_as_server(other) => format!(
            "{peer} shows an authority's certificate (CA:TRUE) as its own; name exactly this certificate as `ca_file`, or \
             give {peer} one that is not an authority's"
        ),
        other => format!("{peer}'s certificate is not accepted ({other})"),
    }
}

/// Why a peer that sends this alert does not accept the client's certificate; `None` for alerts about something else.
pub(super) fn describe_refusal(alert: AlertDescription, shows_certificate: bool, peer: TlsPeer) -> Option<String> {
    use AlertDescription as Alert;
    let setting = match peer {
        TlsPeer::Broker => " (its `tlsTrustCertsFilePath`)",
        TlsPeer::WebServer(_) => "",
    };
    let why = match alert {
        Alert::CertificateRequired => NONE_SHOWN.to_owned(),
        Alert::BadCertificate | Alert::CertificateUnknown | Alert::AccessDenied if !shows_certificate => {
            NONE_SHOWN.to_owned()
        }
        Alert::CertificateExpired => {
            format!("it has expired, or is not valid yet: renew it, or check the clocks of this machine and of {peer}")
        }
        Alert::CertificateRevoked => "it is revoked: name another as `client_cert_file`".to_owned(),
        Alert::UnknownCA => format!(
            "it is signed by an authority that {peer} does not trust{setting}; the file of `client_cert_file` needs the \
             certificates of all authorities between it and the one that is trusted"
        ),
        Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate | Alert::AccessDenied => {
            format!(
                "it has expired, is signed by an authority that {peer} does not trust{setting}, or is not made for \
                 clients (extendedKeyUsage clientAuth)"
            )
        }
        _ => return None,
    };
    Some(format!("{why} (alert {alert:?})"))
}

const NONE_SHOWN: &str = "it wants one, and none is shown: name it as `client_cert_file`";

/// The error of a peer that does not accept the client's certificate.
pub(super) fn refused(refusal: &str, peer: TlsPeer, trouble: Option<&str>) -> Error {
    let outdated = outdated(trouble);
    let text = format!("{peer} does not accept the client's certificate over TLS: {refusal}{outdated}");
    Error::local(ErrorKind::Authentication, text)
}

/// That the connection used files that have changed and are not usable.
pub(super) fn outdated(trouble: Option<&str>) -> String {
    trouble.map_or_else(String::new, |why| format!("; in use is what the PEM files held before, because {why}"))
}

/// rustls gives `DnsName("host")`.
fn plain_name(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, inner)| inner.trim_end_matches(')').trim_matches('"'))
}

/// Whether the peer's own certificate is that of an authority. The error behind it is a type of a crate that rustls
/// does not export; its text is what there is.
pub(super) fn is_authority_as_server(error: &OtherError) -> bool {
    format!("{:?}", error.0) == "CaUsedAsEndEntity"
}

fn days_between(from: UnixTime, to: UnixTime) -> u64 {
    to.as_secs().saturating_sub(from.as_secs()).div_ceil(DAY.as_secs())
}
