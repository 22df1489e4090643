//! What the schema can't say about a spec: each problem names the field, the value and what to write.

use std::collections::BTreeSet;

use crate::api::{Guard, GuardAction, ProgressiveRolloutSpec};
use crate::limits::schedule;

/// Problems of a spec, in the order of its fields.
pub fn problems(spec: &ProgressiveRolloutSpec) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(commit) = &spec.change.commit
        && !(7..=64).contains(&commit.len()) | !commit.bytes().all(|b| b.is_ascii_hexdigit())
    {
        found.push(format!("spec.change.commit {commit:?}: write 7 to 64 hexadecimal digits"));
    }
    let mut routes = BTreeSet::new();
    for route in &spec.routing.routes {
        if !routes.insert(&route.name) {
            found.push(format!(
                "spec.routing.routes names {} twice: list all its rules in one entry",
                route.name
            ));
        }
    }
    if !spec.limits.steps.is_empty()
        && let Some(problem) = schedule::problem(&spec.limits.steps)
    {
        found.push(format!("spec.limits.steps: {problem}"));
    }
    found.extend(guard_problems(&spec.guards));
    found
}

/// Problems of a list of guards; an empty list means the defaults.
fn guard_problems(guards: &[Guard]) -> Vec<String> {
    let mut found = Vec::new();
    for guard in guards {
        if guard.error_ratio.is_some() == guard.alert.is_some() {
            found.push(format!("spec.guards[{}]: set exactly one of errorRatio and alert", guard.name));
        }
    }
    let judges = guards.iter().any(|g| g.error_ratio.is_some() && g.action == GuardAction::Abort);
    if !guards.is_empty() && !judges {
        found.push(
            "spec.guards: at least one errorRatio guard with action Abort is needed, since alerts alone can't show that a canary is good"
                .to_owned(),
        );
    }
    found
}
