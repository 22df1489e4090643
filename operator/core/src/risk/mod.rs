//! From what is known of a change to its risk class: inputs on ordered levels, points, classes, floors.
//!
//! Every step up a level adds points, classes are cut by their sum, and a floor is about all changes at or above its levels.
//! So a riskier change never gets a looser class. There are few states; the tests go through all of them.

mod inputs;
#[cfg(test)]
mod tests;

pub use inputs::{AuthorHistory, ErrorBudget, Inputs, LastFailure, Level, Size};

use crate::api::{BlastRadius, Floor, FloorWhen, Provenance, RiskClass, Tier};

/// Fewest points of each class above R0, loosest first.
const CUTS: [(RiskClass, i32); 4] =
    [(RiskClass::R1, 3), (RiskClass::R2, 6), (RiskClass::R3, 10), (RiskClass::R4, 14)];

/// Floors that hold under every policy.
pub const FLOORS: [Floor; 6] = [
    floor(Some(Provenance::GenAIAutonomous), None, None, RiskClass::R2),
    floor(Some(Provenance::GenAIAssisted), Some(Tier::Tier1), None, RiskClass::R2),
    floor(Some(Provenance::GenAIAssisted), Some(Tier::Tier0), None, RiskClass::R3),
    floor(Some(Provenance::GenAIAutonomous), Some(Tier::Tier0), None, RiskClass::R4),
    floor(None, None, Some(BlastRadius::Global), RiskClass::R3),
    floor(None, Some(Tier::Tier1), Some(BlastRadius::Global), RiskClass::R4),
];

const fn floor(
    provenance_at_least: Option<Provenance>,
    tier_at_most: Option<Tier>,
    blast_radius_at_least: Option<BlastRadius>,
    class: RiskClass,
) -> Floor {
    Floor { when: FloorWhen { provenance_at_least, tier_at_most, blast_radius_at_least }, class }
}

/// The class of so many points.
pub fn class_of_points(points: i32) -> RiskClass {
    let reached = CUTS.iter().filter(|(_, least)| points >= *least).map(|(class, _)| *class);
    reached.max().unwrap_or(RiskClass::R0)
}

/// Whether a floor is about a change.
pub fn applies(when: &FloorWhen, inputs: &Inputs) -> bool {
    when.provenance_at_least.is_none_or(|least| inputs.provenance >= least)
        && when.tier_at_most.is_none_or(|least| inputs.tier >= least)
        && when.blast_radius_at_least.is_none_or(|least| inputs.blast_radius >= least)
}

/// The class of a change: by its points, and not below any floor. `floors` are those of the policies.
pub fn class_of(inputs: &Inputs, floors: &[Floor]) -> RiskClass {
    let reached = FLOORS.iter().chain(floors).filter(|floor| applies(&floor.when, inputs));
    reached.map(|floor| floor.class).fold(class_of_points(inputs.points()), RiskClass::max)
}
