//! Tables for people, JSON for programs, and the verdict.

use serde_json::{Value, json};

use super::cost::{Cost, HarmCost, PlanCost};
use super::interval::Share;
use super::judges::CLASSES;
use super::rollout::{Ending, Played, Rollout, planned};
use super::run::Decided;
use super::scenario::{Result, Scenario};

/// Upper 95 % limit of false aborts that any scenario of a good canary may have.
pub const EACH: f64 = 0.02;
/// The same of all of them together.
pub const TOGETHER: f64 = 0.005;
/// Least share of bad rollouts whose harm is within the bound that was planned for them.
pub const WITHIN: f64 = 0.95;
/// Classes that the limits are for: R4 states twice the bound.
const BOUND: usize = 4;

/// What was found, and what promises were broken.
#[derive(Debug, Default)]
pub struct Report {
    scenarios: Vec<Value>,
    rollouts: Vec<Value>,
    costs: Vec<Value>,
    /// False aborts of all covered scenarios, by class R0 to R3.
    together: [Share; BOUND],
    good_rollouts: Share,
    /// Bad rollouts whose harm was at most what was planned.
    bound: Share,
    broken: Vec<String>,
}

impl Report {
    /// Takes in a scenario at a fixed share; its lines for the table.
    pub fn scenario(&mut self, scenario: &Scenario, results: &[Result], runs: &[Decided]) -> String {
        let lines: Vec<String> = results.iter().map(line).collect();
        if scenario.covered {
            for (class, result) in results.iter().take(BOUND).enumerate() {
                self.together[class] = self.together[class].plus(result.pooled);
                self.limit(&scenario.name, &result.judge, result.false_aborts, EACH);
            }
        }
        let by_outage = Share::count(runs.iter().map(|run| run.by_outage));
        if by_outage.of > 0 {
            let Share { of, runs } = by_outage;
            self.broken.push(format!("{}: the outage decided in {of} of {runs}", scenario.name));
        }
        self.scenarios.push(json!({
            "table": scenario.kind.title(),
            "name": scenario.name,
            "runs": scenario.runs,
            "covered": scenario.covered,
            "decidedByOutage": by_outage.of,
            "published": scenario.published,
            "judges": results.iter().map(result).collect::<Vec<_>>(),
        }));
        head(&scenario.name, scenario.runs, scenario.published) + &lines.concat()
    }

    /// Takes in a whole rollout; its line for the table.
    pub fn rollout(&mut self, rollout: &Rollout, played: &[Played]) -> String {
        let share = |ending| Share::count(played.iter().map(|run| run.ending == ending));
        let endings = [
            ("promoted", share(Ending::Promoted)),
            ("aborted", share(Ending::Aborted)),
            ("reverted", share(Ending::Reverted)),
            ("not proven", share(Ending::NotProven)),
            ("no data", share(Ending::NoData)),
        ];
        let mean =
            |of: &dyn Fn(&Played) -> f64| played.iter().map(of).sum::<f64>() / played.len().max(1) as f64;
        let (seconds, harm) = (mean(&|run| run.seconds), mean(&|run| run.harm));
        let plans = seconds / planned(rollout.class);
        let ungated = Share::count(played.iter().map(|run| run.ungated));
        let blind = Share::count(played.iter().map(|run| run.blind));
        if ungated.of > 0 {
            self.broken.push(format!(
                "{}: {} of {} rose without an open gate",
                rollout.name, ungated.of, ungated.runs
            ));
        }
        if blind.of > 0 {
            self.broken
                .push(format!("{}: {} of {} decided without data", rollout.name, blind.of, blind.runs));
        }
        let stopped =
            Share { of: share(Ending::Aborted).of + share(Ending::Reverted).of, runs: played.len() };
        if rollout.good && CLASSES[..BOUND].contains(&rollout.class.as_str()) {
            self.good_rollouts = self.good_rollouts.plus(stopped);
            self.limit(&rollout.name, "whole rollout", stopped, EACH);
        }
        let bound = Share::count(played.iter().map(|run| run.harm <= run.bound));
        if !rollout.good {
            self.bound = self.bound.plus(bound);
        }
        self.rollouts.push(json!({
            "bound": if rollout.good { Value::Null } else { json!(mean(&|run| run.bound)) },
            "withinBound": if rollout.good { Value::Null } else { interval(bound) },
            "name": rollout.name,
            "class": rollout.class.as_str(),
            "runs": rollout.runs,
            "published": rollout.published,
            "endings": endings.iter().map(|(name, share)| ((*name).to_owned(), interval(*share))).collect::<serde_json::Map<_, _>>(),
            "seconds": seconds,
            "planTimes": plans,
            "harm": harm,
            "withoutOpenGate": ungated.of,
            "decidedWithoutData": blind.of,
        }));
        let told = endings.iter().filter(|(_, share)| share.of > 0);
        let told: Vec<String> = told.map(|(name, share)| format!("{name} {:.3}", share.value())).collect();
        let published =
            if rollout.published.is_empty() { String::new() } else { format!("   [{}]", rollout.published) };
        let within = match rollout.good {
            true => String::new(),
            false => format!(", at most {:7.1} in {:.3}", mean(&|run| run.bound), bound.value()),
        };
        format!(
            "{:<46} {:<34} {plans:5.2} plans ({:5.1} h)  harm {harm:7.1}{within}{published}",
            rollout.name,
            told.join(", "),
            seconds / 3600.0
        )
    }

    /// Takes in what a plan costs; its line for the table.
    pub fn plan(&mut self, cost: &PlanCost) -> String {
        self.costs.push(cost.value());
        self.broken.extend(cost.problem());
        cost.line()
    }

    /// Takes in what the bound on harm of a plan costs; its line for the table.
    pub fn harm(&mut self, cost: &HarmCost) -> String {
        self.costs.push(cost.value());
        self.broken.extend(cost.problem());
        cost.line()
    }

    /// Takes in what a window costs; its line for the table.
    pub fn cost(&mut self, cost: &Cost) -> String {
        self.costs.push(cost.value());
        self.broken.extend(cost.problems());
        cost.line()
    }

    fn limit(&mut self, name: &str, judge: &str, share: Share, limit: f64) {
        let upper = share.interval().1;
        if upper > limit {
            self.broken.push(format!(
                "{name}, {judge}: {} of {} good canaries stopped, upper limit {:.2} % > {:.1} %",
                share.of,
                share.runs,
                upper * 100.0,
                limit * 100.0
            ));
        }
    }

    /// The verdict: lines for people, and what is written.
    pub fn close(mut self, seed: u64, seconds: f64) -> (Vec<String>, Value) {
        let mut lines = vec!["\nAll scenarios of good canaries together, 400 runs of each:".to_owned()];
        let together = self.together;
        for (name, share) in CLASSES.into_iter().zip(together).filter(|(_, share)| share.runs > 0) {
            lines.push(format!("  {name}   {}", percent(share)));
            self.limit("all together", name, share, TOGETHER);
        }
        if self.good_rollouts.runs > 0 {
            lines.push(format!("  whole rollouts   {}", percent(self.good_rollouts)));
            self.limit("all together", "whole rollouts", self.good_rollouts, TOGETHER);
        }
        if self.bound.runs > 0 {
            lines.push(format!(
                "  harm of bad rollouts within what was planned with 95 %   {}",
                percent(self.bound)
            ));
            if self.bound.value() < WITHIN {
                self.broken.push(format!("harm was beyond the plan: {}", percent(self.bound)));
            }
        }
        lines.push(match self.broken.is_empty() {
            true => "Every promise was kept.".to_owned(),
            false => format!("BROKEN:\n  {}", self.broken.join("\n  ")),
        });
        let report = json!({
            "seed": seed,
            "seconds": seconds,
            "intervals": "two-sided 95 %, Clopper-Pearson",
            "limits": { "each": EACH, "together": TOGETHER },
            "together": CLASSES.iter().zip(together).map(|(name, share)| ((*name).to_owned(), interval(share))).collect::<serde_json::Map<_, _>>(),
            "withinBound": interval(self.bound),
            "wholeRollouts": interval(self.good_rollouts),
            "scenarios": self.scenarios,
            "rollouts": self.rollouts,
            "costs": self.costs,
            "broken": self.broken,
        });
        (lines, report)
    }

    /// Whether a promise was broken.
    pub fn is_kept(report: &Value) -> bool {
        report["broken"].as_array().is_some_and(Vec::is_empty)
    }
}

fn head(name: &str, runs: usize, published: &str) -> String {
    let published = if published.is_empty() { String::new() } else { format!("   [{published}]") };
    format!("{name}, {runs} runs{published}")
}

fn line(result: &Result) -> String {
    let mut line = format!("\n    {:<26}", result.judge);
    match &result.found {
        None => line += &percent(result.false_aborts),
        Some(found) => {
            line += &format!(
                "missed {:.3}  after {:6.0} s  harm {:7.1}",
                found.missed.value(),
                found.delay,
                found.harm
            );
            if let Some((sprt, cusum)) = found.ratios {
                line += &format!("  {sprt:5.1} SPRT {cusum:5.1} CUSUM");
            }
            if result.false_aborts.of > 0 {
                line += &format!("  before the fault {}", percent(result.false_aborts));
            }
        }
    }
    line
}

fn percent(share: Share) -> String {
    let (low, high) = share.interval();
    format!(
        "{:6.2} %  ({} of {}, {:.2} to {:.2} %)",
        share.value() * 100.0,
        share.of,
        share.runs,
        low * 100.0,
        high * 100.0
    )
}

fn interval(share: Share) -> Value {
    let (low, high) = if share.runs > 0 { share.interval() } else { (0.0, 1.0) };
    json!({ "of": share.of, "runs": share.runs, "low": low, "high": high })
}

fn result(result: &Result) -> Value {
    let mut value = json!({ "judge": result.judge, "falseAborts": interval(result.false_aborts) });
    if let Some(found) = &result.found {
        value["missed"] = interval(found.missed);
        value["delaySeconds"] = json!(found.delay);
        value["harm"] = json!(found.harm);
        if let Some((sprt, cusum)) = found.ratios {
            value["ratioToSprt"] = json!(sprt);
            value["ratioToCusum"] = json!(cusum);
        }
    }
    value
}
