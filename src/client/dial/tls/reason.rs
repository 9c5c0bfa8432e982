//! Why a certificate was not accepted, in a line that says what to do.

use std::time::Duration;

use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::{CertificateError, OtherError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn describe(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            format!("the broker's certificate expired {} days ago", days_between(*not_after, *time))
        }
        CertificateError::Expired => "the broker's certificate has expired".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the broker's certificate is not valid for another {} days; check this machine's clock",
            days_between(*time, *not_before)
        ),
        CertificateError::NotValidYet => "the broker's certificate is not valid yet".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "the broker's certificate names no host: it has no subjectAltName, and its common name (CN) does not count"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<_> = presented.iter().map(|name| plain_name(name)).collect();
            format!("the broker's certificate is for another host: {}", names.join(", "))
        }
        CertificateError::NotValidForName => "the broker's certificate is for another host".to_owned(),
        CertificateError::UnknownIssuer => "the broker's certificate is signed by an authority that is not trusted; \
                                            name the authority's certificate as `ca_file`"
            .to_owned(),
        CertificateError::Other(other) if is_authority_as_server(other) => {
            "the broker shows an authority's certificate (CA:TRUE) as its own; name exactly this certificate as \
             `ca_file`, or give the broker one that is not an authority's"
                .to_owned()
        }
        other => format!("the broker's certificate is not accepted ({other})"),
    }
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
