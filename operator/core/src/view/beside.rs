//! What stands beside a Deployment and minds that two revisions run: its autoscaler, and the volumes of its pods.

use serde_json::Value;

use super::text;

/// A HorizontalPodAutoscaler (`autoscaling/v2`) of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autoscaler {
    /// Name.
    pub name: String,
    /// Metrics, as `<source> <name>`, whose target is a `Value`: the ratio of metric and target is multiplied by
    /// every ready pod that the workload's selector finds, the canary's included.
    pub value_metrics: Vec<String>,
}

impl Autoscaler {
    /// Reads an autoscaler, if it scales this Deployment.
    pub fn read(object: &Value, deployment: &str) -> Option<Self> {
        let target = object.pointer("/spec/scaleTargetRef")?;
        if text(target, "/kind") != "Deployment" || text(target, "/name") != deployment {
            return None;
        }
        let metrics = object.pointer("/spec/metrics").and_then(Value::as_array);
        let value_metrics = metrics.into_iter().flatten().filter_map(|metric| {
            ["object", "external"].into_iter().find_map(|source| {
                let source_of = metric.get(source)?;
                (text(source_of, "/target/type") == "Value").then(|| {
                    let kind = if source == "object" { "Object" } else { "External" };
                    format!("{kind} {}", text(source_of, "/metric/name"))
                })
            })
        });
        Some(Self { name: text(object, "/metadata/name").to_owned(), value_metrics: value_metrics.collect() })
    }
}

/// Names of the claims that all pods of a template share. A generic ephemeral volume is each pod's own.
pub fn shared_claims(template: &Value) -> Vec<String> {
    let volumes = template.pointer("/spec/volumes").and_then(Value::as_array);
    volumes
        .into_iter()
        .flatten()
        .map(|volume| text(volume, "/persistentVolumeClaim/claimName").to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Name.
    pub name: String,
    /// Its access modes: those of the bound volume, else those asked for.
    pub access_modes: Vec<String>,
}

impl Claim {
    /// Reads a claim.
    pub fn read(object: &Value) -> Self {
        let modes = |path: &str| -> Vec<String> {
            let found = object.pointer(path).and_then(Value::as_array);
            found.into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
        };
        let bound = modes("/status/accessModes");
        Self {
            name: text(object, "/metadata/name").to_owned(),
            access_modes: if bound.is_empty() { modes("/spec/accessModes") } else { bound },
        }
    }

    /// The access mode that lets one pod, or the pods of one node, have the volume; `None` when many nodes may.
    pub fn single_writer(&self) -> Option<&str> {
        let many = ["ReadWriteMany", "ReadOnlyMany"];
        if self.access_modes.iter().any(|mode| many.contains(&mode.as_str())) {
            return None;
        }
        ["ReadWriteOncePod", "ReadWriteOnce"]
            .into_iter()
            .find(|mode| self.access_modes.iter().any(|known| known == mode))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn autoscaler(kind: &str, metrics: &Value) -> Value {
        json!({"metadata": {"name": "web-hpa"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": "web"}, "metrics": metrics}})
    }

    #[test]
    fn only_metrics_with_a_value_as_target_count_the_canary() {
        let metrics = json!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
            {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
            {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "30"}}},
            {"type": "External", "external": {"metric": {"name": "lag"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
            {"type": "Object", "object": {"metric": {"name": "rps"}, "describedObject": {"kind": "Ingress", "name": "web"},
                "target": {"type": "Value", "value": "2k"}}},
            {"type": "New", "new": {"target": {"type": "Value"}}},
        ]);
        let read = Autoscaler::read(&autoscaler("Deployment", &metrics), "web").unwrap();
        assert_eq!(read.name, "web-hpa");
        assert_eq!(read.value_metrics, ["External queue", "Object rps"]);
        assert_eq!(Autoscaler::read(&autoscaler("StatefulSet", &metrics), "web"), None);
        assert_eq!(Autoscaler::read(&autoscaler("Deployment", &metrics), "api"), None);
        assert_eq!(Autoscaler::read(&json!({}), "web"), None);
        let plain = Autoscaler::read(&autoscaler("Deployment", &Value::Null), "web").unwrap();
        assert_eq!(plain.value_metrics, Vec::<String>::new());
    }

    #[test]
    fn a_claim_has_one_writer_unless_many_nodes_may_have_it() {
        let claim = |spec: Value, status: Value| {
            let object = json!({"metadata": {"name": "data"}, "spec": {"accessModes": spec}, "status": {"accessModes": status}});
            Claim::read(&object).single_writer().map(ToOwned::to_owned)
        };
        let once = Some("ReadWriteOnce".to_owned());
        assert_eq!(claim(json!(["ReadWriteOnce"]), Value::Null), once);
        assert_eq!(claim(json!(["ReadWriteOnce"]), json!([])), once);
        assert_eq!(claim(json!(["ReadWriteOncePod"]), Value::Null), Some("ReadWriteOncePod".to_owned()));
        assert_eq!(claim(json!(["ReadWriteMany"]), Value::Null), None);
        assert_eq!(claim(json!(["ReadOnlyMany"]), Value::Null), None);
        // The bound volume says what is really so.
        assert_eq!(claim(json!(["ReadWriteOnce"]), json!(["ReadWriteOnce", "ReadWriteMany"])), None);
        assert_eq!(claim(Value::Null, Value::Null), None);
    }

    #[test]
    fn claims_that_pods_do_not_share_are_not_listed() {
        let template = json!({"spec": {"volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "web-data"}},
            {"name": "own", "ephemeral": {"volumeClaimTemplate": {}}},
            {"name": "conf", "configMap": {"name": "web"}},
        ]}});
        assert_eq!(shared_claims(&template), ["web-data"]);
        assert_eq!(shared_claims(&json!({})), Vec::<String>::new());
    }
}
