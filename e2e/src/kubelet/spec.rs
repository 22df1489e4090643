//! From a container's spec to a command: environment, `$(VAR)` expansion, arguments.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use kube::{Api, Client};

/// A name that every API server's certificate has; the pod's hosts file has its address.
const API_HOST: &str = "kubernetes.default.svc";

/// What a container runs with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) command: Vec<String>,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    /// One label value or name for the process's host name.
    pub(super) working_dir: String,
}

/// Reads what the spec refers to. An error is a missing reference: the container waits for it.
pub(super) async fn resolve(client: &Client, pod: &Pod, ip: &str, container: &Container) -> Result<Resolved> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let sources = Sources { client, namespace };
    let mut env = BTreeMap::from([
        ("KUBERNETES_SERVICE_HOST".to_owned(), API_HOST.to_owned()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), "6443".to_owned()),
        ("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), "6443".to_owned()),
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOSTNAME".to_owned(), pod.metadata.name.clone().unwrap_or_default()),
        ("HOME".to_owned(), "/".to_owned()),
    ]);
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let values = if let Some(source) = &from.config_map_ref {
            sources.config_map(&source.name, source.optional.unwrap_or(false)).await?
        } else if let Some(source) = &from.secret_ref {
            sources.secret(&source.name, source.optional.unwrap_or(false)).await?
        } else {
            BTreeMap::new()
        };
        env.extend(values.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v)));
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, &env)),
            (None, Some(source)) => sources.variable(pod, ip, container, source).await?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(variable.name.clone(), value);
        }
    }
    let expanded = |list: &Option<Vec<String>>| list.iter().flatten().map(|a| expand(a, &env)).collect();
    Ok(Resolved {
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_else(|| "/".into()),
        env,
    })
}

/// The maps that variables and volumes come from.
pub(super) struct Sources<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
}

impl Sources<'_> {
    /// All values of a ConfigMap, binary ones left out; empty when it is optional and missing.
    pub(super) async fn config_map(&self, name: &str, optional: bool) -> Result<BTreeMap<String, String>> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        match api.get_opt(name).await? {
            Some(map) => Ok(map.data.unwrap_or_default()),
            None if optional => Ok(BTreeMap::new()),
            None => bail!("configmap \"{name}\" not found"),
        }
    }

    /// All values of a Secret that are text; empty when it is optional and missing.
    pub(super) async fn secret(&self, name: &str, optional: bool) -> Result<BTreeMap<String, String>> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        match api.get_opt(name).await? {
            Some(secret) => {
                let text =
                    |(k, v): (String, k8s_openapi::ByteString)| Some((k, String::from_utf8(v.0).ok()?));
                Ok(secret.data.unwrap_or_default().into_iter().filter_map(text).collect())
            }
            None if optional => Ok(BTreeMap::new()),
            None => bail!("secret \"{name}\" not found"),
        }
    }

    async fn variable(
        &self,
        pod: &Pod,
        ip: &str,
        c: &Container,
        source: &EnvVarSource,
    ) -> Result<Option<String>> {
        if let Some(field) = &source.field_ref {
            return field_value(pod, ip, &field.field_path).map(Some);
        }
        let (values, key, what, optional) = if let Some(s) = &source.config_map_key_ref {
            let optional = s.optional.unwrap_or(false);
            (self.config_map(&s.name, optional).await?, &s.key, format!("configmap \"{}\"", s.name), optional)
        } else if let Some(s) = &source.secret_key_ref {
            let optional = s.optional.unwrap_or(false);
            (self.secret(&s.name, optional).await?, &s.key, format!("secret \"{}\"", s.name), optional)
        } else if let Some(s) = &source.resource_field_ref {
            let limits = c.resources.as_ref();
            let (kind, name) = s.resource.split_once('.').unwrap_or(("limits", &s.resource));
            let of =
                limits.and_then(|r| if kind == "requests" { r.requests.as_ref() } else { r.limits.as_ref() });
            return Ok(Some(of.and_then(|m| m.get(name)).map(|q| q.0.clone()).unwrap_or_else(|| "0".into())));
        } else {
            bail!("a variable's valueFrom has no source that node local knows");
        };
        match values.get(key) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => bail!("couldn't find key {key} in {what}"),
        }
    }
}

/// The value of a downward API field.
pub(super) fn field_value(pod: &Pod, ip: &str, path: &str) -> Result<String> {
    let (meta, spec) = (&pod.metadata, pod.spec.as_ref());
    let entry = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default()
    };
    if let Some(key) = path.strip_prefix("metadata.labels['").and_then(|p| p.strip_suffix("']")) {
        return Ok(entry(&meta.labels, key));
    }
    if let Some(key) = path.strip_prefix("metadata.annotations['").and_then(|p| p.strip_suffix("']")) {
        return Ok(entry(&meta.annotations, key));
    }
    let list = |map: &Option<BTreeMap<String, String>>| {
        let lines = map.iter().flatten().map(|(k, v)| format!("{k}={}", serde_json::json!(v)));
        lines.collect::<Vec<_>>().join("\n")
    };
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => list(&meta.labels),
        "metadata.annotations" => list(&meta.annotations),
        "spec.nodeName" => super::NODE.into(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" | "status.podIPs" => ip.into(),
        "status.hostIP" | "status.hostIPs" => "127.0.0.1".into(),
        _ => return Err(anyhow::anyhow!("unknown field {path}")).context("fieldRef"),
    })
}

/// Kubernetes' expansion: `$(VAR)` of a known variable, `$$` an escaped dollar, everything else stays.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_is_that_of_kubernetes() {
        let env = BTreeMap::from([("POD_IP".to_owned(), "198.19.0.1".to_owned())]);
        for (text, expected) in [
            ("--listen=$(POD_IP):9464", "--listen=198.19.0.1:9464"),
            ("$(NONE) $$(POD_IP) $", "$(NONE) $(POD_IP) $"),
            ("$(POD_IP", "$(POD_IP"),
            ("a$b", "a$b"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    #[test]
    fn downward_fields() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "x\"y"}}, "spec": {"containers": []},
        }))
        .expect("pod");
        assert_eq!(field_value(&pod, "1.2.3.4", "status.podIP").expect("ip"), "1.2.3.4");
        assert_eq!(field_value(&pod, "", "metadata.labels['a']").expect("label"), "x\"y");
        assert_eq!(field_value(&pod, "", "metadata.labels").expect("labels"), "a=\"x\\\"y\"");
        assert!(field_value(&pod, "", "spec.color").is_err());
    }
}
