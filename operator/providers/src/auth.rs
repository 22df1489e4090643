//! Signing in to a provider: keys of the Secret to a ready HTTP client.
//!
//! The client follows no redirects and no proxy of the environment, since both would carry a token to
//! another host. Values of the Secret appear in no log and no `Debug` output.

use std::{collections::BTreeMap, fmt, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use reqwest::{
    Certificate, Client,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};
use sluice_core::api::{PROVIDER_SECRET, ProviderConfig};

use super::{ProviderError, innermost};

/// Limit on opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit on a whole request, body included.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The data of the Secret of one namespace.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData {
    values: BTreeMap<String, Vec<u8>>,
}

impl From<&Secret> for SecretData {
    fn from(secret: &Secret) -> Self {
        let data = secret.data.iter().flatten();
        Self { values: data.map(|(key, value)| (key.clone(), value.0.clone())).collect() }
    }
}

impl From<Option<&Secret>> for SecretData {
    /// A Secret that does not exist has no keys.
    fn from(secret: Option<&Secret>) -> Self {
        secret.map(Self::from).unwrap_or_default()
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl SecretData {
    fn bytes(&self, field: &str, key: &str, namespace: &str) -> Result<&[u8], ProviderError> {
        match self.values.get(key) {
            Some(value) if !value.trim_ascii().is_empty() => Ok(value),
            found => Err(ProviderError::Secret {
                field: field.into(),
                key: key.into(),
                secret: format!("{namespace}/{PROVIDER_SECRET}"),
                problem: if found.is_some() { "the value is empty" } else { "there is no such key" },
            }),
        }
    }

    /// The value without the line break that `echo` leaves at its end.
    fn text(&self, field: &str, key: &str, namespace: &str) -> Result<&str, ProviderError> {
        let bytes = self.bytes(field, key, namespace)?.trim_ascii_end();
        std::str::from_utf8(bytes).map_err(|_| ProviderError::Secret {
            field: field.into(),
            key: key.into(),
            secret: format!("{namespace}/{PROVIDER_SECRET}"),
            problem: "the value is not text",
        })
    }
}

/// What a client sends and trusts. Equal credentials make equal clients: a changed Secret is found by comparison.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    ca: Option<Vec<u8>>,
    headers: HeaderMap,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&HeaderName> = self.headers.keys().collect();
        f.debug_struct("Credentials").field("ca", &self.ca.is_some()).field("headers", &names).finish()
    }
}

impl Credentials {
    /// Looks up the keys that `config` names. `namespace` is where the Secret is, for messages.
    pub fn resolve(
        config: &ProviderConfig,
        namespace: &str,
        secret: &SecretData,
    ) -> Result<Self, ProviderError> {
        config.validate().map_err(|error| ProviderError::Config(error.to_string()))?;
        let mut headers = HeaderMap::new();
        for header in &config.headers {
            let field = format!("headers[{}]", header.name);
            let value = match (&header.value, &header.value_key) {
                (Some(value), None) => value,
                (_, Some(key)) => secret.text(&format!("{field}.valueKey"), key, namespace)?,
                (None, None) => continue, // refused by validate
            };
            let name: HeaderName = header.name.parse().map_err(|_| ProviderError::Header {
                field: field.clone(),
                problem: "the name is not a header name",
            })?;
            headers.append(name, sensitive(&field, value)?);
        }
        if let Some(key) = &config.bearer_token_key {
            let token = secret.text("bearerTokenKey", key, namespace)?;
            headers.insert(AUTHORIZATION, sensitive("bearerTokenKey", &format!("Bearer {token}"))?);
        }
        if let (Some(user), Some(password)) = (&config.basic_user_key, &config.basic_password_key) {
            let user = secret.text("basicUserKey", user, namespace)?;
            let password = secret.text("basicPasswordKey", password, namespace)?;
            headers.insert(
                AUTHORIZATION,
                sensitive("basicUserKey", &format!("Basic {}", base64(user, password)))?,
            );
        }
        let ca = match &config.ca_key {
            Some(key) => Some(secret.bytes("caKey", key, namespace)?.to_vec()),
            None => None,
        };
        Ok(Self { ca, headers })
    }

    /// A client for the addresses of `config`.
    pub fn client(&self, config: &ProviderConfig, agent: &str) -> Result<Client, ProviderError> {
        let https = std::iter::once(&config.url).chain(&config.peers).any(|url| url.starts_with("https://"));
        let mut builder = Client::builder()
            .user_agent(agent)
            .default_headers(self.headers.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .redirect(Policy::none())
            .no_proxy();
        if let Some(pem) = &self.ca {
            let certificates = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if certificates.is_empty() {
                return Err(ProviderError::Certificates(
                    "caKey: the value holds no PEM certificate; it must begin with -----BEGIN CERTIFICATE-----".into(),
                ));
            }
            builder = builder.tls_certs_only(certificates);
        } else if !https {
            // TLS is never used. The certificates of the system are not read then: an image may have none.
            builder = builder.tls_certs_only([]);
        }
        builder.build().map_err(|error| {
            let advice = if self.ca.is_none() && https { "; name the server's CA with caKey" } else { "" };
            ProviderError::Certificates(format!(
                "{}: TLS can't be set up: {}{advice}",
                config.url,
                innermost(&error)
            ))
        })
    }
}

/// A header value that HTTP libraries don't print.
fn sensitive(field: &str, value: &str) -> Result<HeaderValue, ProviderError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| ProviderError::Header {
        field: field.into(),
        problem: "the value has characters that a header can't carry, such as a line break",
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn base64(user: &str, password: &str) -> String {
    // Kubernetes' own type for Secret data is written as base64.
    let encoded = serde_json::to_value(ByteString(format!("{user}:{password}").into_bytes()));
    encoded.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_core::api::Header;

    fn secret(pairs: &[(&str, &[u8])]) -> SecretData {
        SecretData { values: pairs.iter().map(|(k, v)| ((*k).to_string(), v.to_vec())).collect() }
    }

    fn config() -> ProviderConfig {
        ProviderConfig { url: "http://prometheus:9090".into(), ..Default::default() }
    }

    #[test]
    fn each_way_to_sign_in_becomes_one_header() {
        let secret =
            secret(&[("token", b"abc\n"), ("user", b"aladdin"), ("pw", b"opensesame"), ("org", b"team-a")]);
        let resolve =
            |config: ProviderConfig| Credentials::resolve(&config, "ns", &secret).expect("resolves").headers;
        let bearer = resolve(ProviderConfig { bearer_token_key: Some("token".into()), ..config() });
        assert_eq!(bearer[AUTHORIZATION], "Bearer abc");
        assert!(bearer[AUTHORIZATION].is_sensitive());
        let basic = resolve(ProviderConfig {
            basic_user_key: Some("user".into()),
            basic_password_key: Some("pw".into()),
            ..config()
        });
        assert_eq!(basic[AUTHORIZATION], "Basic YWxhZGRpbjpvcGVuc2VzYW1l"); // the example of RFC 7617
        let header = Header { name: "X-Scope-OrgID".into(), value: None, value_key: Some("org".into()) };
        let headers = resolve(ProviderConfig { headers: vec![header], ..config() });
        assert_eq!(headers["x-scope-orgid"], "team-a");
    }

    #[test]
    fn a_missing_key_is_named_with_its_secret() {
        let with_token = ProviderConfig { bearer_token_key: Some("token".into()), ..config() };
        for (data, says) in [
            (secret(&[]), "there is no such key"),
            (secret(&[("token", b" \n")]), "the value is empty"),
            (secret(&[("token", b"\xff\xfe")]), "the value is not text"),
            (secret(&[("token", b"a\nb")]), "line break"),
        ] {
            let error = Credentials::resolve(&with_token, "shop", &data).expect_err("unusable").to_string();
            assert!(error.contains("bearerTokenKey") && error.contains(says), "{error}");
        }
        let error =
            Credentials::resolve(&with_token, "shop", &secret(&[])).expect_err("unusable").to_string();
        assert!(error.contains("shop/sluice-providers") && error.contains("\"token\""), "{error}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let data = secret(&[("token", b"hunter2")]);
        let config = ProviderConfig { bearer_token_key: Some("token".into()), ..config() };
        let credentials = Credentials::resolve(&config, "ns", &data).expect("resolves");
        crate::testing::providers();
        let client = credentials.client(&config, "test").expect("a client");
        let text = format!("{data:?} {credentials:?} {client:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        crate::testing::providers();
        let config =
            ProviderConfig { ca_key: Some("ca".into()), url: "https://prometheus".into(), ..config() };
        for pem in
            [&b"not a certificate"[..], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            let credentials = Credentials::resolve(&config, "ns", &secret(&[("ca", pem)])).expect("resolves");
            let error = credentials.client(&config, "test").expect_err("no certificate");
            assert!(matches!(error, ProviderError::Certificates(_)), "{error}");
        }
    }

    #[test]
    fn a_changed_value_makes_other_credentials() {
        let config = ProviderConfig { bearer_token_key: Some("token".into()), ..config() };
        let of = |value: &[u8]| {
            Credentials::resolve(&config, "ns", &secret(&[("token", value)])).expect("resolves")
        };
        assert!(of(b"a") == of(b"a\n"));
        assert!(of(b"a") != of(b"b"));
    }
}
