//! Where metrics and alerts come from, and how to sign in there.
//!
//! Secrets never stand here: a field that ends in `Key` names a key of one Secret, [`PROVIDER_SECRET`].

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the Secret whose keys a [`ProviderConfig`] refers to: in the rollout's namespace for a provider
/// that a rollout names (else its author could send the installation's token to any address), in the
/// controller's own namespace for the providers of the installation.
pub const PROVIDER_SECRET: &str = "sluice-providers";

/// A Prometheus (or anything with its query API) or an Alertmanager.
///
/// Fields that end in `Key` name keys of the Secret `sluice-providers` in the namespace of the rollout; for
/// the providers of the installation, in the namespace of the controller. A changed Secret takes effect
/// without a restart.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderConfig {
    /// Base address with scheme http or https, without `/api/...`, such as
    /// `http://prometheus-operated.monitoring.svc:9090` or `https://mimir.example.com/prometheus`.
    #[schemars(length(min = 1, max = 500), regex(pattern = r"^https?://"))]
    pub url: String,
    /// Addresses of the other peers of a highly available Alertmanager, at most 8. An alert that any peer
    /// knows counts. Not for Prometheus.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 500), regex(pattern = r"^https?://")))]
    pub peers: Vec<String>,
    /// Key whose value is a bundle of PEM certificates. Only servers signed by one of them are trusted then.
    /// Default: the public CAs of the controller's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_key: Option<String>,
    /// Key whose value is sent as a bearer token. Not together with basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub bearer_token_key: Option<String>,
    /// Key whose value is the user name of basic authentication; needs basicPasswordKey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub basic_user_key: Option<String>,
    /// Key whose value is the password of basic authentication; needs basicUserKey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub basic_password_key: Option<String>,
    /// Headers sent with every request, such as `X-Scope-OrgID`, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<Header>,
}

/// A header of every request to a provider. Exactly one of `value` and `valueKey` is set.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Name of the header.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub name: String,
    /// Value, in the clear. For secrets use valueKey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub value: Option<String>,
    /// Key of the Secret whose value is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub value_key: Option<String>,
}

// Written by hand: a header value may be a secret that somebody put in the clear, and so may the user part
// of an address.
impl fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderConfig")
            .field("url", &without_userinfo(&self.url))
            .field("peers", &self.peers.iter().map(|p| without_userinfo(p)).collect::<Vec<_>>())
            .field("ca_key", &self.ca_key)
            .field("bearer_token_key", &self.bearer_token_key)
            .field("basic_user_key", &self.basic_user_key)
            .field("basic_password_key", &self.basic_password_key)
            .field("headers", &self.headers)
            .finish()
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("name", &self.name)
            .field("value", &self.value.as_ref().map(|_| "***"))
            .field("value_key", &self.value_key)
            .finish()
    }
}

fn without_userinfo(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.rfind('@').map_or_else(|| url.into(), |at| format!("***{}", &url[at..]));
    };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => url.into(),
    }
}

/// What is wrong with a [`ProviderConfig`] in itself, before any Secret is read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderConfigError {
    /// The address can't be used.
    #[error("{field} {value:?}: {problem}; write an address such as http://prometheus.monitoring.svc:9090")]
    Address {
        /// Field of the configuration.
        field: String,
        /// The address, without its user part.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two ways to sign in, or half of one.
    #[error("{0}")]
    SignIn(&'static str),
    /// A header is set twice, or neither by value nor by key.
    #[error("headers[{index}] ({name}): {problem}")]
    Header {
        /// Position in the list, from 0.
        index: usize,
        /// Name of the header.
        name: String,
        /// What is wrong, and what to write instead.
        problem: &'static str,
    },
}

impl ProviderConfig {
    /// Whether a key of the Secret is named.
    pub fn refers_to_secret(&self) -> bool {
        self.ca_key.is_some()
            || self.bearer_token_key.is_some()
            || self.basic_user_key.is_some()
            || self.headers.iter().any(|header| header.value_key.is_some())
    }

    /// Checks the fields against each other and the addresses for what must never be fetched.
    pub fn validate(&self) -> Result<(), ProviderConfigError> {
        check_address("url", &self.url)?;
        for (index, peer) in self.peers.iter().enumerate() {
            check_address(&format!("peers[{index}]"), peer)?;
        }
        match (&self.bearer_token_key, &self.basic_user_key, &self.basic_password_key) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
                return Err(ProviderConfigError::SignIn(
                    "bearerTokenKey and basicUserKey/basicPasswordKey are both set: keep one way to sign in",
                ));
            }
            (None, Some(_), None) => {
                return Err(ProviderConfigError::SignIn(
                    "basicUserKey is set without basicPasswordKey: set both",
                ));
            }
            (None, None, Some(_)) => {
                return Err(ProviderConfigError::SignIn(
                    "basicPasswordKey is set without basicUserKey: set both",
                ));
            }
            (None, Some(_), Some(_)) | (_, None, None) => {}
        }
        let signs_in = self.bearer_token_key.is_some() || self.basic_user_key.is_some();
        for (index, header) in self.headers.iter().enumerate() {
            let problem = if header.value.is_some() == header.value_key.is_some() {
                "set exactly one of value and valueKey"
            } else if header.name.eq_ignore_ascii_case("host")
                || header.name.eq_ignore_ascii_case("content-length")
                || header.name.eq_ignore_ascii_case("transfer-encoding")
            {
                "this header is made by the HTTP client: remove it"
            } else if signs_in && header.name.eq_ignore_ascii_case("authorization") {
                "Authorization is already made from bearerTokenKey or basicUserKey: keep one of them"
            } else {
                continue;
            };
            return Err(ProviderConfigError::Header { index, name: header.name.clone(), problem });
        }
        Ok(())
    }
}

fn check_address(field: &str, url: &str) -> Result<(), ProviderConfigError> {
    let problem = |problem| {
        Err(ProviderConfigError::Address { field: field.into(), value: without_userinfo(url), problem })
    };
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return problem("the scheme must be http or https");
    };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    if authority.contains('@') {
        return problem(
            "user and password don't belong into an address: use basicUserKey and basicPasswordKey",
        );
    }
    if authority.is_empty() || authority.starts_with(':') {
        return problem("the host is missing");
    }
    if rest.contains(['?', '#']) {
        return problem("a query or fragment can't be kept: give the base address only");
    }
    // Cloud metadata services answer on link-local addresses and hand out credentials.
    let host = authority.to_ascii_lowercase();
    if host.starts_with("169.254.") || host.starts_with("[fe80:") || host.starts_with("[fd00:ec2::254]") {
        return problem("link-local and metadata addresses are refused");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> ProviderConfig {
        ProviderConfig { url: url.into(), ..Default::default() }
    }

    #[test]
    fn plain_addresses_pass() {
        for url in ["http://prometheus:9090", "https://mimir.example.com/prometheus", "http://[::1]:9090/"] {
            assert_eq!(at(url).validate(), Ok(()), "{url}");
        }
    }

    #[test]
    fn unusable_addresses_name_the_field_and_the_problem() {
        for (url, says) in [
            ("prometheus:9090", "url \"prometheus:9090\": the scheme must be http or https"),
            ("me:secret@prometheus:9090", "url \"***@prometheus:9090\""),
            ("ftp://prometheus", "scheme must be http or https"),
            ("http://", "host is missing"),
            ("http://:9090", "host is missing"),
            ("http://me:secret@prometheus:9090", "basicUserKey"),
            ("http://prometheus:9090?x=1", "base address only"),
            ("http://169.254.169.254/latest", "link-local"),
            ("http://[fe80::1]/", "link-local"),
        ] {
            let error = at(url).validate().map_err(|e| e.to_string()).expect_err(url);
            assert!(error.starts_with("url ") && error.contains(says), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let mut config = at("http://a");
        config.peers = vec!["http://b".into(), "c".into()];
        let error = config.validate().expect_err("second peer has no scheme").to_string();
        assert!(error.starts_with("peers[1] "), "{error}");
    }

    #[test]
    fn sign_in_is_one_whole_way() {
        let key = || Some("k".to_string());
        for (bearer, user, password, valid) in [
            (None, None, None, true),
            (key(), None, None, true),
            (None, key(), key(), true),
            (key(), key(), None, false),
            (key(), None, key(), false),
            (key(), key(), key(), false),
            (None, key(), None, false),
            (None, None, key(), false),
        ] {
            let config = ProviderConfig {
                bearer_token_key: bearer,
                basic_user_key: user,
                basic_password_key: password,
                ..at("http://a")
            };
            assert_eq!(config.validate().is_ok(), valid, "{config:?}");
        }
    }

    #[test]
    fn headers_have_one_source() {
        let header = |name: &str, value: Option<&str>, key: Option<&str>| Header {
            name: name.into(),
            value: value.map(Into::into),
            value_key: key.map(Into::into),
        };
        let with = |header| ProviderConfig { headers: vec![header], ..at("http://a") };
        assert!(with(header("X-Scope-OrgID", Some("team"), None)).validate().is_ok());
        assert!(with(header("X-Scope-OrgID", None, Some("org"))).validate().is_ok());
        for bad in
            [header("A", None, None), header("A", Some("v"), Some("k")), header("Host", Some("v"), None)]
        {
            assert!(with(bad).validate().is_err());
        }
        let mut twice = with(header("authorization", Some("v"), None));
        assert!(twice.validate().is_ok());
        twice.bearer_token_key = Some("k".into());
        assert!(twice.validate().is_err());
    }

    #[test]
    fn debug_shows_no_value() {
        let config = ProviderConfig {
            headers: vec![Header {
                name: "Authorization".into(),
                value: Some("hunter2".into()),
                value_key: None,
            }],
            ..at("http://me:hunter2@prometheus:9090/x")
        };
        let text = format!("{config:?}");
        assert!(!text.contains("hunter2") && text.contains("***@prometheus:9090/x"), "{text}");
    }

    #[test]
    fn wire_names_are_camel_case() -> Result<(), serde_json::Error> {
        let config: ProviderConfig = serde_json::from_str(
            r#"{"url":"http://a","caKey":"c","bearerTokenKey":"b","headers":[{"name":"X","valueKey":"x"}]}"#,
        )?;
        assert_eq!(config.ca_key.as_deref(), Some("c"));
        assert_eq!(config.headers[0].value_key.as_deref(), Some("x"));
        Ok(())
    }
}
