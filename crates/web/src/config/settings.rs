//! The settings in a web configuration, in the format of Prometheus' exporter-toolkit:
//! <https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>

use hyper::header::{HeaderName, HeaderValue};

use super::document::{self, Node};
use super::error::{ConfigFault, Fault};
use super::section::{Section, choose};
use super::tls::TlsSettings;
use super::users::Users;

/// A web configuration as written. The files that it names have not been read.
#[derive(Debug)]
pub(super) struct WebSettings {
    pub(super) tls: Option<TlsSettings>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) users: Users,
}

impl WebSettings {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let known = ["tls_server_config", "http_server_config", "basic_auth_users"];
        let mut top = Section::new(document::parse(text)?, "", &known)?;
        Ok(Self {
            tls: top.take("tls_server_config").map(TlsSettings::parse).transpose()?,
            headers: top.take("http_server_config").map(headers).transpose()?.unwrap_or_default(),
            users: top.take("basic_auth_users").map(Users::parse).transpose()?.unwrap_or_default(),
        })
    }
}

/// The headers that exporter-toolkit allows, which are about security.
const HEADERS: [(&str, HeaderName); 5] = [
    ("Content-Security-Policy", hyper::header::CONTENT_SECURITY_POLICY),
    ("Strict-Transport-Security", hyper::header::STRICT_TRANSPORT_SECURITY),
    ("X-Content-Type-Options", hyper::header::X_CONTENT_TYPE_OPTIONS),
    ("X-Frame-Options", hyper::header::X_FRAME_OPTIONS),
    ("X-XSS-Protection", hyper::header::X_XSS_PROTECTION),
];

/// The headers in `http_server_config`. Its `http2` has no effect: HTTP/2 is not served, and clients fall back to HTTP/1.1.
fn headers(node: Node) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
    let mut section = Section::new(node, "http_server_config", &["http2", "headers"])?;
    section.take("http2").map(|node| node.boolean("http2")).transpose()?;
    let Some(node) = section.take("headers") else { return Ok(Vec::new()) };
    let mut section = Section::new(node, "headers", &HEADERS.map(|(key, _)| key))?;
    let mut headers = Vec::new();
    for (key, name) in HEADERS {
        let Some(node) = section.take(key) else { continue };
        let line = node.line;
        let text = node.text(key)?;
        let invalid = |allowed: &str| {
            ConfigFault::Value { key, value: text.clone(), allowed: allowed.to_owned() }.at(line)
        };
        if text.is_empty() {
            continue;
        }
        // The only values that exporter-toolkit accepts.
        match key {
            "X-Frame-Options" => choose(key, &text, &[("deny", ()), ("sameorigin", ())]),
            "X-Content-Type-Options" => choose(key, &text, &[("nosniff", ())]),
            _ => Ok(()),
        }
        .map_err(|fault| fault.at(line))?;
        let value = HeaderValue::from_str(&text).map_err(|_| invalid("a text without control characters"))?;
        headers.push((name, value));
    }
    Ok(headers)
}
