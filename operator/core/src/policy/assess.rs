//! The risk of one change under the policies: its inputs, where each comes from, and its class.

use jiff::Timestamp;

use crate::api::{
    ChangeSize, DeclaredRisk, Factor, Floor, Novelty, Outcome, Plan, PlanStatus, ProgressiveRolloutSpec,
    Provenance, ProvenancePolicy, RiskClass, RunRecord, Tier,
};
use crate::limits;
use crate::provenance::ChangeView;
use crate::risk::{
    AuthorHistory, ErrorBudget, FLOORS, Inputs, LastFailure, Level, Size, applies, class_of, class_of_points,
};

use super::{Policy, Sourced};

/// Reason of a run that a person stopped. It says nothing of the workload, and stopping one must not cost.
const BY_A_PERSON: &str = "AbortedByUser";

/// The risk of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// Who wrote it, as far as it is known.
    pub provenance: Provenance,
    /// Its class.
    pub class: RiskClass,
    /// Points of its inputs together.
    pub points: i32,
    /// The inputs, and the floor that decided, if one did.
    pub factors: Vec<Factor>,
}

impl Assessment {
    /// A plan of this risk as status shows it: what it allows, and why.
    pub fn explain(&self, spec: &ProgressiveRolloutSpec, policy: &Policy, plan: &Plan) -> PlanStatus {
        PlanStatus {
            digest: plan.digest.clone(),
            risk_class: Some(plan.risk_class),
            points: self.points,
            factors: self.factors.clone(),
            limit_sources: limits::sources(spec, policy, plan.risk_class),
            steps: plan.steps.clone(),
            required_signoffs: policy
                .row(plan.risk_class)
                .start
                .signoffs
                .iter()
                .map(|signoff| signoff.value.clone())
                .collect(),
            harm: None,
        }
    }
}

/// The risk of the change that `view` describes, with this much left of the error budget.
pub fn assess(
    spec: &ProgressiveRolloutSpec,
    view: &ChangeView,
    policy: &Policy,
    history: &[RunRecord],
    error_budget: Sourced<ErrorBudget>,
    now: Timestamp,
) -> Assessment {
    let declared: DeclaredRisk = spec.declared_risk;
    let owner = || "spec.declaredRisk".to_owned();
    let tier = match declared.tier {
        Some(tier) if tier > policy.tier.value => Sourced::new(tier, owner()),
        _ => policy.tier.clone(),
    };
    let blast_radius = match declared.blast_radius {
        Some(blast) if blast > policy.blast_radius.value => Sourced::new(blast, owner()),
        _ => policy.blast_radius.clone(),
    };
    let novelty = match declared.novelty {
        Some(novelty) if novelty > Novelty::default() => Sourced::new(novelty, owner()),
        _ => Sourced::new(Novelty::default(), "no record of earlier kinds yet"),
    };
    let size = match view.size {
        Some(ChangeSize { changed_lines, .. }) => {
            Sourced::new(Size::of(Some(changed_lines)), format!("spec.change.size, {changed_lines} lines"))
        }
        None => {
            let scan = "not known: kubectl sluice scan writes spec.change.size and evidence";
            Sourced::new(Size::of(None), view.stale.as_deref().unwrap_or(scan))
        }
    };
    let provenance = provenance(view, policy, tier.value);
    let authors = Sourced::new(AuthorHistory::Some, "no record of authors yet");
    let last_failure = last_failure(history, now);
    let inputs = Inputs {
        provenance: provenance.value,
        blast_radius: blast_radius.value,
        tier: tier.value,
        size: size.value,
        novelty: novelty.value,
        authors: authors.value,
        last_failure: last_failure.value,
        error_budget: error_budget.value,
    };
    let floors: Vec<Floor> = policy.floors.iter().map(|floor| floor.value).collect();
    let class = class_of(&inputs, &floors);
    let mut factors = vec![
        factor("provenance", provenance),
        factor("blastRadius", blast_radius),
        factor("tier", tier),
        factor("size", size),
        factor("novelty", novelty),
        factor("authorHistory", authors),
        factor("lastFailure", last_failure),
        factor("errorBudget", error_budget),
    ];
    if class > class_of_points(inputs.points()) {
        let own = policy
            .floors
            .iter()
            .find(|floor| floor.value.class == class && applies(&floor.value.when, &inputs));
        let always = || FLOORS.iter().find(|floor| floor.class == class && applies(&floor.when, &inputs));
        let (floor, source) = match own {
            Some(floor) => (Some(&floor.value), floor.from.clone()),
            None => (always(), "always".to_owned()),
        };
        let source = floor.map_or(source.clone(), |floor| format!("{source}: {}", words(floor)));
        factors.push(Factor {
            name: "floor".to_owned(),
            level: class.as_str().to_owned(),
            points: 0,
            source,
        });
    }
    Assessment { provenance: view.provenance, class, points: inputs.points(), factors }
}

fn factor<T: Level>(name: &str, input: Sourced<T>) -> Factor {
    let (level, points) = (input.value.name().to_owned(), input.value.points());
    Factor { name: name.to_owned(), level, points, source: input.from }
}

/// A claim that a person wrote it counts for what the policies believe of it, if no scan confirmed it.
fn provenance(view: &ChangeView, policy: &Policy, tier: Tier) -> Sourced<Provenance> {
    let from = match (&view.mismatch, &view.scanned) {
        (Some(mismatch), _) => mismatch.clone(),
        (None, Some((commits, rules))) => format!("commits scanned: {commits}, by rules {rules}"),
        (None, None) if let Some(stale) = &view.stale => stale.clone(),
        (None, None) if view.declared && view.provenance != Provenance::Unknown => {
            "declared, not scanned".to_owned()
        }
        (None, None) if view.declared => "nobody says who wrote it".to_owned(),
        (None, None) => "nothing describes the template".to_owned(),
    };
    let known = Sourced::new(view.provenance, from);
    if view.provenance != Provenance::Human || view.scanned.is_some() {
        return known;
    }
    let about = |human: &&Sourced<ProvenancePolicy>| {
        human.value.applies_to_tier_at_most.is_none_or(|least| tier >= least)
    };
    policy.humans.iter().filter(about).fold(known, |known, human| {
        let from = format!("{}, since no scan confirmed Human", human.from);
        known.max(Sourced::new(human.value.unverified_human_as, from))
    })
}

/// The last run of the workload that failed, of those that are remembered.
pub fn last_failed(history: &[RunRecord]) -> Option<&RunRecord> {
    let failed = |run: &&RunRecord| {
        matches!(run.outcome, Outcome::Rejected | Outcome::Reverted) && run.reason != BY_A_PERSON
    };
    history.iter().find(failed)
}

fn last_failure(history: &[RunRecord], now: Timestamp) -> Sourced<LastFailure> {
    match last_failed(history) {
        Some(run) => {
            let seconds = now.duration_since(run.ended_at).as_secs();
            Sourced::new(LastFailure::of(Some(seconds)), format!("run {} ({})", run.id, run.reason))
        }
        None => Sourced::new(LastFailure::of(None), "no failed run is remembered"),
    }
}

/// Which changes a floor is about.
fn words(floor: &Floor) -> String {
    let when = &floor.when;
    let parts: Vec<String> = [
        when.provenance_at_least.map(|level| format!("provenance {} or riskier", level.name())),
        when.tier_at_most.map(|level| format!("{} or more critical", level.name())),
        when.blast_radius_at_least.map(|level| format!("blast radius {} or larger", level.name())),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { "every change".to_owned() } else { parts.join(", ") }
}
