//! A plan for programs.

use serde_json::{Value, json};
use sluice_core::forecast::{Forecast, GuardForecast};
use sluice_core::statistics::planner::{self, Need};

use super::{About, Planned};
use crate::cmd::API_VERSION;

/// The document. Rates are fractions of 1, times seconds; what can't be reached is null.
pub fn of(planned: &Planned) -> Value {
    let plan = &planned.plan;
    json!({
        "apiVersion": API_VERSION,
        "kind": "Plan",
        "name": planned.name,
        "namespace": planned.namespace,
        "change": match planned.about { About::Run => "Run", About::Held => "Held", About::Next => "Next", About::Manifest => "Manifest" },
        "riskClass": plan.risk_class,
        "leastClass": planned.least,
        "declared": planned.declared,
        "points": planned.why.points,
        "factors": planned.why.factors,
        "limitSources": planned.why.limit_sources,
        "steps": plan.steps,
        "provenance": plan.provenance,
        "commit": planned.commit,
        "digest": plan.digest,
        "tooLow": planned.too_low().next().is_some(),
        "freezes": super::freeze::document(&planned.frozen),
        "cautions": planned.cautions,
        "guards": planned.forecasts.iter().map(|forecast| guard(planned, forecast)).collect::<Vec<_>>(),
    })
}

fn guard(planned: &Planned, forecast: &Forecast) -> Value {
    match &forecast.outcome {
        Ok(found) => json!({
            "name": forecast.guard,
            "action": forecast.action,
            "data": "Ok",
            "stable": {
                "requests": found.record.requests,
                "failed": found.record.failed,
                "seconds": found.record.seconds,
                "burstFactor": found.record.burst_factor,
                "podFactor": found.record.widen,
            },
            "supposed": found.supposed,
            "steps": steps(planned, found),
            "excess": need(found.plan.harm),
            "excessAtMost": found.plan.never_more,
        }),
        Err((state, message)) => json!({
            "name": forecast.guard,
            "action": forecast.action,
            "data": state.as_str(),
            "message": message,
        }),
    }
}

fn steps(planned: &Planned, found: &GuardForecast) -> Vec<Value> {
    let steps = planned.plan.steps.iter().zip(&found.plan.steps);
    let step = |(step, forecast): (&sluice_core::api::StepSpec, &planner::Forecast)| {
        json!({
            "weightPercent": step.weight_percent,
            "bakeSeconds": step.bake_seconds,
            "requests": forecast.requests,
            "abortsFrom": forecast.smallest,
            "gateRequests": forecast.gate.map(need),
            "stretch": finite(forecast.stretch()),
            "tooLow": forecast.too_low(),
            "seconds": need(forecast.harm.seconds),
            "excess": need(forecast.harm.excess),
        })
    };
    steps.map(step).collect()
}

fn need(need: Need) -> Value {
    json!({ "mean": finite(need.mean), "p95": finite(need.p95) })
}

fn finite(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}
