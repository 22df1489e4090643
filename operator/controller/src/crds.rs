//! `crds`: the CustomResourceDefinitions as files, or a check that the files are current.

use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use sluice_core::api::{ChangeFreeze, ClusterRiskPolicy, ProgressiveRollout, RiskPolicy};

/// Why the files are not in order.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// The file can't be written or read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The definition can't be written as YAML.
    #[error("the definition can't be written as YAML: {0}")]
    Yaml(String),
    /// The file is not what the types say.
    #[error("{0} differs from the types: run `make crds` and commit the result")]
    Drift(PathBuf),
}

/// The definitions by the names of their files.
fn definitions() -> [(&'static str, CustomResourceDefinition); 4] {
    [
        ("sluice.dev_changefreezes.yaml", ChangeFreeze::crd()),
        ("sluice.dev_clusterriskpolicies.yaml", ClusterRiskPolicy::crd()),
        ("sluice.dev_progressiverollouts.yaml", ProgressiveRollout::crd()),
        ("sluice.dev_riskpolicies.yaml", RiskPolicy::crd()),
    ]
}

/// Writes the definitions, or checks them.
pub fn write(dir: &Path, check: bool) -> Result<(), CrdError> {
    definitions().into_iter().try_for_each(|(name, crd)| write_one(&dir.join(name), &crd, check))
}

fn write_one(path: &Path, crd: &CustomResourceDefinition, check: bool) -> Result<(), CrdError> {
    let crd = serde_json::to_value(crd).map_err(|e| CrdError::Yaml(e.to_string()))?;
    let yaml = serde_saphyr::to_string(&crd).map_err(|e| CrdError::Yaml(e.to_string()))?;
    let text = format!("# Generated from the types in operator/core/src/api by `make crds`.\n{yaml}");
    let fail = |source| CrdError::File { path: path.to_owned(), source };
    if check {
        let found = std::fs::read_to_string(path).map_err(fail)?;
        return if found == text { Ok(()) } else { Err(CrdError::Drift(path.to_owned())) };
    }
    std::fs::create_dir_all(path.parent().unwrap_or(path)).map_err(fail)?;
    std::fs::write(path, text).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_files_are_what_the_types_say() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for dir in ["crds", "charts/sluice/files/crds"] {
            write(&top.join(dir), true).unwrap();
        }
    }

    #[test]
    fn a_file_that_differs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, false).unwrap();
        write(dir, true).unwrap();
        let path = dir.join("sluice.dev_progressiverollouts.yaml");
        std::fs::write(&path, "kind: Other").unwrap();
        let error = write(dir, true).unwrap_err().to_string();
        assert!(
            error.contains("sluice.dev_progressiverollouts.yaml") && error.contains("make crds"),
            "{error}"
        );
    }
}
