//! What Alertmanager's API v2 answers, as far as the guards look at it.

use jiff::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;

/// One alert, as Alertmanager's API v2 returns it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Hash over the labels.
    pub fingerprint: String,
    /// Labels, `alertname` among them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it began to fire.
    pub starts_at: Timestamp,
    /// When its rule became active, if the source knows: Prometheus does, Alertmanager does not.
    #[serde(default)]
    pub active_at: Option<Timestamp>,
    /// Whether it is active or suppressed, and by what.
    pub status: AlertStatus,
}

/// Alertmanager's view of an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertStatus {
    /// Active, suppressed or not processed yet.
    pub state: SourceState,
    /// Ids of silences that match.
    #[serde(default)]
    pub silenced_by: Vec<String>,
    /// Fingerprints of alerts that inhibit it.
    #[serde(default)]
    pub inhibited_by: Vec<String>,
}

/// State of an alert in Alertmanager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// It fires.
    #[default]
    Active,
    /// Silenced or inhibited.
    Suppressed,
    /// Not processed yet: it fires.
    Unprocessed,
}

/// A silence, as Alertmanager's API v2 returns it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    /// Its id.
    pub id: String,
    /// Who made it.
    #[serde(default)]
    pub created_by: String,
    /// When it began.
    pub starts_at: Timestamp,
}

/// One look at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// When.
    pub at: Timestamp,
    /// All alerts, or why there is no answer.
    pub answer: Result<Vec<Alert>, String>,
    /// Silences, if they were asked for: they tell who silenced an alert, and when.
    pub silences: Vec<Silence>,
}
