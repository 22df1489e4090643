//! `ChangeFreeze`: when a platform team lets no change start.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ChangeKind, PolicyStatus};

/// When no change may start. A run under way goes on, and a return to a recorded good revision is never held. A version that
/// is refused changes nothing: the last accepted one stays in force.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "ChangeFreeze",
    plural = "changefreezes",
    category = "sluice",
    status = "ChangeFreezeStatus",
    derive = "PartialEq",
    doc = "ChangeFreeze says when no change may start: in windows of time, in all namespaces or some. A run under way goes on, and a return to a recorded good revision is never held.",
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode","description":"Hard holds every change, Soft those of class R2 and riskier"}"#,
    printcolumn = r#"{"name":"Until","type":"string","jsonPath":".status.until","description":"End of the window that is open now; nothing between windows"}"#,
    printcolumn = r#"{"name":"Next","type":"string","jsonPath":".status.nextStart","description":"Start of the next window"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].status","description":"Whether the newest version is in force"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Age of the object"}"#,
    printcolumn = r#"{"name":"Why","type":"string","jsonPath":".spec.reason","priority":1,"description":"Why no change may start"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ChangeFreezeSpec {
    /// Why no change may start, 1 to 300 characters. It is shown to whoever waits.
    #[schemars(length(min = 1, max = 300))]
    pub reason: String,
    /// Which changes are held: Hard holds all, Soft those of class R2 and riskier. Default Hard.
    #[serde(default)]
    pub mode: FreezeMode,
    /// Time zone of all times here, by its name in the IANA database, such as Europe/Berlin; at most 64 characters. Default UTC.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub zone: String,
    /// When, 1 to 64 windows. They may overlap.
    #[schemars(length(min = 1, max = 64))]
    pub windows: Vec<FreezeWindow>,
    /// In which namespaces. Default: in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FreezeScope")]
    pub scope: Option<FreezeScope>,
    /// Kinds of change (`spec.change.kind` of the rollout) that are not held, at most 6. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6))]
    pub exempt_kinds: Vec<ChangeKind>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// Which changes a freeze holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum FreezeMode {
    /// Those of class R2 and riskier.
    Soft,
    /// All.
    #[default]
    Hard,
}

impl FreezeMode {
    /// The name as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Soft => "Soft",
            Self::Hard => "Hard",
        }
    }
}

/// A window of time, once or again and again. It includes its start and not its end.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.end) != has(self.duration)").message("write either end or duration"),
    validation = Rule::new("!has(self.recurrence) || has(self.duration)").message("a window with a recurrence has a duration, such as PT8H, and no end")
)]
pub struct FreezeWindow {
    /// Local time at which it begins, such as 2026-12-24T18:00:00, at most 19 characters. With a recurrence it is the first of
    /// its days.
    #[schemars(
        length(max = 19),
        regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?$")
    )]
    pub start: String,
    /// Local time at which it ends, such as 2026-12-27T06:00:00, at most 19 characters. Default none: then it has a duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 19),
        regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?$")
    )]
    pub end: Option<String>,
    /// How long it is, as RFC 5545 writes it: PT8H, P2DT12H, P1W; more than nothing, up to P366D, at most 32 characters. Days are
    /// local ones, of 23 or 25 hours when the clocks change. Default none: then it has an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 32))]
    pub duration: Option<String>,
    /// On which days it begins again, as a rule of RFC 5545 such as FREQ=WEEKLY;BYDAY=FR, at most 300 characters. FREQ (DAILY, WEEKLY,
    /// MONTHLY, YEARLY), INTERVAL, COUNT, UNTIL, BYDAY, BYMONTH, BYMONTHDAY and WKST are known. Default: it comes once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 300))]
    pub recurrence: Option<String>,
}

/// Namespaces: those that are named, and those that have all the labels.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.namespaces) && size(self.namespaces) > 0) || has(self.namespaceSelector)").message("write namespaces or namespaceSelector.matchLabels, or leave scope out for every namespace")
)]
pub struct FreezeScope {
    /// Names of namespaces, at most 256 of at most 63 characters. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    pub namespaces: Vec<String>,
    /// Namespaces by their labels, besides those that are named. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "NamespaceSelector")]
    pub namespace_selector: Option<NamespaceSelector>,
}

/// Namespaces by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// Labels that a namespace has with these values, all of them, 1 to 16.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
}

/// What the controller says of a freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeFreezeStatus {
    /// Which version is in force.
    #[serde(flatten)]
    pub policy: PolicyStatus<ChangeFreezeSpec>,
    /// End of the window that is open now; windows that touch or overlap are one. None between windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub until: Option<Timestamp>,
    /// Start of the next window, if it is within 400 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub next_start: Option<Timestamp>,
}
