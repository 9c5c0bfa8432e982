//! What several test binaries need beside the library. A binary includes this folder once, as its module `common`.
#![allow(dead_code, reason = "each binary uses a part of it")]

pub(crate) mod admin_http;
pub(crate) mod arguments;
pub(crate) mod cluster_admin;
#[cfg(feature = "oauth2")]
pub(crate) mod expiries;
pub(crate) mod extremes;
pub(crate) mod java;
pub(crate) mod paused;
pub(crate) mod random;
pub(crate) mod runner;
pub(crate) mod sample;
pub(crate) mod sni_proxy;
pub(crate) mod socks5;
#[cfg(feature = "tap")]
pub(crate) mod tapped;
pub(crate) mod temp_file;
#[cfg(feature = "tracing")]
pub(crate) mod trace_lines;
#[cfg(feature = "tracing")]
pub(crate) mod trace_secrets;
pub(crate) mod web;
pub(crate) mod within;
pub(crate) mod wrong_ports;
