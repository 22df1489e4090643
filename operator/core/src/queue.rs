//! Whose turn it is to start: caps on rollouts in flight, and a queue in the order of holding, urgent ones first.
//!
//! Few changes at once leave few suspects when something breaks. The queue is fair: whoever waits for room is passed by
//! nobody who would take of that room, so that a change with a small cap is not starved by many with a larger one. Who takes
//! no such room passes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::{QueueRoom, QueueStatus, RiskClass};

/// How many runs may be under way for another one to start, each 1 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// It starts while fewer runs of its namespace are under way.
    pub per_namespace: i32,
    /// If it is not `Human`, it starts while fewer such runs of the cluster are under way.
    pub not_human: i32,
    /// It starts while fewer runs of its class or a riskier one are under way in the cluster.
    pub of_class: i32,
}

/// One that takes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its class.
    pub class: RiskClass,
    /// Whether its provenance is `Human`.
    pub human: bool,
}

/// One that would start, if there were room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Tells it from others: its UID.
    pub id: &'a str,
    /// The room that it takes.
    pub party: Party<'a>,
    /// What it needs.
    pub caps: Caps,
    /// Whether it comes before those that are not.
    pub urgent: bool,
    /// Since when its template is held.
    pub since: Timestamp,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// From 1 on, of those that wait for the same room.
    pub position: usize,
    /// How many those are.
    pub length: usize,
    /// The room that there is not.
    pub room: QueueRoom,
}

impl Turn {
    /// For status: coarse where it is far, since each that starts moves all behind it.
    pub fn status(self) -> QueueStatus {
        QueueStatus { position: coarse(self.position), length: coarse(self.length), room: self.room }
    }
}

/// Exact up to 10, then rounded up to tens, and beyond 100 to hundreds.
fn coarse(number: usize) -> i32 {
    let unit = match number {
        ..=10 => 1,
        11..=100 => 10,
        _ => 100,
    };
    i32::try_from(number.next_multiple_of(unit)).unwrap_or(i32::MAX)
}

/// Room that is taken, and room that somebody waits for.
#[derive(Default)]
struct Rooms<'a> {
    namespaces: BTreeMap<&'a str, i32>,
    not_human: i32,
    classes: [i32; RiskClass::ALL.len()],
    wanted: Wanted<'a>,
}

/// What waits for room.
#[derive(Default)]
struct Wanted<'a> {
    namespaces: BTreeSet<&'a str>,
    not_human: bool,
    /// The lowest class: whoever is of it or a riskier one takes of its room.
    class: Option<RiskClass>,
}

impl<'a> Wanted<'a> {
    fn add(&mut self, room: QueueRoom, party: &Party<'a>) {
        match room {
            QueueRoom::Namespace => {
                self.namespaces.insert(party.namespace);
            }
            QueueRoom::NotHuman => self.not_human = true,
            QueueRoom::Class => {
                self.class = Some(self.class.map_or(party.class, |class| class.min(party.class)));
            }
        }
    }

    /// The room of this that it would take.
    fn taken_by(&self, party: &Party<'_>) -> Option<QueueRoom> {
        if self.namespaces.contains(party.namespace) {
            Some(QueueRoom::Namespace)
        } else if self.not_human && !party.human {
            Some(QueueRoom::NotHuman)
        } else {
            self.class.filter(|class| party.class >= *class).map(|_| QueueRoom::Class)
        }
    }
}

impl<'a> Rooms<'a> {
    fn take(&mut self, party: &Party<'a>) {
        *self.namespaces.entry(party.namespace).or_default() += 1;
        self.not_human += i32::from(!party.human);
        self.classes[party.class as usize] += 1;
    }

    /// The rooms that are too full for it.
    fn full(&self, candidate: &Candidate<'_>) -> Vec<QueueRoom> {
        let Candidate { party, caps, .. } = candidate;
        let namespace = self.namespaces.get(party.namespace).copied().unwrap_or(0);
        let class: i32 = self.classes[party.class as usize..].iter().sum();
        [
            (QueueRoom::Namespace, namespace >= caps.per_namespace),
            (QueueRoom::NotHuman, !party.human && self.not_human >= caps.not_human),
            (QueueRoom::Class, class >= caps.of_class),
        ]
        .into_iter()
        .filter_map(|(room, full)| full.then_some(room))
        .collect()
    }
}

/// What a candidate waits for.
struct Wait<'a> {
    room: QueueRoom,
    wants: Wanted<'a>,
}

/// Lets all start that can, in this order: what each of them waits for, if it does.
fn play<'a>(in_flight: &[Party<'a>], queue: &[Candidate<'a>]) -> Vec<Option<Wait<'a>>> {
    let mut rooms = Rooms::default();
    in_flight.iter().for_each(|party| rooms.take(party));
    let mut start = |candidate: &Candidate<'a>| {
        let party = &candidate.party;
        let mut full = rooms.full(candidate);
        let room = rooms.wanted.taken_by(party).or_else(|| full.first().copied());
        if room == Some(QueueRoom::Namespace) {
            // Whoever waits for its own namespace stands in nobody's way elsewhere: it takes the room of the cluster when its
            // namespace has some, and is among the first then.
            full = vec![QueueRoom::Namespace];
            *rooms.namespaces.entry(party.namespace).or_default() += 1;
        } else {
            // Whoever waits for the cluster keeps its place in the rooms that have one.
            rooms.take(party);
        }
        full.iter().for_each(|room| rooms.wanted.add(*room, party));
        room.map(|room| {
            let mut wants = Wanted::default();
            full.iter().chain([&room]).for_each(|room| wants.add(*room, party));
            Wait { room, wants }
        })
    };
    queue.iter().map(&mut start).collect()
}

/// The place of `own` in the queue, or `None` when it may start now. `others` wait too; none of them is `own`.
pub fn turn<'a>(
    in_flight: impl IntoIterator<Item = Party<'a>>,
    others: impl IntoIterator<Item = Candidate<'a>>,
    own: Candidate<'a>,
) -> Option<Turn> {
    let mut parties: Vec<Party<'a>> = in_flight.into_iter().collect();
    let mut queue: Vec<Candidate<'a>> = others.into_iter().collect();
    queue.push(own);
    queue.sort_by_key(|candidate| (!candidate.urgent, candidate.since, candidate.id));
    let at = queue.iter().position(|candidate| candidate.id == own.id)?;
    let waits = play(&parties, &queue);
    let room = match waits.get(at)? {
        Some(wait) => wait.room,
        // It asks before those before it have started: they can still, or it leaves them the room.
        None => {
            parties.push(own.party);
            let later = play(&parties, &queue[..at]);
            let kept = waits.iter().zip(later).find(|(before, after)| before.is_none() && after.is_some());
            kept.and_then(|(_, after)| after)?.room
        }
    };
    let before =
        waits[..at].iter().flatten().filter(|wait| wait.wants.taken_by(&own.party).is_some()).count();
    let mut wants = Wanted::default();
    wants.add(room, &own.party);
    let behind = queue[at + 1..].iter().zip(&waits[at + 1..]);
    let behind =
        behind.filter(|(other, wait)| wait.is_some() && wants.taken_by(&other.party).is_some()).count();
    Some(Turn { position: before + 1, length: before + 1 + behind, room })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDE: Caps = Caps { per_namespace: 1000, not_human: 1000, of_class: 1000 };

    fn party(namespace: &'static str, class: RiskClass, human: bool) -> Party<'static> {
        Party { namespace, class, human }
    }

    fn waits(id: &'static str, since: i64, party: Party<'static>, caps: Caps) -> Candidate<'static> {
        Candidate { id, party, caps, urgent: false, since: Timestamp::from_second(since).unwrap() }
    }

    #[test]
    fn each_cap_counts_what_it_is_about() {
        let shop = party("shop", RiskClass::R1, false);
        let own = |caps| waits("own", 0, shop, caps);
        let room = |in_flight: &[Party<'static>], caps| {
            turn(in_flight.iter().copied(), [], own(caps)).map(|turn| turn.room)
        };
        let namespace = Caps { per_namespace: 1, ..WIDE };
        assert_eq!(room(&[], namespace), None);
        assert_eq!(room(&[party("pay", RiskClass::R4, false)], namespace), None);
        assert_eq!(room(&[party("shop", RiskClass::R0, true)], namespace), Some(QueueRoom::Namespace));
        let not_human = Caps { not_human: 2, ..WIDE };
        let two = [party("pay", RiskClass::R0, false), party("ads", RiskClass::R0, false)];
        assert_eq!(room(&two[..1], not_human), None);
        assert_eq!(room(&[two[0], party("ads", RiskClass::R0, true)], not_human), None);
        assert_eq!(room(&two, not_human), Some(QueueRoom::NotHuman));
        let human = waits("own", 0, party("shop", RiskClass::R1, true), not_human);
        assert_eq!(turn(two, [], human), None);
        let class = Caps { of_class: 1, ..WIDE };
        assert_eq!(room(&[party("pay", RiskClass::R0, true)], class), None);
        assert_eq!(room(&[party("pay", RiskClass::R1, true)], class), Some(QueueRoom::Class));
        assert_eq!(room(&[party("pay", RiskClass::R3, true)], class), Some(QueueRoom::Class));
    }

    #[test]
    fn nobody_passes_who_would_take_of_the_room_that_another_waits_for() {
        let one = Caps { per_namespace: 1, ..WIDE };
        let first = waits("first", 1, party("shop", RiskClass::R3, true), one);
        let second = waits("second", 2, party("shop", RiskClass::R0, true), WIDE);
        let elsewhere = waits("third", 3, party("pay", RiskClass::R0, true), WIDE);
        let busy = [party("shop", RiskClass::R0, true)];
        let place = |own, others: &[Candidate<'static>]| turn(busy, others.iter().copied(), own);
        let wait = |position, length| Some(Turn { position, length, room: QueueRoom::Namespace });
        assert_eq!(place(first, &[second, elsewhere]), wait(1, 2));
        assert_eq!(place(second, &[first, elsewhere]), wait(2, 2));
        assert_eq!(place(elsewhere, &[first, second]), None);
        assert_eq!(place(second, &[elsewhere]), None, "there is room for its class");
        let urgent = Candidate { urgent: true, ..second };
        assert_eq!(place(urgent, &[first, elsewhere]), None, "an urgent one comes first");
    }

    #[test]
    fn who_waits_for_its_namespace_stands_in_nobody_s_way_elsewhere() {
        let agent = Caps { per_namespace: 1, not_human: 1, of_class: 1 };
        let held = waits("held", 1, party("ml", RiskClass::R4, false), agent);
        let other = waits("other", 2, party("shop", RiskClass::R4, false), agent);
        let busy = [party("ml", RiskClass::R0, true)];
        assert_eq!(turn(busy, [other], held).map(|turn| turn.room), Some(QueueRoom::Namespace));
        assert_eq!(turn(busy, [held], other), None, "no change of an agent is under way");
        // Once there is room in its namespace it comes first.
        assert_eq!(turn([], [other], held), None);
        assert_eq!(turn([], [held], other).map(|turn| turn.position), Some(1));
    }

    #[test]
    fn far_places_are_coarse() {
        let shown: Vec<i32> = [1, 10, 11, 95, 100, 101, 1000, 1001].into_iter().map(coarse).collect();
        assert_eq!(shown, [1, 10, 20, 100, 100, 200, 1000, 1100]);
    }

    /// Those that start when all are asked in their order.
    fn starts<'a>(running: &[(Candidate<'a>, u8)], waiting: &[Candidate<'a>]) -> Vec<&'a str> {
        let mut waiting = waiting.to_vec();
        waiting.sort_by_key(|candidate| (!candidate.urgent, candidate.since));
        let mut parties: Vec<_> = running.iter().map(|(one, _)| one.party).collect();
        let mut started = Vec::new();
        for own in &waiting {
            let others = waiting.iter().copied().filter(|one| one.id != own.id && !started.contains(&one.id));
            if turn(parties.iter().copied(), others, *own).is_none() {
                started.push(own.id);
                parties.push(own.party);
            }
        }
        started
    }

    /// A candidate, and how long its run lasts.
    fn candidates() -> impl Strategy<Value = Vec<(u8, u8, bool, bool, u8, [i32; 3])>> {
        let caps = prop::array::uniform3(1..4_i32);
        prop::collection::vec((0..3_u8, 0..5_u8, any::<bool>(), any::<bool>(), 1..5_u8, caps), 1..14)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// A day of starts and ends: no cap is ever passed, somebody starts whenever nothing is under way, nobody takes the room
        /// of one before it, and all start in the end.
        #[test]
        fn caps_hold_and_nobody_waits_for_ever(drawn in candidates()) {
            const NAMESPACES: [&str; 3] = ["a", "b", "c"];
            let ids: Vec<String> = (0..drawn.len()).map(|at| format!("{at:02}")).collect();
            let mut waiting: Vec<(Candidate<'_>, u8)> = drawn
                .iter()
                .zip(&ids)
                .enumerate()
                .map(|(at, ((namespace, class, human, urgent, lasts, caps), id))| {
                    let party = Party {
                        namespace: NAMESPACES[usize::from(*namespace)],
                        class: RiskClass::ALL[usize::from(*class)],
                        human: *human,
                    };
                    let [per_namespace, not_human, of_class] = *caps;
                    let caps = Caps { per_namespace, not_human, of_class };
                    let since = Timestamp::from_second(i64::try_from(at).unwrap()).unwrap();
                    (Candidate { id, party, caps, urgent: *urgent, since }, *lasts)
                })
                .collect();
            let mut running: Vec<(Candidate<'_>, u8)> = Vec::new();
            for tick in 0.. {
                prop_assert!(tick < 100, "{waiting:?} never start");
                if waiting.is_empty() {
                    break;
                }
                // Each asks for itself, the last that came first.
                for at in (0..waiting.len()).rev() {
                    let (own, lasts) = waiting[at];
                    let others = waiting.iter().map(|(other, _)| *other).filter(|other| other.id != own.id);
                    let others: Vec<_> = others.collect();
                    match turn(running.iter().map(|(one, _)| one.party), others, own) {
                        Some(turn) => prop_assert!((1..=turn.length).contains(&turn.position)),
                        None => {
                            let count = |takes: &dyn Fn(&Party<'_>) -> bool| {
                                i32::try_from(running.iter().filter(|(one, _)| takes(&one.party)).count()).unwrap()
                            };
                            prop_assert!(count(&|one| one.namespace == own.party.namespace) < own.caps.per_namespace);
                            prop_assert!(own.party.human || count(&|one| !one.human) < own.caps.not_human);
                            prop_assert!(count(&|one| one.class >= own.party.class) < own.caps.of_class);
                            waiting.remove(at);
                            running.push((own, lasts));
                            // Who was before it, and would have started, still does.
                            let before: Vec<_> = waiting.iter().map(|(other, _)| *other).filter(|other| {
                                (!other.urgent, other.since) < (!own.urgent, own.since)
                            }).collect();
                            let could = starts(&running[..running.len() - 1], &before);
                            let can = starts(&running, &before);
                            prop_assert!(could.iter().all(|id| can.contains(id)), "{:?} {:?}", could, can);
                        }
                    }
                }
                prop_assert!(!running.is_empty(), "there is room, and nobody starts");
                running.iter_mut().for_each(|(_, lasts)| *lasts -= 1);
                running.retain(|(_, lasts)| *lasts > 0);
            }
        }
    }
}
