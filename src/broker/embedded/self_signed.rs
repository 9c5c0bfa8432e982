//! A certificate made on the spot, and the authority that signs it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, Error, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Characters in a line of PEM.
const PEM_LINE: usize = 64;

/// What was made. The authority's key is gone.
pub(super) struct Made {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) ca_pem: String,
}

/// For `localhost`, the loopback addresses, `listen`, and one further name or address.
pub(super) fn make(listen: IpAddr, also: Option<&str>) -> Result<Made, Error> {
    let authority_key = KeyPair::generate()?;
    // A name of its own: a client that trusts another one made here is told that it does not know this one.
    let number: String =
        authority_key.public_key_raw().iter().rev().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut authority = params(Vec::new(), &format!("authority {number}"))?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = pem(authority.self_signed(&authority_key)?.der());

    let mut hosts = vec!["localhost".to_owned()];
    let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), listen];
    hosts.extend(addresses.iter().filter(|address| !address.is_unspecified()).map(IpAddr::to_string));
    hosts.extend(also.map(str::to_owned));
    hosts.sort();
    hosts.dedup();
    let key = KeyPair::generate()?;
    let mut broker = params(hosts, "broker")?;
    broker.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = broker.signed_by(&key, &Issuer::new(authority, authority_key))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Made { chain: vec![certificate.der().clone()], key, ca_pem })
}

fn params(hosts: Vec<String>, what: &str) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, format!("pulsar-native embedded {what}"));
    Ok(params)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let text = STANDARD.encode(certificate);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(PEM_LINE.min(rest.len()));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + "-----END CERTIFICATE-----\n"
}
