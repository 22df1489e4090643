//! What a plan is about: the template that is held, or the next one, as `spec.change` declares it in a file or in the cluster.

use sluice_core::api::{Change, ProgressiveRollout, ProgressiveRolloutStatus};
use sluice_core::provenance::{self, Before, ChangeView};
use sluice_core::view::Workload;

use super::About;

/// What is wrong with a change that is about nothing.
pub const NO_TEMPLATE: &str =
    "spec.change has neither images nor commit, so it describes no template: write one of them";

/// What a plan is about when no run is under way.
pub struct Subject {
    /// Which change.
    pub about: About,
    /// What is known of it.
    pub view: ChangeView,
    /// What people should know of how this came about.
    pub cautions: Vec<String>,
}

impl Subject {
    /// Of a rollout in the cluster; `on_disk` if its spec is that of a file.
    pub fn of(
        rollout: &ProgressiveRollout,
        status: &ProgressiveRolloutStatus,
        workload: &Workload,
        on_disk: bool,
    ) -> Self {
        let change = &rollout.spec.change;
        let stable = status.stable.clone().unwrap_or_default();
        let held = provenance::describe(change, workload, Before::held(&stable, status));
        let is_held = workload.digest != stable.digest;
        let names = names_a_template(change);
        // A file still has the change that serves when the next one forgot it.
        let is_shipped = on_disk && names && provenance::is_of(change, &stable);
        // One that describes another template is about that one, whatever waits in the cluster.
        let is_another = on_disk && names && !held.by_change && !is_shipped;
        if is_held && !is_another {
            return Self { about: About::Held, cautions: of_held(&held), view: held };
        }
        let mut cautions = Vec::new();
        if is_held {
            cautions.push(
                "the template that is held, or under way, is another one than the file's spec.change describes: this is the plan of \
                 the change that comes after it"
                    .to_owned(),
            );
            cautions.extend(held.obstacle);
        }
        if !names {
            cautions.push(NO_TEMPLATE.to_owned());
        } else if is_shipped {
            cautions.push(
                "spec.change describes the template that serves, and so no next one: write the images or the commit of that"
                    .to_owned(),
            );
        }
        let view = if is_shipped { provenance::undeclared() } else { next(change) };
        Self { about: About::Next, view, cautions }
    }
}

fn of_held(view: &ChangeView) -> Vec<String> {
    let undeclared = "nothing describes the held template: name its images or its commit in spec.change";
    let counts = || {
        let why = view.obstacle.as_deref().unwrap_or(undeclared);
        format!("its provenance counts as {}: {why}", view.provenance.as_str())
    };
    let counts = (!view.declared).then(counts);
    counts.into_iter().chain(view.mismatch.clone()).collect()
}

/// Whether a change names what it is about. Without images and commit nothing can tell which template that is.
pub fn names_a_template(change: &Change) -> bool {
    !change.images.is_empty() || change.commit.is_some()
}

/// What a change says of the template that comes next.
pub fn next(change: &Change) -> ChangeView {
    if names_a_template(change) { provenance::declared(change) } else { provenance::undeclared() }
}
