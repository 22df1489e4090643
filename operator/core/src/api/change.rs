//! What a change declares about itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who wrote the change. Ordered by the risk it stands for: silence is never the cheapest answer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Provenance {
    /// Written by people.
    Human,
    /// Written with the help of generative AI.
    GenAIAssisted,
    /// Nothing is declared, or what is declared does not describe this template.
    #[default]
    Unknown,
    /// Written by a generative AI agent on its own.
    GenAIAutonomous,
}

impl Provenance {
    /// All of them, in the order of rising risk.
    pub const ALL: [Self; 4] = [Self::Human, Self::GenAIAssisted, Self::Unknown, Self::GenAIAutonomous];

    /// The name as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Human => "Human",
            Self::GenAIAssisted => "GenAIAssisted",
            Self::Unknown => "Unknown",
            Self::GenAIAutonomous => "GenAIAutonomous",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provenance| provenance.as_str() == name)
    }
}

/// What kind of change it is. Freezes and error budgets can exempt some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ChangeKind {
    /// The application's own code.
    Code,
    /// Its configuration.
    Config,
    /// A feature that is switched on or off.
    FeatureFlag,
    /// A library or base image.
    Dependency,
    /// What it runs on.
    Infra,
    /// It closes a security hole.
    Security,
}

impl ChangeKind {
    /// The name as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Code => "Code",
            Self::Config => "Config",
            Self::FeatureFlag => "FeatureFlag",
            Self::Dependency => "Dependency",
            Self::Infra => "Infra",
            Self::Security => "Security",
        }
    }
}

/// The change that is being shipped.
///
/// It describes a held template when `images` lists every container image that differs from the stable
/// template, or when the Deployment's annotation `sluice.dev/commit` equals `commit` and came with the template. A
/// template that nothing describes has provenance `Unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Who wrote the change: Human, GenAIAssisted (with the help of generative AI), GenAIAutonomous (by a generative
    /// AI agent on its own) or Unknown. Joined with `evidence` and with the Deployment's annotation
    /// `sluice.dev/provenance`, of which the riskiest counts, it decides the risk class; Unknown is limited at least as
    /// tightly as GenAIAssisted. Default Unknown.
    #[serde(default)]
    pub provenance: Provenance,
    /// Git commit of the source (not of rendered manifests), 7 to 64 hexadecimal digits. When the Deployment's
    /// annotation `sluice.dev/commit` has the same value, and no template before had it, this change describes its
    /// template. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-fA-F]{7,64}$"))]
    pub commit: Option<String>,
    /// Container images that this change puts into the pod template, as written there, at most 32 of at most 500
    /// characters; of images with a digest only name and digest have to agree. When every image that differs from the
    /// stable template is among them, this change describes the template. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 500)))]
    pub images: Vec<String>,
    /// What kind of change it is: Code, Config, FeatureFlag, Dependency, Infra or Security. A ChangeFreeze and an
    /// error budget can exempt some kinds; it counts only if this change describes the template. Default: not said, which none
    /// exempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ChangeKind")]
    pub kind: Option<ChangeKind>,
    /// How large the change is; `kubectl sluice scan` writes this. It counts with `evidence` of the same commit. Default: not
    /// known, which counts as more than 1000 lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ChangeSize>,
    /// What `kubectl sluice scan` found in the source; it writes this. The riskiest of its findings is joined with what is
    /// declared. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<ChangeEvidence>,
}

/// How much of the source a change touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeSize {
    /// Lines that were added or removed, 0 to 1000000000.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub changed_lines: i32,
    /// Files that were changed, 0 to 1000000000. For people. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 0, max = 1_000_000_000))]
    pub changed_files: Option<i32>,
}

/// What a scan of the source found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeEvidence {
    /// Version of the rules that it was scanned by, at most 32 characters.
    #[schemars(length(min = 1, max = 32))]
    pub rules_version: String,
    /// Commit after which the change begins, 7 to 64 hexadecimal digits.
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-fA-F]{7,64}$"))]
    pub base_commit: String,
    /// Last commit of the change, 7 to 64 hexadecimal digits. Evidence of another commit than `change.commit`, or of none, can
    /// raise, and confirms nothing. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-fA-F]{7,64}$"))]
    pub head_commit: Option<String>,
    /// Commits that were read, 1 to 10000000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub commits_scanned: i32,
    /// What the author claimed, if the scan was told: Human, GenAIAssisted, GenAIAutonomous or Unknown. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Provenance")]
    pub declared: Option<Provenance>,
    /// What was found, riskiest first, at most 64: one entry per rule. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub findings: Vec<ChangeFinding>,
}

/// What one rule found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeFinding {
    /// The rule, at most 64 characters.
    #[schemars(length(min = 1, max = 64))]
    pub rule: String,
    /// What the change is at least: Human, GenAIAssisted, Unknown or GenAIAutonomous.
    pub level: Provenance,
    /// A commit that it was found in, 7 to 64 hexadecimal digits. Default none: it is about no commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-fA-F]{7,64}$"))]
    pub commit: Option<String>,
}
