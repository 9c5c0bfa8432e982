//! Where an identity provider has its discovery document.

use hyper::Uri;

use crate::client::http::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::supervisor::service_url::shown;

/// Where a discovery document lies below its issuer (OpenID Connect Discovery 1.0, section 4).
pub(super) const OPENID_CONFIGURATION: &str = "/.well-known/openid-configuration";

/// Where the discovery document of this issuer is. `well_known` is appended to the issuer's path if it is that of
/// OpenID, and otherwise put in front of it (RFC 8414, section 3.1).
///
/// # Errors
/// [`ErrorKind::InvalidArgument`]: the issuer is not usable, or `well_known` does not start with `/.well-known/`.
pub(super) fn discovery(issuer: &str, well_known: &str) -> Result<Endpoint> {
    let unusable = |what: &str| {
        let text = format!("the issuer URL `{}` is not usable: {what}", shown(issuer));
        Error::local(ErrorKind::InvalidArgument, text)
    };
    let Endpoint { origin, path } = Endpoint::parse(issuer).map_err(unusable)?;
    if path.contains('?') {
        return Err(unusable("it has no query"));
    }
    if !well_known.starts_with("/.well-known/") || well_known.parse::<Uri>().is_err() {
        let text = format!("the well-known path `{}` has to start with /.well-known/", shown(well_known));
        return Err(Error::local(ErrorKind::InvalidArgument, text));
    }
    let path = path.trim_end_matches('/');
    let path = match well_known {
        OPENID_CONFIGURATION => format!("{path}{well_known}"),
        _ => format!("{well_known}{path}"),
    };
    Ok(Endpoint { origin, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discovery_document_lies_below_the_issuer() {
        let discovery = |issuer, well_known| super::discovery(issuer, well_known).expect(issuer).to_string();
        assert_eq!(discovery("http://a", OPENID_CONFIGURATION), "http://a:80/.well-known/openid-configuration");
        assert_eq!(discovery("http://a/", OPENID_CONFIGURATION), "http://a:80/.well-known/openid-configuration");
        assert_eq!(discovery("http://a/b/", OPENID_CONFIGURATION), "http://a:80/b/.well-known/openid-configuration");
        let standard = "/.well-known/oauth-authorization-server";
        assert_eq!(discovery("http://a", standard), "http://a:80/.well-known/oauth-authorization-server");
        assert_eq!(discovery("http://a/b", standard), "http://a:80/.well-known/oauth-authorization-server/b");
    }

    #[test]
    fn an_unusable_issuer_is_named_without_its_secrets() {
        for bad in ["login.example.com", "https://me:hunter2@login.example.com", "https://a/?token=hunter2"] {
            let error = discovery(bad, OPENID_CONFIGURATION).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let text = error.to_string();
            assert!(text.contains("issuer URL") && !text.contains("hunter2"), "{text}");
        }
        for bad in ["", "/custom", "well-known/x", "/.well-known/a b"] {
            let error = discovery("https://a", bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
    }
}
