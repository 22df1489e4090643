//! The policy file: YAML with rows of the class table.

use std::path::Path;

use sluice_core::limits::table::Table;
use sluice_core::trace::Policy;

use crate::fail::Failure;
use crate::input::{cause, yaml};

/// What to write, for messages.
const SUCH_AS: &str =
    "write rows such as `classes: [{name: R2, tolerancePpm: {relative: 150000, absolute: 200}}]`";

/// The table of a file, and what it makes of the built-in one.
pub fn read(file: &Path) -> Result<(Table, Policy), Failure> {
    let name = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("policy {name}: {}", cause(&error))))?;
    parse(&text).map_err(|problem| Failure::new(format!("policy {name}: {problem}")))
}

fn parse(text: &str) -> Result<(Table, Policy), String> {
    if text.trim().is_empty() {
        return Err(format!("is empty: {SUCH_AS}"));
    }
    let table: Table = yaml(text).map_err(|problem| format!("{problem}; {SUCH_AS}"))?;
    let rows = table.rows().map_err(|problems| problems.join("; "))?;
    Ok((table, Policy::of(&rows)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let files = [
            "",
            "- a\n",
            "classes:\n- name: R2\n  capital: 1\n",
            "classes:\n- name: R9\n",
            "classes:\n- name: R2\n  minSamples: many\n",
            "classes:\n- name: R3\n  marginPpm: {relative: 700000, absolute: 400}\n  minSamples: 5\n",
        ];
        let said: String =
            files.iter().map(|file| format!("{file:?}\n  {}\n", parse(file).unwrap_err())).collect();
        insta::assert_snapshot!("policy_errors", said);
    }

    #[test]
    fn the_rows_of_the_chart_are_understood() {
        let file = "classes:\n- name: R1\n  steps: [{weightPercent: 5, bakeSeconds: 600}, {weightPercent: 100, \
                    bakeSeconds: 1800}]\n  tolerancePpm: {relative: 250000, absolute: 300}\n  minSamples: 500\n  \
                    noDataSeconds: 2700\n";
        let (table, policy) = parse(file).unwrap();
        assert_ne!(policy, Policy::default());
        assert_eq!(table.weights(sluice_core::api::RiskClass::R1), [5, 100]);
    }
}
