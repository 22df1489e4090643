//! Outages of the source, whatever they meet: nothing is counted twice or from before the weight was live, and both
//! arms are counted over the same time. Every pod serves at a rate of its own, so that requests tell seconds.

use super::support::report;
use super::support::*;
use crate::evidence::*;
use jiff::Timestamp;
use proptest::prelude::*;

/// Stable and canary pods, and requests per second of each.
const PODS: [(Arm, &str, f64); 5] = [
    (Arm::Canary, "c1", 1.0),
    (Arm::Canary, "c2", 2.0),
    (Arm::Stable, "s1", 3.0),
    (Arm::Stable, "s2", 5.0),
    (Arm::Stable, "s3", 7.0),
];
const CANARY_RATE: f64 = 3.0;
const STABLE_RATE: f64 = 15.0;

#[derive(Clone, Debug)]
enum Event {
    /// The source answers, with what it has scraped now.
    Good,
    /// It does not answer for so many evaluations; then pods return after so many more each, showing old samples or
    /// none until then.
    Outage(u8, [u8; 5], bool),
    /// The weight is live again from now on.
    Live,
}

fn events(latest: u8) -> impl Strategy<Value = Vec<Event>> {
    let outage = (1u8..8, prop::array::uniform5(0..=latest), any::<bool>())
        .prop_map(|(long, late, old)| Event::Outage(long, late, old));
    prop::collection::vec(prop_oneof![4 => Just(Event::Good), 2 => outage, 1 => Just(Event::Live)], 1..30)
}

struct Story {
    state: GuardState,
    plan: GuardPlan,
    now: Timestamp,
    /// When each pod was last scraped.
    scraped: [Option<Timestamp>; 5],
}

impl Story {
    fn new() -> Self {
        let mut story = Self { state: GuardState::default(), plan: plan(), now: t(0), scraped: [None; 5] };
        story.good();
        story
    }

    fn seconds(from: Timestamp, to: Timestamp) -> f64 {
        to.duration_since(from).as_secs_f64()
    }

    fn look(&mut self, shown: [bool; 5]) {
        let pods = PODS.iter().zip(self.scraped).zip(shown).filter(|(_, shown)| *shown);
        let pods = pods.filter_map(|(((arm, id, rate), scraped), _)| {
            let newest_sample = scraped?;
            Some(PodCounters {
                id: (*id).into(),
                arm: *arm,
                total: rate * Self::seconds(t(-1000), newest_sample),
                bad: None,
                maybe_bad: None,
                newest_sample,
                created: Some(t(-1000)),
                out_of_memory: false,
            })
        });
        let sample = Sample { bound: None, at: self.now, outcome: Outcome::Counters(pods.collect()) };
        observe(&mut self.state, &sample, &self.plan, false, self.now);
    }

    fn good(&mut self) {
        self.now = after(self.now, 15);
        self.scraped = [Some(self.now); 5];
        self.look([true; 5]);
    }

    fn play(&mut self, event: &Event) {
        match event {
            Event::Good => self.good(),
            Event::Live => self.plan.window_start = Some(after(self.now, 4)),
            Event::Outage(long, late, old) => {
                for _ in 0..*long {
                    self.now = after(self.now, 15);
                    observe(
                        &mut self.state,
                        &trouble(self.now, DataState::ProviderDown),
                        &self.plan,
                        false,
                        self.now,
                    );
                }
                for i in 0..=late.iter().copied().max().unwrap_or(0) {
                    self.now = after(self.now, 15);
                    let back = late.map(|late| late <= i);
                    for (scraped, back) in self.scraped.iter_mut().zip(back) {
                        if back {
                            *scraped = Some(self.now);
                        }
                    }
                    self.look(back.map(|back| back || *old));
                }
            }
        }
    }

    fn counted(&self) -> (f64, f64) {
        let r = report(&self.state, &self.plan, self.now);
        (r.n_canary as f64, r.n_stable as f64)
    }

    /// Seconds since the weight was live.
    fn live(&self) -> f64 {
        Self::seconds(self.plan.window_start.unwrap_or(self.now), self.now)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    /// However late pods return.
    #[test]
    fn nothing_counts_twice_or_before_the_weight_was_live(history in events(30)) {
        let mut story = Story::new();
        for event in &history {
            story.play(event);
            let (canary, stable) = story.counted();
            let live = story.live().max(0.0);
            prop_assert!(canary <= CANARY_RATE * live, "canary {canary} in {live} s");
            prop_assert!(stable <= STABLE_RATE * live, "stable {stable} in {live} s");
        }
    }

    /// As long as pods return within three samples of each other, or not for long, the arms never diverge.
    #[test]
    fn both_arms_are_counted_over_the_same_time(history in events(3)) {
        let mut story = Story::new();
        for event in &history {
            story.play(event);
            let (canary, stable) = story.counted();
            prop_assert_eq!(canary * STABLE_RATE, stable * CANARY_RATE);
        }
    }

    /// A pod that is away for longer is counted from its return: the others are ahead by that time, not by the outage.
    #[test]
    fn a_late_pod_is_behind_by_its_own_time_only(long in 1u8..100, late in 4u8..10, pod in 0usize..5) {
        let mut story = Story::new();
        let mut all = [0; 5];
        all[pod] = late;
        story.play(&Event::Outage(long, all, false));
        for _ in 0..4 {
            story.good();
        }
        let (canary, stable) = story.counted();
        let whole = (canary / CANARY_RATE).max(stable / STABLE_RATE);
        let away = 15.0 * f64::from(late);
        let (_, _, rate) = PODS[pod];
        prop_assert!(CANARY_RATE * whole - canary <= rate * away);
        prop_assert!(STABLE_RATE * whole - stable <= rate * away);
        prop_assert!(canary > 0.0 && stable > 0.0);
    }
}
