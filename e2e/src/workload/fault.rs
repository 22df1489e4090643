//! What can go wrong in a pod, and where that is said: in the image's tag, in the environment of the pod template,
//! or by a rule that a scenario sets while the pod runs. Later ones win, field by field.
//!
//! | tag part | environment | meaning |
//! | --- | --- | --- |
//! | `errors50` | `FAULT_ERROR_PERMILLE=50` | 50 of 1,000 requests fail |
//! | | `FAULT_ERROR_STATUS=503` | status of a failed request, default 500 |
//! | `latency200` | `FAULT_LATENCY_MS=200` | each answer takes 200 ms longer |
//! | `slowstart3000` | `FAULT_READY_AFTER_MS=3000` | ready 3 s after the start |
//! | `unready` | `FAULT_NEVER_READY=true` | runs, never ready |
//! | `crash` | `FAULT_CRASH=true` | the container ends with exit code 1 again and again |
//! | `oom2000` | `FAULT_OOM_EVERY_MS=2000` | the container is killed for want of memory every 2 s, and is back at once |
//! | `nopull` | `FAULT_IMAGE_PULL=true` | ImagePullBackOff |
//!
//! Parts of a tag are separated by `-`: `shop:2.1-errors50-latency20`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

/// What state the containers get into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifecycle {
    #[default]
    Healthy,
    NeverReady,
    Crash,
    ImagePull,
}

/// A set of faults; a field that is None says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Fault {
    pub error_permille: Option<u32>,
    pub error_status: Option<u16>,
    pub latency_ms: Option<u64>,
    pub ready_after_ms: Option<u64>,
    pub oom_every_ms: Option<u64>,
    pub lifecycle: Option<Lifecycle>,
}

impl Fault {
    /// Fails this many of 1,000 requests.
    pub fn errors(permille: u32) -> Self {
        Self { error_permille: Some(permille), ..Self::default() }
    }

    /// Answers this much later.
    pub fn latency(ms: u64) -> Self {
        Self { latency_ms: Some(ms), ..Self::default() }
    }

    /// Brings the containers into a state.
    pub fn lifecycle(state: Lifecycle) -> Self {
        Self { lifecycle: Some(state), ..Self::default() }
    }

    /// This, where the other says nothing.
    #[must_use]
    pub fn overlaid(self, by: &Self) -> Self {
        Self {
            error_permille: by.error_permille.or(self.error_permille),
            error_status: by.error_status.or(self.error_status),
            latency_ms: by.latency_ms.or(self.latency_ms),
            ready_after_ms: by.ready_after_ms.or(self.ready_after_ms),
            oom_every_ms: by.oom_every_ms.or(self.oom_every_ms),
            lifecycle: by.lifecycle.or(self.lifecycle),
        }
    }

    /// What a pod's own template says: the first container's image tag, then its environment.
    pub fn of_template(pod: &Pod) -> Self {
        let Some(container) = pod.spec.as_ref().and_then(|s| s.containers.first()) else {
            return Self::default();
        };
        let env = container.env.iter().flatten().filter_map(|e| Some((e.name.as_str(), e.value.as_deref()?)));
        Self::of_image(container.image.as_deref().unwrap_or_default()).overlaid(&Self::of_env(env))
    }

    fn of_image(image: &str) -> Self {
        let mut fault = Self::default();
        let name = image.rsplit('/').next().unwrap_or_default();
        for part in name.split_once(':').map(|(_, tag)| tag).unwrap_or_default().split('-') {
            let number = |prefix: &str| part.strip_prefix(prefix).and_then(|n| n.parse::<u64>().ok());
            match part {
                "unready" => fault.lifecycle = Some(Lifecycle::NeverReady),
                "crash" => fault.lifecycle = Some(Lifecycle::Crash),
                "nopull" => fault.lifecycle = Some(Lifecycle::ImagePull),
                _ => {}
            }
            if let Some(n) = number("errors") {
                fault.error_permille = Some(u32::try_from(n).unwrap_or(1000).min(1000));
            }
            fault.latency_ms = number("latency").or(fault.latency_ms);
            fault.ready_after_ms = number("slowstart").or(fault.ready_after_ms);
            fault.oom_every_ms = number("oom").or(fault.oom_every_ms);
        }
        fault
    }

    fn of_env<'a>(env: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut fault = Self::default();
        for (name, value) in env {
            let on = value == "true" || value == "1";
            match name {
                "FAULT_ERROR_PERMILLE" => fault.error_permille = value.parse().ok(),
                "FAULT_ERROR_STATUS" => fault.error_status = value.parse().ok(),
                "FAULT_LATENCY_MS" => fault.latency_ms = value.parse().ok(),
                "FAULT_READY_AFTER_MS" => fault.ready_after_ms = value.parse().ok(),
                "FAULT_OOM_EVERY_MS" => fault.oom_every_ms = value.parse().ok(),
                "FAULT_NEVER_READY" if on => fault.lifecycle = Some(Lifecycle::NeverReady),
                "FAULT_CRASH" if on => fault.lifecycle = Some(Lifecycle::Crash),
                "FAULT_IMAGE_PULL" if on => fault.lifecycle = Some(Lifecycle::ImagePull),
                _ => {}
            }
        }
        fault
    }
}

/// Which pods a rule means: those that match everything that is said. Says nothing: all pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Select {
    pub namespace: Option<String>,
    /// The first container's image, whole.
    pub image: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub pod: Option<String>,
}

impl Select {
    /// All pods of a namespace.
    pub fn namespace(name: &str) -> Self {
        Self { namespace: Some(name.into()), ..Self::default() }
    }

    /// The pods of a namespace that run an image.
    pub fn image(namespace: &str, image: &str) -> Self {
        Self { namespace: Some(namespace.into()), image: Some(image.into()), ..Self::default() }
    }

    /// Whether it means this pod.
    pub fn matches(&self, pod: &Pod) -> bool {
        let equal =
            |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|w| Some(w) == is);
        let image = pod.spec.as_ref().and_then(|s| s.containers.first()).and_then(|c| c.image.as_deref());
        let labels = pod.metadata.labels.as_ref();
        equal(&self.namespace, pod.metadata.namespace.as_deref())
            && equal(&self.pod, pod.metadata.name.as_deref())
            && equal(&self.image, image)
            && self.labels.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
    }
}

/// Faults of pods that run: set by a scenario, in order, later ones win.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules(pub Vec<(Select, Fault)>);

impl Rules {
    /// What a pod shall do now.
    pub fn of(&self, pod: &Pod) -> Fault {
        let rules = self.0.iter().filter(|(select, _)| select.matches(pod));
        rules.fold(Fault::of_template(pod), |fault, (_, by)| fault.overlaid(by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(image: &str, env: &[(&str, &str)]) -> Pod {
        let env: Vec<_> = env.iter().map(|(n, v)| serde_json::json!({"name": n, "value": v})).collect();
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "shop", "labels": {"app": "shop"}},
            "spec": {"containers": [{"name": "c", "image": image, "env": env}]},
        }))
        .expect("pod")
    }

    #[test]
    fn tag_says_faults_and_environment_wins() {
        let plain = Fault::of_template(&pod("registry:5000/shop:2.1", &[]));
        assert_eq!(plain, Fault::default(), "a registry's port is not a tag");
        let tag = Fault::of_template(&pod("registry:5000/shop:2.1-errors50-latency20", &[]));
        assert_eq!((tag.error_permille, tag.latency_ms), (Some(50), Some(20)));
        let both = Fault::of_template(&pod("shop:2-errors50-crash", &[("FAULT_ERROR_PERMILLE", "7")]));
        assert_eq!((both.error_permille, both.lifecycle), (Some(7), Some(Lifecycle::Crash)));
    }

    #[test]
    fn later_rules_win_where_they_say_something() {
        let rules = Rules(vec![
            (Select::namespace("shop"), Fault { latency_ms: Some(9), ..Fault::errors(100) }),
            (Select::image("shop", "shop:2"), Fault::errors(0)),
            (Select::namespace("other"), Fault::errors(1000)),
        ]);
        let fault = rules.of(&pod("shop:2", &[]));
        assert_eq!((fault.error_permille, fault.latency_ms), (Some(0), Some(9)));
        assert_eq!(rules.of(&pod("shop:3", &[])).error_permille, Some(100));
    }
}
