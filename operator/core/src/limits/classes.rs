//! The class table: steps, bakes, tolerances and minima by risk class.

use crate::api::{EvidenceRow, RiskClass, StepSpec, TolerancePpm};
use crate::config::{ClassRow, Config};
use crate::statistics;

const MINUTE: i32 = 60;

/// The installation's row of a class: its own, or the built-in one. Every column has a value.
pub fn row(config: &Config, class: RiskClass) -> ClassRow {
    let built_in = built_in(class);
    let Some(row) = config.classes.iter().find(|row| row.name == class) else {
        return built_in;
    };
    ClassRow {
        margin_ppm: row.margin_ppm.or(built_in.margin_ppm),
        capital_ppm: row.capital_ppm.or(built_in.capital_ppm),
        gate_error_ppm: row.gate_error_ppm.or(built_in.gate_error_ppm),
        ..row.clone()
    }
}

/// The installation's table, loosest class first.
pub fn class_table(config: &Config) -> Vec<ClassRow> {
    RiskClass::ALL.into_iter().map(|class| row(config, class)).collect()
}

/// Built-in rows. A tighter class starts smaller, bakes longer, tolerates less and wants more requests.
fn built_in(class: RiskClass) -> ClassRow {
    let (weights, bakes, no_data): (&[i32], &[i32], i32) = match class {
        RiskClass::R0 => (&[10, 50, 100], &[5, 5, 15], 60),
        RiskClass::R1 => (&[5, 20, 50, 100], &[10, 10, 10, 30], 45),
        RiskClass::R2 => (&[2, 10, 33, 66, 100], &[20, 20, 20, 20, 60], 30),
        RiskClass::R3 => (&[1, 5, 20, 50, 75, 100], &[60, 30, 30, 30, 30, 120], 15),
        RiskClass::R4 => (&[1, 2, 5, 10, 25, 50, 75, 100], &[60, 60, 720, 120, 120, 120, 120, 240], 5),
    };
    let row = statistics::rows::built_in(class);
    ClassRow {
        name: class,
        steps: weights
            .iter()
            .zip(bakes)
            .map(|(weight, bake)| StepSpec { weight_percent: *weight, bake_seconds: bake * MINUTE })
            .collect(),
        tolerance_ppm: tolerance_ppm(row.tolerance),
        margin_ppm: Some(tolerance_ppm(row.margin)),
        capital_ppm: Some(ppm(row.capital)),
        gate_error_ppm: Some(ppm(row.beta)),
        min_samples: row.min_requests.round() as i32,
        no_data_seconds: no_data * MINUTE,
    }
}

fn ppm(fraction: f64) -> i32 {
    (fraction * 1e6).round() as i32
}

fn tolerance_ppm(tolerance: statistics::Tolerance) -> TolerancePpm {
    TolerancePpm { relative: ppm(tolerance.relative), absolute: ppm(tolerance.absolute) }
}

/// The rows of a table that a class plays, loosest first.
pub fn evidence_rows<'a>(
    table: impl IntoIterator<Item = &'a ClassRow>,
    class: RiskClass,
) -> Vec<EvidenceRow> {
    table.into_iter().filter(|row| row.name <= class).map(evidence_row).collect()
}

fn evidence_row(row: &ClassRow) -> EvidenceRow {
    let built_in = statistics::rows::built_in(row.name);
    let below: Vec<i32> =
        row.steps.iter().filter(|step| step.weight_percent < 100).map(|step| step.bake_seconds).collect();
    let planned = below.iter().fold(0_i32, |sum, bake| sum.saturating_add(*bake));
    EvidenceRow {
        class: row.name,
        tolerance_ppm: row.tolerance_ppm,
        margin_ppm: row.margin_ppm.unwrap_or_else(|| tolerance_ppm(built_in.margin)),
        capital_ppm: row.capital_ppm.unwrap_or_else(|| ppm(built_in.capital)),
        gate_error_ppm: row.gate_error_ppm.unwrap_or_else(|| ppm(built_in.beta)),
        min_samples: row.min_samples,
        steps: i32::try_from(below.len()).unwrap_or(i32::MAX),
        planned_seconds: planned,
        last_bake_seconds: row.steps.last().map_or(0, |step| step.bake_seconds),
    }
}

/// What is wrong with the installation's class table, in words.
pub fn table_problem(config: &Config) -> Option<String> {
    for row in &config.classes {
        let name = row.name.as_str();
        if let Some(problem) = super::schedule::problem(&row.steps) {
            return Some(format!("classes[{name}].steps: {problem}"));
        }
        if row.tolerance_ppm.relative < 0
            || row.tolerance_ppm.absolute < 0
            || row.min_samples < 1
            || row.no_data_seconds < 1
        {
            return Some(format!(
                "classes[{name}]: tolerancePpm may not be negative, minSamples and noDataSeconds must be at least 1"
            ));
        }
    }
    order_problem(&class_table(config))
}

/// What is wrong with a whole table, loosest class first, from the field on: a column that no evidence can be weighed by, or
/// a riskier class that is looser in anything.
pub fn order_problem(table: &[ClassRow]) -> Option<String> {
    for row in evidence_rows(table, RiskClass::R4) {
        let name = row.class.as_str();
        if row.margin_ppm.relative < 0 || row.margin_ppm.absolute < 1 {
            return Some(format!(
                "classes[{name}].marginPpm: relative may not be negative, absolute must be at least 1"
            ));
        }
        for (field, ppm) in [("capitalPpm", row.capital_ppm), ("gateErrorPpm", row.gate_error_ppm)] {
            if !(1..=200_000).contains(&ppm) {
                return Some(format!("classes[{name}].{field}: {ppm}: 1 to 200000 (20 %)"));
            }
        }
    }
    table.windows(2).find_map(|pair| {
        let (looser, tighter) = (&pair[0], &pair[1]);
        let names =
            format!("classes[{}] is looser than classes[{}]", tighter.name.as_str(), looser.name.as_str());
        let than = |field: &str, may_not: &str, was: i32, is: i32| {
            let (loose, tight) = (looser.name.as_str(), tighter.name.as_str());
            format!("{names} in {field}: a riskier class may not {may_not} ({loose} has {was}, {tight} {is})")
        };
        if tighter.tolerance_ppm.relative > looser.tolerance_ppm.relative
            || tighter.tolerance_ppm.absolute > looser.tolerance_ppm.absolute
        {
            return Some(format!("{names} in tolerancePpm: a riskier class may not tolerate more"));
        }
        let (loose, tight) = (evidence_row(looser), evidence_row(tighter));
        if tight.margin_ppm.relative > loose.margin_ppm.relative
            || tight.margin_ppm.absolute > loose.margin_ppm.absolute
        {
            return Some(format!("{names} in marginPpm: a riskier class may not pass with more"));
        }
        if tight.gate_error_ppm > loose.gate_error_ppm {
            return Some(than(
                "gateErrorPpm",
                "pass more easily",
                loose.gate_error_ppm,
                tight.gate_error_ppm,
            ));
        }
        if tighter.min_samples < looser.min_samples {
            return Some(than("minSamples", "need fewer requests", looser.min_samples, tighter.min_samples));
        }
        if tighter.no_data_seconds > looser.no_data_seconds {
            return Some(than(
                "noDataSeconds",
                "wait longer for data",
                looser.no_data_seconds,
                tighter.no_data_seconds,
            ));
        }
        if super::schedule::join(&looser.steps, &tighter.steps) != super::schedule::normal(&tighter.steps) {
            return Some(format!("{names} in steps: a riskier class may not reach any weight sooner"));
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_table_is_in_order() {
        assert_eq!(table_problem(&Config::default()), None);
    }

    #[test]
    fn the_schedule_of_a_class_is_the_one_that_its_stakes_are_spread_over() {
        for class in RiskClass::ALL {
            let schedule = |row: statistics::Row| (row.steps, row.planned_seconds, row.last_bake_seconds);
            let row = statistics::Row::from(&evidence_row(&built_in(class)));
            assert_eq!(schedule(row), schedule(statistics::rows::built_in(class)));
        }
    }

    #[test]
    fn a_table_that_loosens_with_risk_is_named() {
        let mut config = Config::default();
        config.classes.push(ClassRow { min_samples: 1, ..built_in(RiskClass::R3) });
        assert!(
            table_problem(&config).unwrap().contains("classes[R3] is looser than classes[R2] in minSamples")
        );
    }
}
