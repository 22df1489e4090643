//! Every state of the inputs, every step up from each, and every promise about the two classes.

use super::*;
use crate::api::Novelty;

fn all<T: Level>() -> impl Iterator<Item = T> + Clone {
    T::POINTS.iter().map(|(level, _)| *level)
}

/// All 36,864 states.
fn states() -> Vec<Inputs> {
    let mut states = Vec::new();
    for provenance in all() {
        for blast_radius in all() {
            for tier in all() {
                for size in all() {
                    for novelty in all() {
                        for authors in all() {
                            for last_failure in all() {
                                for error_budget in all() {
                                    states.push(Inputs {
                                        provenance,
                                        blast_radius,
                                        tier,
                                        size,
                                        novelty,
                                        authors,
                                        last_failure,
                                        error_budget,
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    states
}

/// The next riskier level.
fn up<T: Level>(level: T) -> Option<T> {
    all().find(|next| *next > level)
}

/// The states that are one step riskier in one input.
fn steps(state: Inputs) -> impl Iterator<Item = Inputs> {
    [
        up(state.provenance).map(|provenance| Inputs { provenance, ..state }),
        up(state.blast_radius).map(|blast_radius| Inputs { blast_radius, ..state }),
        up(state.tier).map(|tier| Inputs { tier, ..state }),
        up(state.size).map(|size| Inputs { size, ..state }),
        up(state.novelty).map(|novelty| Inputs { novelty, ..state }),
        up(state.authors).map(|authors| Inputs { authors, ..state }),
        up(state.last_failure).map(|last_failure| Inputs { last_failure, ..state }),
        up(state.error_budget).map(|error_budget| Inputs { error_budget, ..state }),
    ]
    .into_iter()
    .flatten()
}

/// Every floor that a policy can have.
fn floors() -> Vec<Floor> {
    fn optional<T: Level>() -> impl Iterator<Item = Option<T>> + Clone {
        std::iter::once(None).chain(all().map(Some))
    }
    let mut floors = Vec::new();
    for provenance in optional() {
        for tier in optional() {
            for blast in optional() {
                floors.extend(RiskClass::ALL.map(|class| floor(provenance, tier, blast, class)));
            }
        }
    }
    floors
}

#[test]
fn levels_are_in_the_order_of_their_points() {
    fn rises<T: Level>() {
        assert!(T::POINTS.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
    }
    rises::<Provenance>();
    rises::<BlastRadius>();
    rises::<Tier>();
    rises::<Size>();
    rises::<Novelty>();
    rises::<AuthorHistory>();
    rises::<LastFailure>();
    rises::<ErrorBudget>();
}

/// I1. By hand, apart from the code: points of the levels added, cut, and raised by the floors.
#[test]
fn a_riskier_input_never_gets_a_looser_class() {
    let states = states();
    assert_eq!(states.len(), 36_864);
    let mut edges = 0;
    for state in states {
        let class = class_of(&state, &[]);
        for riskier in steps(state) {
            edges += 1;
            assert!(riskier.points() > state.points());
            assert!(class_of(&riskier, &[]) >= class, "{state:?} {riskier:?}");
        }
    }
    assert_eq!(edges, 215_040);
}

/// I1 for the floors of policies: each of the 625 by itself, on the inputs that it looks at.
#[test]
fn no_floor_of_a_policy_breaks_the_order() {
    let quiet = |state: &Inputs| {
        (state.size, state.novelty, state.authors, state.last_failure, state.error_budget)
            == (
                Size::Small,
                Novelty::Routine,
                AuthorHistory::Proven,
                LastFailure::LongAgo,
                ErrorBudget::Ample,
            )
    };
    let states: Vec<Inputs> = states().into_iter().filter(quiet).collect();
    assert_eq!((states.len(), floors().len()), (64, 625));
    for floor in floors() {
        for state in &states {
            let class = class_of(state, &[floor]);
            assert!(class >= class_of(state, &[]), "a floor loosens");
            for riskier in steps(*state) {
                assert!(class_of(&riskier, &[floor]) >= class, "{floor:?} {state:?} {riskier:?}");
            }
        }
    }
}

/// I5, I6: silence is no cheaper than marking, and being found out no cheaper than saying so.
#[test]
fn honest_marking_never_costs_more_than_silence_or_being_found_out() {
    for state in states() {
        let with = |provenance| class_of(&Inputs { provenance, ..state }, &[]);
        assert!(with(Provenance::Unknown) >= with(Provenance::GenAIAssisted));
        for honest in Provenance::ALL {
            for claim in Provenance::ALL {
                assert!(with(claim.max(honest)) >= with(honest));
            }
        }
    }
}

/// I7: what is not known counts as the worst that is plausible.
#[test]
fn what_is_missing_never_loosens() {
    for lines in [0, 1, 200, 201, 400, 401, 1000, 1001, i32::MAX] {
        assert!(Size::of(None) >= Size::of(Some(lines)), "{lines}");
    }
    let sizes = [
        (0, Size::Small),
        (200, Size::Small),
        (201, Size::Medium),
        (400, Size::Medium),
        (401, Size::Large),
        (1000, Size::Large),
        (1001, Size::Huge),
    ];
    for (lines, size) in sizes {
        assert_eq!(Size::of(Some(lines)), size);
    }
    assert!(Provenance::default() >= Provenance::GenAIAssisted);
    let day = 86_400;
    for (seconds, level) in [
        (Some(0), LastFailure::WithinDay),
        (Some(-5), LastFailure::WithinDay),
        (Some(day), LastFailure::WithinWeek),
        (Some(7 * day), LastFailure::WithinMonth),
        (Some(30 * day), LastFailure::LongAgo),
        (None, LastFailure::LongAgo),
    ] {
        assert_eq!(LastFailure::of(seconds), level, "{seconds:?}");
    }
}

/// A small change of a service that is known and well, in its tier and blast radius.
fn usual(provenance: Provenance, tier: Tier, blast_radius: BlastRadius, size: Size) -> Inputs {
    Inputs {
        provenance,
        blast_radius,
        tier,
        size,
        novelty: Novelty::Routine,
        authors: AuthorHistory::Proven,
        last_failure: LastFailure::LongAgo,
        error_budget: ErrorBudget::Ample,
    }
}

#[test]
fn known_shapes_of_changes_have_the_classes_that_people_expect() {
    use BlastRadius::{Global, Region, Zone};
    use Provenance::{GenAIAssisted, GenAIAutonomous, Human, Unknown};
    for (provenance, tier, blast, size, class) in [
        (Human, Tier::Tier2, Zone, Size::Small, RiskClass::R0),
        (GenAIAssisted, Tier::Tier2, Zone, Size::Small, RiskClass::R1),
        (Unknown, Tier::Tier2, Zone, Size::Small, RiskClass::R1),
        (GenAIAutonomous, Tier::Tier2, Zone, Size::Small, RiskClass::R2),
        (Human, Tier::Tier1, Zone, Size::Small, RiskClass::R1),
        (GenAIAssisted, Tier::Tier1, Zone, Size::Small, RiskClass::R2),
        (Human, Tier::Tier0, Region, Size::Medium, RiskClass::R2),
        (GenAIAssisted, Tier::Tier0, Region, Size::Medium, RiskClass::R3),
        // A change of global configuration by one operator.
        (Human, Tier::Tier1, Global, Size::Small, RiskClass::R4),
        // Points alone say R3.
        (GenAIAutonomous, Tier::Tier0, Global, Size::Medium, RiskClass::R4),
    ] {
        assert_eq!(
            class_of(&usual(provenance, tier, blast, size), &[]),
            class,
            "{provenance:?} {tier:?} {blast:?}"
        );
    }
    let cuts = [(0, 0), (2, 0), (3, 1), (5, 1), (6, 2), (9, 2), (10, 3), (13, 3), (14, 4), (27, 4)];
    for (points, class) in cuts {
        assert_eq!(class_of_points(points), RiskClass::ALL[class]);
    }
}
