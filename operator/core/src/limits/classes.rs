//! The class table: steps, bakes, tolerances and minima by risk class.

use crate::api::{Provenance, RiskClass, StepSpec, TolerancePpm};
use crate::config::{ClassRow, Config};

const MINUTE: i32 = 60;

/// The class of a change. For now provenance alone decides.
pub fn class_of(provenance: Provenance) -> RiskClass {
    match provenance {
        Provenance::Human => RiskClass::R1,
        Provenance::GenAIAssisted | Provenance::Unknown => RiskClass::R2,
        Provenance::GenAIAutonomous => RiskClass::R3,
    }
}

/// The row in force for a class: the installation's own, or the built-in one.
pub fn row(config: &Config, class: RiskClass) -> ClassRow {
    config.classes.iter().find(|row| row.name == class).cloned().unwrap_or_else(|| built_in(class))
}

/// Built-in rows. A tighter class starts smaller, bakes longer, tolerates less and wants more requests.
fn built_in(class: RiskClass) -> ClassRow {
    let (weights, bakes, tolerance, min_samples, no_data): (&[i32], &[i32], (i32, i32), i32, i32) =
        match class {
            RiskClass::R0 => (&[10, 50, 100], &[5, 5, 15], (500_000, 500), 100, 60),
            RiskClass::R1 => (&[5, 20, 50, 100], &[10, 10, 10, 30], (250_000, 300), 500, 45),
            RiskClass::R2 => (&[2, 10, 33, 66, 100], &[20, 20, 20, 20, 60], (150_000, 200), 2_000, 30),
            RiskClass::R3 => {
                (&[1, 5, 20, 50, 75, 100], &[60, 30, 30, 30, 30, 120], (100_000, 100), 10_000, 15)
            }
            RiskClass::R4 => (
                &[1, 2, 5, 10, 25, 50, 75, 100],
                &[60, 60, 720, 120, 120, 120, 120, 240],
                (50_000, 100),
                20_000,
                5,
            ),
        };
    ClassRow {
        name: class,
        steps: weights
            .iter()
            .zip(bakes)
            .map(|(weight, bake)| StepSpec { weight_percent: *weight, bake_seconds: bake * MINUTE })
            .collect(),
        tolerance_ppm: TolerancePpm { relative: tolerance.0, absolute: tolerance.1 },
        min_samples,
        no_data_seconds: no_data * MINUTE,
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
    let rows: Vec<ClassRow> = RiskClass::ALL.into_iter().map(|class| row(config, class)).collect();
    rows.windows(2).find_map(|pair| {
        let (looser, tighter) = (&pair[0], &pair[1]);
        let names =
            format!("classes[{}] is looser than classes[{}]", tighter.name.as_str(), looser.name.as_str());
        if tighter.tolerance_ppm.relative > looser.tolerance_ppm.relative
            || tighter.tolerance_ppm.absolute > looser.tolerance_ppm.absolute
        {
            return Some(format!("{names} in tolerancePpm: a riskier class may not tolerate more"));
        }
        if tighter.min_samples < looser.min_samples {
            return Some(format!("{names} in minSamples: a riskier class may not need fewer requests"));
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
    fn a_table_that_loosens_with_risk_is_named() {
        let mut config = Config::default();
        config.classes.push(ClassRow { min_samples: 1, ..built_in(RiskClass::R3) });
        assert!(
            table_problem(&config).unwrap().contains("classes[R3] is looser than classes[R2] in minSamples")
        );
    }

    #[test]
    fn unknown_is_as_tight_as_assisted() {
        assert!(class_of(Provenance::Unknown) >= class_of(Provenance::GenAIAssisted));
    }
}
