//! The bound on harm beside a plan: for people, decides nothing, and never absent without a reason while a template is held.

use crate::api::{PlanHarm, ProgressiveRolloutStatus, RunKind};

use super::draft::Draft;

/// Why it is not known when nothing else is said.
const NOT_YET: &str = "not known yet: an hour of stable's record is read while the template waits to start, or before its \
                       first request";

/// The bound of the plan that status shows: of a held template the newest, if it says something else; of a run the one that it
/// began with.
pub(super) fn of_plan(d: &Draft<'_>, before: &ProgressiveRolloutStatus) -> Option<PlanHarm> {
    let digest = &d.status.plan.as_ref()?.digest;
    let verdict = d.input.verdict;
    let shown = before.plan.as_ref();
    let of_this = shown.filter(|plan| plan.digest == *digest).and_then(|plan| plan.harm.clone());
    let (known, found) = match &d.status.run {
        Some(run) if run.kind != RunKind::Canary => return None,
        Some(run) => {
            // It stays as it was told, whatever gets tighter.
            let going_on = before.run.is_some();
            let known = if going_on { shown.and_then(|plan| plan.harm.clone()) } else { of_this };
            let found = verdict.harm.as_ref().filter(|_| verdict.run_id == run.id);
            if known.as_ref().is_some_and(PlanHarm::is_known) { (known, None) } else { (known, found) }
        }
        None => (of_this, verdict.harm.as_ref().filter(|look| look.plan == *digest)),
    };
    let harm = match (known, found) {
        (Some(known), Some(found)) => {
            let lost = known.is_known() && !found.harm.is_known();
            if lost || !known.differs_from(&found.harm) { known } else { found.harm.clone() }
        }
        (None, Some(found)) => found.harm.clone(),
        (Some(known), None) => known,
        (None, None) => PlanHarm::unknown(NOT_YET),
    };
    Some(harm)
}
