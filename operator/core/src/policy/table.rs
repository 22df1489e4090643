//! Class tables: overlaid by a cluster's policy, joined with others, and tightened by a namespace's. Each column remembers
//! where its value comes from, and schedules stay apart until the limits of a change are known: a shortest bake or a largest
//! first step changes each of them, and only then is their join as tight as each.

use crate::api::{PolicyClass, RiskClass, StepSpec};
use crate::config::{ClassRow, Config};
use crate::limits;

use super::Sourced;
use super::start::StartRules;

/// A row of the class table, and where its columns come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The row, complete.
    pub row: ClassRow,
    /// The schedules that its steps are the join of, and whose they are.
    pub schedules: Vec<Sourced<Vec<StepSpec>>>,
    /// Sources of the other columns.
    pub from: Columns,
    /// When a change of the class may start.
    pub start: StartRules,
}

/// Where the columns of a row come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Of `tolerancePpm`.
    pub tolerance_ppm: String,
    /// Of `marginPpm`.
    pub margin_ppm: String,
    /// Of `capitalPpm`.
    pub capital_ppm: String,
    /// Of `gateErrorPpm`.
    pub gate_error_ppm: String,
    /// Of `minSamples`.
    pub min_samples: String,
    /// Of `noDataSeconds`.
    pub no_data_seconds: String,
}

impl Columns {
    fn all(from: &str) -> Self {
        let from = || from.to_owned();
        Self {
            tolerance_ppm: from(),
            margin_ppm: from(),
            capital_ppm: from(),
            gate_error_ppm: from(),
            min_samples: from(),
            no_data_seconds: from(),
        }
    }
}

/// The table of the installation.
pub(super) fn installation(config: &Config) -> Vec<Row> {
    let own = |class| config.classes.iter().any(|row| row.name == class);
    let from = |class: RiskClass| {
        let whose = if own(class) { "the installation's" } else { "built in" };
        format!("class {} ({whose})", class.as_str())
    };
    limits::class_table(config)
        .into_iter()
        .map(|row| Row {
            schedules: vec![Sourced::new(row.steps.clone(), from(row.name))],
            from: Columns::all(&from(row.name)),
            start: StartRules::built_in(row.name, &format!("class {} (built in)", row.name.as_str())),
            row,
        })
        .collect()
}

/// The rows of a policy laid over a table: a column that it has replaces the one below.
pub(super) fn overlay(ground: &[Row], classes: &[PolicyClass], from: &str) -> Vec<Row> {
    let lay = |row: &Row| {
        let mut row = row.clone();
        let name = row.row.name;
        for class in classes.iter().filter(|class| class.name == name) {
            put(&mut row, class, from);
        }
        row
    };
    ground.iter().map(lay).collect()
}

fn put(row: &mut Row, class: &PolicyClass, from: &str) {
    let Row { row, schedules, from: columns, start } = row;
    start.put(class, from);
    if !class.steps.is_empty() {
        row.steps.clone_from(&class.steps);
        *schedules = vec![Sourced::new(class.steps.clone(), from)];
    }
    if let Some(ppm) = class.tolerance_ppm {
        (row.tolerance_ppm, columns.tolerance_ppm) = (ppm.into(), from.to_owned());
    }
    if let Some(ppm) = class.margin_ppm {
        (row.margin_ppm, columns.margin_ppm) = (Some(ppm.into()), from.to_owned());
    }
    if let Some(ppm) = class.capital_ppm {
        (row.capital_ppm, columns.capital_ppm) = (Some(ppm), from.to_owned());
    }
    if let Some(ppm) = class.gate_error_ppm {
        (row.gate_error_ppm, columns.gate_error_ppm) = (Some(ppm), from.to_owned());
    }
    if let Some(samples) = class.min_samples {
        (row.min_samples, columns.min_samples) = (samples, from.to_owned());
    }
    if let Some(seconds) = class.no_data_seconds {
        (row.no_data_seconds, columns.no_data_seconds) = (seconds, from.to_owned());
    }
}

/// Of two tables the tighter value of each column.
pub(super) fn join(one: &[Row], other: &[Row]) -> Vec<Row> {
    one.iter().zip(other).map(|(one, other)| join_rows(one, other)).collect()
}

/// A table with the rows of a policy that can only tighten. What it asks of a class it asks of every riskier one, so that
/// the table stays in order.
pub(super) fn tighten(table: &[Row], classes: &[PolicyClass], from: &str) -> Vec<Row> {
    let tight = |row: &Row| {
        let asked = classes.iter().filter(|class| class.name <= row.row.name);
        asked.fold(row.clone(), |row, class| {
            let mut wanted = row.clone();
            put(&mut wanted, class, from);
            join_rows(&row, &wanted)
        })
    };
    table.iter().map(tight).collect()
}

/// A table in which no riskier class is looser, whatever it was: each row joined with the one below. Capital is not in an
/// order: a class plays the rows of all looser ones with theirs.
pub(super) fn in_order(table: Vec<Row>) -> Vec<Row> {
    let mut ordered: Vec<Row> = Vec::new();
    for row in table {
        let joined = match ordered.last() {
            Some(below) => {
                let (capital, from) = (row.row.capital_ppm, row.from.capital_ppm.clone());
                let mut joined = join_rows(&row, below);
                (joined.row.capital_ppm, joined.from.capital_ppm) = (capital, from);
                joined
            }
            None => row,
        };
        ordered.push(joined);
    }
    ordered
}

fn join_rows(one: &Row, other: &Row) -> Row {
    let (a, b) = (&one.row, &other.row);
    let mut schedules = one.schedules.clone();
    for schedule in &other.schedules {
        if !schedules.iter().any(|known| known.value == schedule.value) {
            schedules.push(schedule.clone());
        }
    }
    let steps = if a.steps == b.steps { a.steps.clone() } else { limits::join(&a.steps, &b.steps) };
    let (tolerance_ppm, tolerance_from) = pick(
        (&a.tolerance_ppm, &one.from.tolerance_ppm),
        (&b.tolerance_ppm, &other.from.tolerance_ppm),
        |a, b| a.least(*b),
    );
    let (margin_ppm, margin_from) =
        pick((&a.margin_ppm, &one.from.margin_ppm), (&b.margin_ppm, &other.from.margin_ppm), |a, b| {
            a.zip(*b).map(|(a, b)| a.least(b)).or(*a).or(*b)
        });
    // A row with more capital finds a fault sooner, and stops a good canary oftener.
    let (capital_ppm, capital_from) =
        pick((&a.capital_ppm, &one.from.capital_ppm), (&b.capital_ppm, &other.from.capital_ppm), |a, b| {
            *a.max(b)
        });
    let (gate_error_ppm, gate_from) = pick(
        (&a.gate_error_ppm, &one.from.gate_error_ppm),
        (&b.gate_error_ppm, &other.from.gate_error_ppm),
        |a, b| a.zip(*b).map(|(a, b)| a.min(b)).or(*a).or(*b),
    );
    let (min_samples, samples_from) =
        pick((&a.min_samples, &one.from.min_samples), (&b.min_samples, &other.from.min_samples), |a, b| {
            *a.max(b)
        });
    let (no_data_seconds, no_data_from) = pick(
        (&a.no_data_seconds, &one.from.no_data_seconds),
        (&b.no_data_seconds, &other.from.no_data_seconds),
        |a, b| *a.min(b),
    );
    Row {
        schedules,
        row: ClassRow {
            name: a.name,
            steps,
            tolerance_ppm,
            margin_ppm,
            capital_ppm,
            gate_error_ppm,
            min_samples,
            no_data_seconds,
        },
        from: Columns {
            tolerance_ppm: tolerance_from,
            margin_ppm: margin_from,
            capital_ppm: capital_from,
            gate_error_ppm: gate_from,
            min_samples: samples_from,
            no_data_seconds: no_data_from,
        },
        start: one.start.join(&other.start),
    }
}

/// The join of two values, and whose it is; of both when neither has it by itself.
fn pick<T: PartialEq>(one: (&T, &String), other: (&T, &String), join: impl Fn(&T, &T) -> T) -> (T, String) {
    let joined = join(one.0, other.0);
    let from = if joined == *one.0 {
        one.1.clone()
    } else if joined == *other.0 {
        other.1.clone()
    } else {
        format!("{} and {}", one.1, other.1)
    };
    (joined, from)
}
