//! Settings of an installation, as the chart writes them.

use serde::{Deserialize, Serialize};

use crate::api::{Guard, ProviderConfig, RiskClass, StepSpec, TolerancePpm};
use crate::policy::Preset;

/// Settings of an installation. Every field has a default; an empty document is a valid one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// How new templates are held.
    pub hold: Hold,
    /// Seconds between two evaluations of the guards, 1 to 300. Best equal to the scrape interval.
    pub evaluation_interval_seconds: i32,
    /// How long a held revision waits for its `change` to be declared, in seconds, 0 to 3600.
    pub declaration_grace_seconds: i32,
    /// Namespaces that are watched; empty: all.
    pub watch_namespaces: Vec<String>,
    /// Prometheus of rollouts that name none.
    pub prometheus: Option<ProviderConfig>,
    /// Alertmanager of rollouts that name none.
    pub alertmanager: Option<ProviderConfig>,
    /// Rows that replace those of the built-in class table.
    pub classes: Vec<ClassRow>,
    /// The policy that holds, and is made, while there is no ClusterRiskPolicy.
    pub default_policy: Preset,
    /// Guards of rollouts that name none; empty: one error ratio from the pods' own metrics.
    pub default_guards: Vec<Guard>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hold: Hold::OnChange,
            evaluation_interval_seconds: 15,
            declaration_grace_seconds: 30,
            watch_namespaces: Vec::new(),
            prometheus: None,
            alertmanager: None,
            classes: Vec::new(),
            default_policy: Preset::default(),
            default_guards: Vec::new(),
        }
    }
}

/// How new templates are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hold {
    /// The API server pauses a Deployment in the write that changes its template (Kubernetes 1.36 and newer).
    #[default]
    OnChange,
    /// Deployments are paused at rest too (Kubernetes 1.30 to 1.35).
    Always,
}

/// One row of the class table: what a risk class allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClassRow {
    /// The class.
    pub name: RiskClass,
    /// Steps, weights rising to 100.
    pub steps: Vec<StepSpec>,
    /// What is tolerated before it counts against the canary.
    pub tolerance_ppm: TolerancePpm,
    /// What promotion has to rule out; absent: the built-in row's.
    #[serde(default)]
    pub margin_ppm: Option<TolerancePpm>,
    /// Probability that the row stops a good canary, in parts per million; absent: the built-in row's.
    #[serde(default)]
    pub capital_ppm: Option<i32>,
    /// Probability, per step, that a canary at the margin passes, in parts per million; absent: the built-in row's.
    #[serde(default)]
    pub gate_error_ppm: Option<i32>,
    /// Canary requests needed before weight 100.
    pub min_samples: i32,
    /// Without fresh data for this long, traffic returns to stable.
    pub no_data_seconds: i32,
}
