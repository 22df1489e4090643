//! A class table of one's own: rows as people write them, checked, and turned into the rows that the statistics play.
//!
//! A row replaces the built-in one of its class; a column that it leaves out keeps its built-in value. The shape is
//! that of the chart's `classes` with the columns besides that only the statistics have.

use serde::Deserialize;

use super::{row, schedule_problem};
use crate::api::{RiskClass, StepSpec};
use crate::config::Config;
use crate::statistics::Tolerance;
use crate::statistics::rows::{Row, built_in};

/// Parts per million.
const PPM: f64 = 1e-6;
/// Ten times stable's rate: whoever tolerates more judges nothing.
const MOST_RELATIVE: i64 = 10_000_000;
/// All requests.
const ALL: i64 = 1_000_000;
/// A tenth. A score of 1 stops the canary, so the rows together have to stay far below.
const MOST_CAPITAL: i64 = 100_000;
/// An even chance. A gate that errs more often is a coin.
const MOST_GATE_ERROR: i64 = 500_000;
/// A week.
const MOST_SECONDS: i64 = 604_800;
/// What `minSamples` of the chart's table can hold.
const MOST_SAMPLES: i64 = i32::MAX as i64;

/// Rows that replace built-in ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    /// The rows, in any order.
    pub classes: Vec<OwnRow>,
}

/// One row. What is left out keeps its built-in value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnRow {
    /// The class.
    pub name: RiskClass,
    /// What is tolerated before it counts against the canary.
    pub tolerance_ppm: Option<Ppm>,
    /// Share of the false-abort budget that the row adds.
    pub capital_ppm: Option<i64>,
    /// What promotion has to rule out.
    pub margin_ppm: Option<Ppm>,
    /// Steps, weights rising to 100.
    pub steps: Option<Vec<Step>>,
    /// Probability, per step, that the gate opens for a canary at or beyond the margin.
    pub gate_error_ppm: Option<i64>,
    /// Canary requests that promotion to all of the traffic needs.
    pub min_samples: Option<i64>,
    /// Without fresh data for this long, traffic returns to stable. A trace has no such deadline.
    pub no_data_seconds: Option<i64>,
}

/// A rise of a bad ratio in parts per million: `relative x stable + absolute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ppm {
    /// Relative to stable's ratio.
    pub relative: i64,
    /// On top, of all requests.
    pub absolute: i64,
}

/// A step. The API's own type takes unknown fields, which would hide a typing error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// Percent of the traffic.
    pub weight_percent: i32,
    /// Healthy time at this weight, in seconds.
    pub bake_seconds: i32,
}

impl Table {
    /// All five rows, loosest first.
    ///
    /// # Errors
    /// Everything that is wrong: the field, its value, and what to write.
    pub fn rows(&self) -> Result<Vec<Row>, Vec<String>> {
        let mut problems = Vec::new();
        for (at, own) in self.classes.iter().enumerate() {
            let name = own.name.as_str();
            if self.classes[..at].iter().any(|other| other.name == own.name) {
                problems.push(format!("classes[{name}]: there are two rows of this class: write one"));
            }
            problems.extend(own.problems().into_iter().map(|problem| format!("classes[{name}].{problem}")));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let rows: Vec<Row> = RiskClass::ALL
            .into_iter()
            .map(|class| match self.classes.iter().find(|own| own.name == class) {
                Some(own) => own.row(),
                None => built_in(class),
            })
            .collect();
        let looser: Vec<String> = rows.windows(2).flat_map(|pair| looser(&pair[0], &pair[1])).collect();
        if looser.is_empty() { Ok(rows) } else { Err(looser) }
    }

    /// Weights of a class's steps in percent, rising to 100.
    pub fn weights(&self, class: RiskClass) -> Vec<i32> {
        let own = self.classes.iter().find(|own| own.name == class).and_then(|own| own.steps.as_deref());
        match own {
            Some(steps) => steps.iter().map(|step| step.weight_percent).collect(),
            None => {
                let row = row(&Config::default(), class);
                row.steps.iter().map(|step| step.weight_percent).collect()
            }
        }
    }
}

impl OwnRow {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut within = |field: &str, value: Option<i64>, least: i64, most: i64| {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                problems.push(format!("{field}: {value}: write {least} to {most}"));
            }
        };
        for (field, ppm) in [("tolerancePpm", self.tolerance_ppm), ("marginPpm", self.margin_ppm)] {
            within(&format!("{field}.relative"), ppm.map(|ppm| ppm.relative), 0, MOST_RELATIVE);
            within(&format!("{field}.absolute"), ppm.map(|ppm| ppm.absolute), 0, ALL);
        }
        within("capitalPpm", self.capital_ppm, 1, MOST_CAPITAL);
        within("gateErrorPpm", self.gate_error_ppm, 1, MOST_GATE_ERROR);
        within("minSamples", self.min_samples, 1, MOST_SAMPLES);
        within("noDataSeconds", self.no_data_seconds, 1, MOST_SECONDS);
        if let Some(Ppm { relative: 0, absolute: 0 }) = self.margin_ppm {
            problems.push(
                "marginPpm: 0 and 0: no number of requests proves that nothing is worse: write one above 0"
                    .to_owned(),
            );
        }
        if let Some(steps) = &self.steps {
            let specs: Vec<StepSpec> = steps
                .iter()
                .map(|step| StepSpec { weight_percent: step.weight_percent, bake_seconds: step.bake_seconds })
                .collect();
            let one =
                (steps.len() == 1).then_some("one step of weight 100 tries nothing: write one below 100");
            let problem = schedule_problem(&specs).or_else(|| one.map(str::to_owned));
            problems.extend(problem.map(|problem| format!("steps: {problem}")));
        }
        problems
    }

    fn row(&self) -> Row {
        let mut row = built_in(self.name);
        let tolerance =
            |ppm: Ppm| Tolerance { relative: ppm.relative as f64 * PPM, absolute: ppm.absolute as f64 * PPM };
        if let Some(ppm) = self.tolerance_ppm {
            row.tolerance = tolerance(ppm);
        }
        if let Some(ppm) = self.margin_ppm {
            row.margin = tolerance(ppm);
        }
        if let Some(ppm) = self.capital_ppm {
            row.capital = ppm as f64 * PPM;
        }
        if let Some(ppm) = self.gate_error_ppm {
            row.beta = ppm as f64 * PPM;
        }
        if let Some(requests) = self.min_samples {
            row.min_requests = requests as f64;
        }
        if let Some(steps) = &self.steps {
            let seconds = |below: bool| -> f64 {
                let of = steps.iter().filter(|step| (step.weight_percent < 100) == below);
                of.map(|step| f64::from(step.bake_seconds)).sum()
            };
            row.steps = steps.iter().filter(|step| step.weight_percent < 100).count() as u32;
            row.planned_seconds = seconds(true);
            row.last_bake_seconds = seconds(false);
        }
        row
    }
}

/// Where the tighter row is looser than the one before it: no class may be a way around another one.
fn looser(loose: &Row, tight: &Row) -> Vec<String> {
    let ppm = |fraction: f64| (fraction / PPM).round() as i64;
    let columns = [
        ("tolerancePpm.relative", ppm(loose.tolerance.relative), ppm(tight.tolerance.relative), true),
        ("tolerancePpm.absolute", ppm(loose.tolerance.absolute), ppm(tight.tolerance.absolute), true),
        ("marginPpm.relative", ppm(loose.margin.relative), ppm(tight.margin.relative), true),
        ("marginPpm.absolute", ppm(loose.margin.absolute), ppm(tight.margin.absolute), true),
        ("gateErrorPpm", ppm(loose.beta), ppm(tight.beta), true),
        ("minSamples", loose.min_requests as i64, tight.min_requests as i64, false),
    ];
    let (above, name) = (loose.class.as_str(), tight.class.as_str());
    let problem = |(field, limit, value, falls): (&str, i64, i64, bool)| {
        let wrong = if falls { value > limit } else { value < limit };
        let (than, bound) = if falls { ("more", "at most") } else { ("less", "at least") };
        wrong.then(|| {
            format!(
                "classes[{name}].{field}: {value} is {than} than the {limit} of {above}, and a riskier class may not \
                 be judged more loosely: write {bound} {limit}, or change {above} too"
            )
        })
    };
    columns.into_iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::rows::chain;
    use serde_json::json;

    fn table(rows: serde_json::Value) -> Table {
        serde_json::from_value(json!({ "classes": rows })).unwrap()
    }

    fn problems(rows: serde_json::Value) -> Vec<String> {
        table(rows).rows().unwrap_err()
    }

    #[test]
    fn an_empty_table_is_the_built_in_one_and_its_steps_are_those_of_the_classes() {
        assert_eq!(Table::default().rows(), Ok(chain(RiskClass::R4)));
        for class in RiskClass::ALL {
            let steps = row(&Config::default(), class).steps;
            let steps =
                steps.iter().map(|s| Step { weight_percent: s.weight_percent, bake_seconds: s.bake_seconds });
            let own = OwnRow {
                steps: Some(steps.collect()),
                ..serde_json::from_value(json!({ "name": class })).unwrap()
            };
            assert_eq!(own.row(), built_in(class));
        }
        assert_eq!(Table::default().weights(RiskClass::R2), [2, 10, 33, 66, 100]);
    }

    #[test]
    fn every_column_replaces_its_own_only() {
        let rows = table(json!([{
            "name": "R2", "tolerancePpm": { "relative": 120_000, "absolute": 150 }, "capitalPpm": 3000,
            "marginPpm": { "relative": 300_000, "absolute": 900 }, "gateErrorPpm": 30_000, "minSamples": 4000,
            "noDataSeconds": 60,
            "steps": [{ "weightPercent": 5, "bakeSeconds": 600 }, { "weightPercent": 100, "bakeSeconds": 1800 }],
        }]))
        .rows()
        .unwrap();
        let row = &rows[2];
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(row.tolerance.relative, 0.12) && near(row.tolerance.absolute, 1.5e-4), "{row:?}");
        assert!(near(row.margin.relative, 0.3) && near(row.margin.absolute, 9e-4), "{row:?}");
        assert!(near(row.capital, 0.003) && near(row.beta, 0.03) && near(row.min_requests, 4000.0));
        assert_eq!((row.steps, row.planned_seconds, row.last_bake_seconds), (1, 600.0, 1800.0));
        let rows = table(json!([{ "name": "R1", "minSamples": 700 }])).rows().unwrap();
        assert_eq!(rows[1], Row { min_requests: 700.0, ..built_in(RiskClass::R1) });
    }

    #[test]
    fn values_out_of_range_are_all_named() {
        assert_eq!(
            problems(json!([
                { "name": "R1", "tolerancePpm": { "relative": -1, "absolute": 2_000_000 }, "capitalPpm": 0 },
                { "name": "R1", "marginPpm": { "relative": 0, "absolute": 0 }, "gateErrorPpm": 600_000 },
                { "name": "R3", "steps": [{ "weightPercent": 5, "bakeSeconds": 1 }], "minSamples": 0 },
                { "name": "R4", "steps": [{ "weightPercent": 100, "bakeSeconds": 1 }] },
            ])),
            [
                "classes[R1].tolerancePpm.relative: -1: write 0 to 10000000",
                "classes[R1].tolerancePpm.absolute: 2000000: write 0 to 1000000",
                "classes[R1].capitalPpm: 0: write 1 to 100000",
                "classes[R1]: there are two rows of this class: write one",
                "classes[R1].gateErrorPpm: 600000: write 1 to 500000",
                "classes[R1].marginPpm: 0 and 0: no number of requests proves that nothing is worse: write one above 0",
                "classes[R3].minSamples: 0: write 1 to 2147483647",
                "classes[R3].steps: the last step has weightPercent 5; it must be 100",
                "classes[R4].steps: one step of weight 100 tries nothing: write one below 100",
            ]
        );
    }

    #[test]
    fn a_table_that_loosens_with_risk_is_refused_in_every_column() {
        let found = problems(json!([{
            "name": "R3", "tolerancePpm": { "relative": 160_000, "absolute": 300 },
            "marginPpm": { "relative": 500_001, "absolute": 1501 }, "gateErrorPpm": 60_000, "minSamples": 1999,
        }]));
        assert_eq!(found.len(), 6, "{found:#?}");
        assert_eq!(
            found[2],
            "classes[R3].marginPpm.relative: 500001 is more than the 500000 of R2, and a riskier class may not be \
             judged more loosely: write at most 500000, or change R2 too"
        );
        assert!(found[5].contains("minSamples: 1999 is less than the 2000 of R2"), "{}", found[5]);
    }

    #[test]
    fn unknown_fields_are_refused_on_every_level() {
        for text in [
            r#"{"classes":[],"more":1}"#,
            r#"{"classes":[{"name":"R1","capital":1}]}"#,
            r#"{"classes":[{"name":"R1","marginPpm":{"relative":1,"absolute":1,"x":1}}]}"#,
            r#"{"classes":[{"name":"R1","steps":[{"weightPercent":1,"bakeSeconds":1,"x":1}]}]}"#,
        ] {
            let problem = serde_json::from_str::<Table>(text).unwrap_err().to_string();
            assert!(problem.starts_with("unknown field"), "{problem}");
        }
    }
}
