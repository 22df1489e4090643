//! The policy file: YAML with rows of the class table.

use std::path::Path;

use serde::Deserialize as _;
use sluice_core::limits::table::Table;
use sluice_core::trace::Policy;

use super::files::cause;
use crate::fail::Failure;

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
    let mut track = serde_path_to_error::Track::new();
    let table = serde_saphyr::with_deserializer_from_str(text, |yaml| {
        Table::deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track))
    });
    let table = table.map_err(|error| {
        let at = error.location().map_or_else(String::new, |at| format!("line {}: ", at.line()));
        let field = track.path().to_string();
        // A file that breaks off has no field to name.
        let field = if matches!(field.as_str(), "." | "?") { String::new() } else { format!("{field}: ") };
        let said = error.without_snippet().to_string();
        // The place is said once, as for traces.
        let said = said.split(" at line ").next().and_then(|said| said.lines().next()).unwrap_or_default();
        format!("{at}{field}{said}; {SUCH_AS}")
    })?;
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
