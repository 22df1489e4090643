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
}

/// The change that is being shipped.
///
/// It describes a held template when `images` lists every container image that differs from the stable
/// template, or when the Deployment's annotation `sluice.dev/commit` equals `commit`. A template that it
/// does not describe is treated as provenance `Unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Who wrote the change: Human, GenAIAssisted (with the help of generative AI), GenAIAutonomous (by a generative
    /// AI agent on its own) or Unknown. It decides the risk class; Unknown is limited at least as tightly as
    /// GenAIAssisted. Default Unknown.
    #[serde(default)]
    pub provenance: Provenance,
    /// Git commit of the source (not of rendered manifests), 7 to 64 hexadecimal digits. When the Deployment's
    /// annotation `sluice.dev/commit` has the same value, this change describes its template. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-fA-F]{7,64}$"))]
    pub commit: Option<String>,
    /// Container images that this change puts into the pod template, exactly as written there, at most 32 of at most
    /// 500 characters. When every image that differs from the stable template is among them, this change describes
    /// the template. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 500)))]
    pub images: Vec<String>,
}
