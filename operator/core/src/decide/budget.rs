//! The error budget of a held template: the level that counts, what status remembers of it, and the freeze while it is spent.

use jiff::Timestamp;

use crate::action::EventKind;
use crate::api::{ChangeKind, ErrorBudgetPolicy, ErrorBudgetStatus, OnExhausted};
use crate::policy::{Left, Sourced, error_budget, error_budget_named, percent};
use crate::risk::ErrorBudget;
use crate::verdict::{BUDGET_LOOK_SECONDS, BudgetLook};

use super::draft::Draft;
use super::start;

/// An answer counts for so many looks, and is waited for as long.
const LOOKS: i32 = 3;
/// Looks come no oftener than this, in seconds.
const LOOK_SECONDS: i32 = 10;
/// What is remembered and stays the same is written anew after this long, in seconds.
const REMEMBERED_SECONDS: i32 = 6 * 3600;
/// What was known by a policy that is gone is remembered for so long, in seconds, and of so many.
const FORGOTTEN_SECONDS: i32 = 7 * 86_400;
const MOST_GONE: usize = 8;
/// What a held revision waits for before its run starts.
const READING: &str = "ReadingErrorBudget";
const SPENT: &str = "ErrorBudgetSpent";

/// The level that a template which is held would start with.
pub(super) fn level(d: &Draft<'_>) -> Sourced<ErrorBudget> {
    let known: Vec<Sourced<Left>> = d
        .input
        .policy
        .error_budgets
        .iter()
        .map(|budget| Sourced::new(left(d, budget), &budget.from))
        .collect();
    error_budget(&known)
}

/// The level that a run began with: nobody looks while it is under way.
pub(super) fn kept(d: &Draft<'_>) -> Sourced<ErrorBudget> {
    let plan = d.status.plan.as_ref();
    let factor = plan.and_then(|plan| plan.factors.iter().find(|factor| factor.name == "errorBudget"));
    let named = factor.and_then(|factor| error_budget_named(&factor.level, &factor.source));
    named.unwrap_or_else(|| error_budget(&[]))
}

/// What is known of what is left by one policy's query.
fn left(d: &Draft<'_>, budget: &Sourced<ErrorBudgetPolicy>) -> Left {
    let look = look(d, budget);
    if let Some(ratio) = look.and_then(|look| fresh(d, look)) {
        return Left::Now(ratio);
    }
    let known = d.status.error_budgets.iter().find(|known| known.policy == budget.from);
    let trouble = look.and_then(|look| look.trouble.as_ref());
    Left::without_answer(known, trouble.map_or("it is read while a template waits to start", |(_, why)| why))
}

/// The newest look for a policy's query as it is now.
fn look<'a>(d: &Draft<'a>, budget: &Sourced<ErrorBudgetPolicy>) -> Option<&'a BudgetLook> {
    d.input.verdict.budgets.iter().find(|look| look.is_for(budget))
}

/// The answer of a look, as long as it counts.
fn fresh(d: &Draft<'_>, look: &BudgetLook) -> Option<f64> {
    let interval = d.input.config.evaluation_interval_seconds.max(BUDGET_LOOK_SECONDS);
    let (at, ratio) = look.answer?;
    (d.now < d.after(at, interval.saturating_mul(LOOKS))).then_some(ratio)
}

/// Until when an answer is waited for, as long as there is none that counts.
fn awaited(d: &Draft<'_>, budget: &Sourced<ErrorBudgetPolicy>) -> Option<Timestamp> {
    let seconds = d.input.config.evaluation_interval_seconds.max(LOOK_SECONDS).saturating_mul(LOOKS);
    let until = match look(d, budget) {
        Some(look) if fresh(d, look).is_some() => return None,
        Some(BudgetLook { trouble: Some((since, _)), .. }) => d.after(*since, seconds),
        // Nobody has looked lately. A process that has just begun does so soon.
        _ => d.after(d.waits_since(READING), seconds.saturating_mul(2)),
    };
    (d.now < until).then_some(until)
}

/// Whether the error budget keeps a new template from starting: nothing is left of it, or that is not known yet.
pub(super) fn spent(d: &mut Draft<'_>, kind: Option<ChangeKind>) -> bool {
    let policy = d.input.policy;
    let freezes = |budget: &&Sourced<ErrorBudgetPolicy>| {
        budget.value.on_exhausted == OnExhausted::Freeze
            && !kind.is_some_and(|kind| budget.value.exempt_kinds.contains(&kind))
    };
    let frozen: Vec<_> = policy.error_budgets.iter().filter(freezes).collect();
    let lacks = |now: bool| {
        frozen.iter().find_map(|budget| {
            let left = left(d, budget);
            (left.is_spent() && (!now || matches!(left, Left::Now(_)))).then_some((*budget, left))
        })
    };
    let awaited = policy.error_budgets.iter().find_map(|budget| Some((budget, awaited(d, budget)?)));
    let (reason, message, deadline) = match (lacks(true), awaited) {
        (None, Some((budget, until))) => {
            let trouble = look(d, budget).and_then(|look| look.trouble.as_ref());
            let why = trouble.map_or_else(String::new, |(_, why)| format!(": {why}"));
            let message = format!(
                "the error budget is read before the run starts ({}){why}; without an answer until {until:.0} it starts as if little were left",
                budget.from
            );
            (READING, message, Some(until))
        }
        (now, _) => match now.or_else(|| lacks(false)) {
            Some((budget, left)) => (SPENT, said(budget, &left), None),
            None => return false,
        },
    };
    match deadline {
        Some(_) => {
            d.wait(reason, message, deadline);
            start::not_by_alerts(d);
        }
        None => start::hold(d, EventKind::Warning, reason, message, None),
    }
    true
}

/// Why nothing starts while nothing is left, and what helps.
fn said(budget: &Sourced<ErrorBudgetPolicy>, left: &Left) -> String {
    let kinds: Vec<&str> = budget.value.exempt_kinds.iter().map(|kind| kind.as_str()).collect();
    let exempt = match kinds.is_empty() {
        true => String::new(),
        false => format!(", with a spec.change of kind {} that describes the template", kinds.join(" or ")),
    };
    format!(
        "{}: of the error budget {}. A new template starts once some is left again{exempt}, or when spec.errorBudget.onExhausted of the \
         policy is Ignore; a return to a recorded good revision starts at once",
        budget.from,
        left.words()
    )
}

/// Remembers what was answered, for a time without answers. What stays the same is not written again.
pub(super) fn remember(d: &mut Draft<'_>) {
    let policy = d.input.policy;
    if policy.trouble.is_some() {
        return;
    }
    let remembered = |budget: &Sourced<ErrorBudgetPolicy>| {
        let known = d.status.error_budgets.iter().find(|known| known.policy == budget.from);
        let Some(ratio) = look(d, budget).and_then(|look| fresh(d, look)) else {
            return known.cloned();
        };
        let remaining_percent = percent(ratio);
        let stays = |known: &&ErrorBudgetStatus| {
            known.remaining_percent == remaining_percent && d.now < d.after(known.seen_at, REMEMBERED_SECONDS)
        };
        Some(known.filter(stays).cloned().unwrap_or_else(|| ErrorBudgetStatus {
            policy: budget.from.clone(),
            remaining_percent,
            seen_at: d.now,
        }))
    };
    let gone = |known: &&ErrorBudgetStatus| {
        // An object that is made anew has not lost what was known by it.
        policy.error_budgets.iter().all(|budget| budget.from != known.policy)
            && d.now < d.after(known.seen_at, FORGOTTEN_SECONDS)
    };
    let gone = d.status.error_budgets.iter().filter(gone).take(MOST_GONE).cloned();
    d.status.error_budgets = policy.error_budgets.iter().filter_map(remembered).chain(gone).collect();
}
