//! A value of a person's own that should stay in a range: memory, a queue's depth, any PromQL.
//!
//! Such values follow their own past from one evaluation to the next. No p-value of theirs is valid, so there is no score,
//! and nothing bounds how often a good canary leaves the range. Rules:
//!
//! 1. It is judged while the weight is live. Ratios to stable are judged below weight 100 only.
//! 2. The first look outside the range holds. Outside at every look for `forSeconds`, and at 5 looks at least, trips; only
//!    with action Abort that ends the run, and it is never taken back.
//! 3. A look inside the range begins anew.
//! 4. A look without a usable value stops the clock: it neither counts nor resets, and holds as missing data of any guard
//!    does. Neither does time count in which nobody looked.

use super::counts::Trouble;
use super::report::{Evidence, Hold, HoldReason, Reason, severity};
use super::state::{DataState, StepKey, is_ahead, millis};
use crate::api::{Guard, GuardAction, MetricGuard, Quantity, Run, Stage};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Looks in a row outside the range without which no guard trips.
const LEAST_LOOKS: i32 = 5;

/// One evaluation of a person's query.
#[derive(Clone, Debug, PartialEq)]
pub struct GaugeLook {
    /// The time that was asked for.
    pub at: Timestamp,
    /// What the provider answered.
    pub answer: Result<GaugeValues, Trouble>,
}

/// The values of all series of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GaugeValues {
    /// Of the canary.
    pub canary: Vec<f64>,
    /// Of stable; empty unless the guard compares.
    pub stable: Vec<f64>,
}

/// What a guard on a value is judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct GaugePlan {
    /// Name of the guard.
    pub name: String,
    /// What it does when it trips.
    pub action: GuardAction,
    /// The range.
    pub metric: MetricGuard,
    /// The step; its window is when the weight was live.
    pub step: StepKey,
    /// How often the source is asked, in seconds.
    pub poll_seconds: i32,
}

impl GaugePlan {
    /// Of each such guard of a run.
    pub fn all(run: &Run, poll_seconds: i32) -> Vec<Self> {
        let judged = matches!(run.stage, Stage::Stepping | Stage::Promoting | Stage::Watching);
        let step = StepKey {
            index: run.step,
            weight_percent: run.weight.map_or(0, |weight| weight.percent),
            watch: run.stage == Stage::Watching,
            window_start: run.weight.and_then(|weight| weight.settled_at).filter(|_| judged),
        };
        let guards = run.plan.guards.iter();
        let plan = |guard: &Guard| {
            let (name, action) = (guard.name.clone(), guard.action);
            Some(Self { name, action, metric: guard.metric.clone()?, step, poll_seconds })
        };
        guards.filter_map(plan).collect()
    }

    /// Whether stable serves, so that there is something to compare with.
    fn compares(&self) -> bool {
        self.metric.compares() && !self.step.watch && self.step.weight_percent < 100
    }

    /// Whether the range says anything at this weight.
    fn says_anything(&self) -> bool {
        self.metric.min.is_some() || self.metric.max.is_some() || self.compares()
    }

    fn poll_millis(&self) -> i64 {
        i64::from(self.poll_seconds.max(1)).saturating_mul(1000)
    }

    /// The longest interval that still counts as one without a gap.
    fn gap_millis(&self) -> i64 {
        self.poll_millis().saturating_mul(5).max(60_000)
    }

    /// Why this answer can't be judged, or the two values.
    fn usable(&self, values: &GaugeValues) -> Result<(f64, Option<f64>), Trouble> {
        let canary = one(&values.canary, "the canary")?;
        if !self.compares() {
            return Ok((canary, None));
        }
        let stable = one(&values.stable, "stable")?;
        match canary < 0.0 || stable < 0.0 {
            true => Err(Trouble::new(
                DataState::NotANumber,
                format!(
                    "the canary's value is {} and stable's {}: a ratio needs values of at least 0",
                    short(canary),
                    short(stable)
                ),
            )),
            false => Ok((canary, Some(stable))),
        }
    }

    /// The limit that these values break, in words.
    fn broken(&self, canary: f64, stable: Option<f64>) -> Option<String> {
        let limit = |limit: &Option<Quantity>| {
            limit.as_ref().and_then(|limit| Some((limit.value()?, limit.text().to_owned())))
        };
        let (min, max) = (limit(&self.metric.min), limit(&self.metric.max));
        if let Some((_, max)) = max.filter(|(max, _)| canary > *max) {
            return Some(format!("canary {} is above max {max}", short(canary)));
        }
        if let Some((_, min)) = min.filter(|(min, _)| canary < *min) {
            return Some(format!("canary {} is below min {min}", short(canary)));
        }
        // Multiplied, not divided: stable may be 0.
        let stable = stable?;
        let (least, most) = (limit(&self.metric.min_ratio), limit(&self.metric.max_ratio));
        let words = |than, ratio| {
            format!("canary {} is {than} than {ratio} times stable's {}", short(canary), short(stable))
        };
        match (least, most) {
            (_, Some((most, text))) if canary > most * stable => Some(words("more", text)),
            (Some((least, text)), _) if canary < least * stable => Some(words("less", text)),
            _ => None,
        }
    }
}

/// The value of the only series.
fn one(values: &[f64], whose: &str) -> Result<f64, Trouble> {
    match values {
        [value] if value.is_finite() => Ok(*value),
        [value] => {
            Err(Trouble::new(DataState::NotANumber, format!("the value of {whose} is {value}: no number")))
        }
        [] => Err(Trouble::new(
            DataState::NoData,
            format!("the query yields no series for {whose}: check its metric names and conditions"),
        )),
        _ => Err(Trouble::new(
            DataState::MultipleSeries,
            format!(
                "the query yields {} series for {whose} where one is expected: aggregate them, as with max(...)",
                values.len()
            ),
        )),
    }
}

/// What is remembered of a guard on a value in one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GaugeState {
    /// Name of the guard.
    pub name: String,
    /// What is known about its data.
    #[serde(default)]
    pub data: DataState,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_since: Option<Timestamp>,
    /// The trouble with the data, for people; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data_message: String,
    /// Time of the last look that was taken in, good or not: it is not taken in twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Milliseconds without a usable value; reset by three good looks in a row.
    #[serde(default)]
    pub no_data_millis: i64,
    /// Good looks in a row, at most 3.
    #[serde(default)]
    pub good_looks: i32,
    /// The step in force at the last usable look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepKey>,
    /// Milliseconds in range since the step began.
    #[serde(default)]
    pub healthy_millis: i64,
    /// The canary's value at the last usable look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<f64>,
    /// Stable's value then, if it was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<f64>,
    /// The value is out of range, since this look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Outside>,
    /// The guard tripped; never taken back in this run.
    #[serde(default)]
    pub tripped: bool,
}

/// A value out of range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// The first look that showed it.
    pub since: Timestamp,
    /// Looks that showed it, in a row.
    pub looks: i32,
    /// Milliseconds between such looks.
    pub millis: i64,
    /// Which limit is broken, in words.
    pub what: String,
}

/// Takes in one look. One that is not newer than the last one changes nothing.
pub fn observe_gauge(state: &mut GaugeState, look: &GaugeLook, plan: &GaugePlan, now: Timestamp) {
    let at = look.at.min(now);
    // Waiting for the time of a clock that was ahead would leave a canary unwatched.
    if state.last_seen.is_some_and(|seen| at <= seen && !is_ahead(seen, now)) {
        return;
    }
    let seen = state.last_seen.replace(at).filter(|seen| !is_ahead(*seen, now));
    let elapsed = seen.map_or(0, |seen| millis(seen, at).max(0));
    let live = plan.step.window_start.is_some();
    let usable = look.answer.as_ref().map_err(Trouble::clone).and_then(|values| plan.usable(values));
    let values = match usable {
        Ok((canary, stable)) => Some((canary, stable)),
        // Before the canary has traffic it may well have no value yet; a query that is refused is one in any case.
        Err(trouble)
            if !(plan.says_anything() && live)
                && matches!(trouble.state, DataState::NoData | DataState::NotANumber) =>
        {
            None
        }
        Err(trouble) => {
            let kind = if trouble.state == DataState::Ok { DataState::QueryError } else { trouble.state };
            set_data(state, kind, trouble.message, at);
            state.good_looks = 0;
            state.no_data_millis = state.no_data_millis.saturating_add(elapsed.min(plan.gap_millis()));
            return;
        }
    };
    // What is between two usable looks of one step is known; what a longer pause hid is not.
    let went_on = state.data == DataState::Ok && state.step.is_some();
    let counted = if went_on { elapsed.min(plan.poll_millis().saturating_mul(2)) } else { 0 };
    set_data(state, DataState::Ok, String::new(), at);
    state.good_looks = state.good_looks.saturating_add(1).min(3);
    if state.good_looks >= 3 {
        state.no_data_millis = 0;
    }
    (state.canary, state.stable) = values.map_or((None, None), |(canary, stable)| (Some(canary), stable));
    if !live {
        state.step = None;
        return;
    }
    let same = state.step.replace(plan.step).is_some_and(|step| step.same(&plan.step));
    if !same {
        state.healthy_millis = 0;
    }
    let Some(what) = values.and_then(|(canary, stable)| plan.broken(canary, stable)) else {
        state.outside = None;
        state.healthy_millis = state.healthy_millis.saturating_add(if same { counted } else { 0 });
        return;
    };
    let mut outside = match state.outside.take() {
        Some(before) => Outside { millis: before.millis.saturating_add(counted), ..before },
        None => Outside { since: at, looks: 0, millis: 0, what: String::new() },
    };
    outside.looks = outside.looks.saturating_add(1);
    outside.what = what;
    let long_enough = outside.millis >= i64::from(plan.metric.for_seconds.max(0)).saturating_mul(1000);
    // Only an abort is never taken back: a guard that holds is clear again when its value is in range.
    state.tripped |= plan.action == GuardAction::Abort && outside.looks >= LEAST_LOOKS && long_enough;
    state.outside = Some(outside);
}

fn set_data(state: &mut GaugeState, data: DataState, message: String, at: Timestamp) {
    if state.data != data || state.data_since.is_none() {
        state.data = data;
        state.data_since = Some(at);
    }
    state.data_message = message;
}

/// A guard's view of its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GaugeReport {
    /// Name of the guard.
    pub name: String,
    /// What it does when it trips.
    pub action: GuardAction,
    /// `InRange`, `OutOfRange`, or the trouble with its data.
    pub state: &'static str,
    /// The run has to be aborted.
    pub abort: bool,
    /// What closes the gate.
    pub hold: Option<Hold>,
    /// Time in range since the step's window began, in seconds.
    pub healthy_seconds: f64,
    /// Time without a usable value, in seconds; three good looks in a row reset it.
    pub no_data_seconds: i64,
    /// A sentence for people, with the numbers.
    pub message: String,
}

/// The guard's view at `now`. Without a recent look it is `Stale`, whatever the last one said.
pub fn report_gauge(state: &GaugeState, plan: &GaugePlan, now: Timestamp) -> GaugeReport {
    let name = &plan.name;
    let hold = |reason, message| Some(Hold { guard: name.clone(), reason, message });
    let trouble = trouble(state, plan, now);
    let here = state.step.is_some_and(|step| step.same(&plan.step));
    let outside = state.outside.as_ref().map(|outside| {
        let limit = match plan.action {
            GuardAction::Abort => format!(", aborts after {} s", plan.metric.for_seconds.max(0)),
            _ => String::new(),
        };
        let (what, since) = (&outside.what, outside.since);
        format!("{name}: {what}, at every evaluation since {since:.0}{limit}")
    });
    let hold = match (&trouble, &outside) {
        _ if state.tripped => {
            let what = outside.clone().unwrap_or_else(|| format!("{name}: was out of range for too long"));
            hold(HoldReason::GuardTripped, what)
        }
        (Some((_, words)), _) => hold(HoldReason::NoData, format!("{name}: {words}")),
        (None, Some(what)) => hold(HoldReason::GaugeOutOfRange, what.clone()),
        (None, None) if plan.step.window_start.is_some() && !here => hold(
            HoldReason::NotEnoughEvidence,
            format!("{name}: waits for the first evaluation at this weight"),
        ),
        (None, None) => None,
    };
    let unseen = state.last_seen.map_or(0, |seen| millis(seen, now).clamp(0, plan.gap_millis()));
    let more = if trouble.is_some() { unseen } else { 0 };
    let state_word = match (&trouble, state.tripped || outside.is_some()) {
        (Some((data, _)), _) => data.as_str(),
        (None, true) => "OutOfRange",
        (None, false) => "InRange",
    };
    let message = match &hold {
        Some(hold) if hold.reason != HoldReason::NotEnoughEvidence => hold.message.clone(),
        _ => format!("{name}: {}", values(state, plan)),
    };
    GaugeReport {
        name: name.clone(),
        action: plan.action,
        state: state_word,
        abort: state.tripped && plan.action == GuardAction::Abort,
        hold,
        healthy_seconds: if here { state.healthy_millis as f64 / 1000.0 } else { 0.0 },
        no_data_seconds: state.no_data_millis.saturating_add(more) / 1000,
        message: format!("{message}; not quantified: it has no score"),
    }
}

/// The trouble with the data, in words that name a time and not an age: status stays as it is while nothing changes.
fn trouble(state: &GaugeState, plan: &GaugePlan, now: Timestamp) -> Option<(DataState, String)> {
    let Some(seen) = state.last_seen else {
        return Some((DataState::NoData, "the query was not asked yet".to_owned()));
    };
    if state.data != DataState::Ok {
        let since = state.data_since.unwrap_or(seen);
        return Some((state.data, format!("{} (since {since:.0})", state.data_message)));
    }
    // Three intervals, and five seconds for a pass of the controller.
    let stale = millis(seen, now) > plan.poll_millis().saturating_mul(3).saturating_add(5000);
    stale.then(|| (DataState::Stale, format!("not evaluated since {seen:.0}")))
}

fn values(state: &GaugeState, plan: &GaugePlan) -> String {
    match (state.canary, state.stable) {
        _ if !plan.says_anything() => {
            "a ratio is not judged at weight 100, where stable no longer serves".to_owned()
        }
        (Some(canary), Some(stable)) => format!("canary {}, stable {}", short(canary), short(stable)),
        (Some(canary), None) => format!("canary {}", short(canary)),
        (None, _) => "no value of the canary yet".to_owned(),
    }
}

/// What guards on values add to what the others say together. Guards that only observe decide nothing.
pub fn with_gauges(mut evidence: Evidence, gauges: &[GaugeReport]) -> Evidence {
    let required = || gauges.iter().filter(|gauge| gauge.action != GuardAction::Observe);
    if let (None, Some(gauge)) = (&evidence.abort, required().find(|gauge| gauge.abort)) {
        let (guard, message) = (gauge.name.clone(), gauge.message.clone());
        evidence.abort = Some(Reason { guard, alert: false, message });
    }
    evidence.holds.extend(required().filter_map(|gauge| gauge.hold.clone()));
    evidence.holds.sort_by_key(|hold| severity(hold.reason));
    evidence.gate_open = evidence.holds.is_empty();
    for gauge in required() {
        evidence.healthy_seconds = evidence.healthy_seconds.min(gauge.healthy_seconds);
        evidence.no_data_seconds = evidence.no_data_seconds.max(gauge.no_data_seconds);
    }
    evidence
}

/// Four significant digits.
fn short(value: f64) -> String {
    let size = value.abs();
    if value != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{value:.3e}");
    }
    let digits = if size == 0.0 { 0 } else { (3 - size.log10().floor() as i32).clamp(0, 8) };
    let text = format!("{value:.*}", usize::try_from(digits).unwrap_or(0));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}
