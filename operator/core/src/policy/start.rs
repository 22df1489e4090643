//! When a change may start, by class: what may be in flight beside it, how long after a failed run, and who signs.
//!
//! These columns never touch a run under way, and no return to a recorded good revision asks them.

use crate::api::{PolicyClass, QueueRoom, RiskClass, Signoff};
use crate::queue::Caps;

use super::Sourced;
use super::table::Row;

/// No cap at all, in practice.
pub const UNCAPPED: i32 = 1000;
const HOUR: i32 = 3600;

/// When there is room for a change of a class in a namespace, in words.
pub fn while_room(room: QueueRoom, cap: i32, namespace: &str, class: RiskClass) -> String {
    let class = class.as_str();
    let (one, many) = match room {
        QueueRoom::Namespace => {
            (format!("rollout of namespace {namespace}"), format!("rollouts of namespace {namespace}"))
        }
        QueueRoom::NotHuman => (
            "change of the cluster that is not Human".to_owned(),
            "changes of the cluster that are not Human".to_owned(),
        ),
        QueueRoom::Class => (
            format!("change of the cluster of class {class} or riskier"),
            format!("changes of the cluster of class {class} or riskier"),
        ),
    };
    match cap {
        ..=1 => format!("no other {one} is under way"),
        _ => format!("fewer than {cap} {many} are under way"),
    }
}

/// When a change of a class may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRules {
    /// It starts while fewer runs of its namespace are under way.
    pub per_namespace: Sourced<i32>,
    /// If it is not `Human`, it starts while fewer such runs of the cluster are under way.
    pub not_human: Sourced<i32>,
    /// It starts while fewer runs of its class or a riskier one are under way in the cluster.
    pub of_class: Sourced<i32>,
    /// It starts so many seconds after the last failed run of its workload ended.
    pub cooldown_seconds: Sourced<i32>,
    /// Sign-offs that it needs, of each role the most that is asked for.
    pub signoffs: Vec<Sourced<Signoff>>,
}

impl StartRules {
    /// The built-in columns of a class.
    pub(super) fn built_in(class: RiskClass, from: &str) -> Self {
        let (per_namespace, not_human, of_class, cooldown) = match class {
            RiskClass::R0 => (10, 10, UNCAPPED, 0),
            RiskClass::R1 => (10, 5, UNCAPPED, HOUR / 4),
            RiskClass::R2 => (5, 3, UNCAPPED, HOUR),
            RiskClass::R3 => (2, 2, UNCAPPED, 4 * HOUR),
            RiskClass::R4 => (1, 1, 1, 24 * HOUR),
        };
        let of = |value| Sourced::new(value, from);
        Self {
            per_namespace: of(per_namespace),
            not_human: of(not_human),
            of_class: of(of_class),
            cooldown_seconds: of(cooldown),
            signoffs: Vec::new(),
        }
    }

    /// Puts the columns that a policy has in the place of these.
    pub(super) fn put(&mut self, class: &PolicyClass, from: &str) {
        let columns = [
            (&mut self.per_namespace, class.max_in_flight_per_namespace),
            (&mut self.not_human, class.max_in_flight_not_human),
            (&mut self.of_class, class.max_in_flight_of_class),
            (&mut self.cooldown_seconds, class.cooldown_seconds),
        ];
        for (column, value) in columns {
            if let Some(value) = value {
                *column = Sourced::new(value, from);
            }
        }
        if !class.required_signoffs.is_empty() {
            let signoffs = class.required_signoffs.iter();
            self.signoffs = signoffs.map(|signoff| Sourced::new(signoff.clone(), from)).collect();
        }
    }

    /// The tighter of each.
    pub(super) fn join(&self, other: &Self) -> Self {
        let mut signoffs = self.signoffs.clone();
        for theirs in &other.signoffs {
            match signoffs.iter_mut().find(|own| own.value.role == theirs.value.role) {
                Some(own) if own.value.count >= theirs.value.count => {}
                Some(own) => *own = theirs.clone(),
                None => signoffs.push(theirs.clone()),
            }
        }
        Self {
            per_namespace: least(&self.per_namespace, &other.per_namespace),
            not_human: least(&self.not_human, &other.not_human),
            of_class: least(&self.of_class, &other.of_class),
            cooldown_seconds: self.cooldown_seconds.clone().max(other.cooldown_seconds.clone()),
            signoffs,
        }
    }

    /// What may be in flight.
    pub fn caps(&self) -> Caps {
        Caps {
            per_namespace: self.per_namespace.value,
            not_human: self.not_human.value,
            of_class: self.of_class.value,
        }
    }

    /// The columns by the names of their fields, for people.
    pub(crate) fn named(&self) -> Vec<(&'static str, String, &str)> {
        let number = |field, column: &'_ Sourced<i32>| (field, column.value.to_string());
        let columns = [
            (number("maxInFlightPerNamespace", &self.per_namespace), &self.per_namespace.from),
            (number("maxInFlightNotHuman", &self.not_human), &self.not_human.from),
            (number("maxInFlightOfClass", &self.of_class), &self.of_class.from),
            (number("cooldownSeconds", &self.cooldown_seconds), &self.cooldown_seconds.from),
        ];
        let columns = columns.into_iter().map(|((field, value), from)| (field, value, from.as_str()));
        let signoffs = self.signoffs.iter();
        let signoffs =
            signoffs.map(|signoff| ("requiredSignoffs", signoff.value.to_string(), signoff.from.as_str()));
        columns.chain(signoffs).collect()
    }
}

fn least(one: &Sourced<i32>, other: &Sourced<i32>) -> Sourced<i32> {
    if other.value < one.value { other.clone() } else { one.clone() }
}

/// What is wrong with the columns of a whole table, loosest class first, from the field on: a riskier class that starts more
/// easily.
pub(super) fn order_problem(table: &[Row]) -> Option<String> {
    table.windows(2).find_map(|pair| {
        let (loose, tight) = (&pair[0].row.name.as_str(), &pair[1].row.name.as_str());
        let (was, is) = (&pair[0].start, &pair[1].start);
        let columns = [
            ("maxInFlightPerNamespace", was.per_namespace.value, is.per_namespace.value),
            ("maxInFlightNotHuman", was.not_human.value, is.not_human.value),
            ("maxInFlightOfClass", was.of_class.value, is.of_class.value),
            // The longer the tighter.
            ("cooldownSeconds", -was.cooldown_seconds.value, -is.cooldown_seconds.value),
        ];
        let names = format!("classes[{tight}] is looser than classes[{loose}]");
        if let Some((field, was, is)) = columns.into_iter().find(|(_, was, is)| is > was) {
            let (was, is) = (was.abs(), is.abs());
            return Some(format!(
                "{names} in {field}: a riskier class may not start more easily ({loose} has {was}, {tight} {is})"
            ));
        }
        let missing = was.signoffs.iter().find(|own| {
            let enough = |other: &&Sourced<Signoff>| {
                other.value.role == own.value.role && other.value.count >= own.value.count
            };
            !is.signoffs.iter().any(|other| enough(&other))
        })?;
        Some(format!(
            "{names} in requiredSignoffs: a riskier class may not need fewer ({loose} needs {}, {tight} does not)",
            missing.value
        ))
    })
}
