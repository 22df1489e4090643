//! The demo's promises, played many times on paper: a story that ends otherwise now and then by chance alone would fail
//! everybody's tests now and then.

use serde::Deserialize;
use sluice_core::api::RiskClass;
use sluice_core::config::{ClassRow, Config};
use sluice_core::limits;
use sluice_core::statistics::{Cell, Row, SUSPICION, Window};

use super::draw::Draw;
use super::judges::engine;
use super::rollout::Ending;
use super::work;

/// Evaluations, as the demo has them, in seconds.
const WINDOW: f64 = 1.0;
/// Pods of stable.
const PODS: u32 = 4;
/// Requests per second of the clients.
const RPS: f64 = 100.0;
/// Windows of stable before a change.
const PAST: u32 = 25;
/// How often each is played.
const RUNS: usize = 5_000;
/// How many may end otherwise: 0.2 %.
const FEW: usize = RUNS / 500;

/// The settings of the demo, as far as they count here.
#[derive(Deserialize)]
struct Settings {
    classes: Vec<ClassRow>,
}

/// A change of the demo, of failed requests.
struct Change {
    name: &'static str,
    class: RiskClass,
    /// Of stable, and of the canary.
    rates: (f64, f64),
    min_bake_seconds: i32,
    /// How it ends, at a weight of at most so many percent.
    promised: (Ending, i32),
}

/// How it ends, and at which weight.
fn play(change: &Change, config: &Config, run: u64) -> (Ending, i32) {
    let rows: Vec<Row> =
        limits::evidence_rows(&limits::class_table(config), change.class).iter().map(Row::from).collect();
    let steps = limits::row(config, change.class).steps;
    let mut engine = engine(&rows, false, 1);
    let mut draw = Draw::new(1, change.name, run);
    let mut now = 0.0;
    let mut window = |engine: &mut sluice_core::statistics::Engine, canaries: u32, weight: f64| {
        let mut arm = |first: u32, pods: u32, share: f64, rate: f64| -> Vec<Cell> {
            let cell = |pod| {
                let n = draw.poisson(RPS * share * WINDOW / f64::from(pods));
                let x = draw.binomial(n, rate);
                Cell { pod, n, x, x_gate: x }
            };
            (first..first + pods).map(cell).collect()
        };
        now += WINDOW;
        let canary = arm(PODS, canaries, weight, change.rates.1);
        let stables = if weight < 1.0 { PODS } else { 0 };
        let stable = arm(0, stables, 1.0 - weight, change.rates.0);
        let pods = (canary.len(), stable.len());
        let seen = Window { end: now, seconds: WINDOW, canary: &canary, stable: &stable, by_pod: true, pods };
        engine.window(&[Some(seen)]);
    };
    (0..PAST).for_each(|_| window(&mut engine, 0, 0.0));
    for (step, next) in steps.iter().zip(steps.iter().skip(1).map(Some).chain([None])) {
        let fraction = |percent: i32| f64::from(percent) / 100.0;
        let (weight, last) = (fraction(step.weight_percent), next.is_none());
        engine.begin_step(weight, next.map_or(1.0, |next| fraction(next.weight_percent)), last);
        let bake = step.bake_seconds.max(change.min_bake_seconds);
        let mut seconds = 0;
        loop {
            window(&mut engine, (weight * f64::from(PODS)).ceil() as u32, weight);
            seconds += 1;
            let verdict = engine.verdict(rows.len());
            if verdict.stop {
                return (if last { Ending::Reverted } else { Ending::Aborted }, step.weight_percent);
            }
            let open = last || verdict.open;
            if seconds >= bake && open && !verdict.incident && verdict.score < SUSPICION {
                break;
            }
            if seconds >= limits::step_seconds(bake) {
                return (Ending::NotProven, step.weight_percent);
            }
        }
    }
    (Ending::Promoted, 100)
}

#[test]
fn the_demo_keeps_its_promises_whatever_chance_deals() {
    let text = include_str!("../../../../e2e/demo/values.yaml");
    let Settings { classes } = serde_saphyr::from_str(text).unwrap();
    let config = Config { classes, ..Config::default() };
    assert_eq!(limits::table_problem(&config), None);
    let change = |name, class, rates, promised| Change { name, class, rates, min_bake_seconds: 0, promised };
    let aborted = |weight| (Ending::Aborted, weight);
    let promoted = (Ending::Promoted, 100);
    let subtle = change("subtle-genai", RiskClass::R2, (0.001, 0.008), aborted(50));
    let changes = [
        change("good-human", RiskClass::R1, (0.005, 0.005), promoted),
        change("good-genai", RiskClass::R2, (0.002, 0.002), promoted),
        change("bad-human", RiskClass::R1, (0.002, 0.05), aborted(50)),
        // A step earlier than the same change of a person.
        change("bad-genai", RiskClass::R2, (0.002, 0.05), aborted(5)),
        Change { min_bake_seconds: 50, ..subtle },
        change("controller-down", RiskClass::R1, (0.002, 0.002), promoted),
    ];
    for change in changes {
        let played = work::each(RUNS, 2, |run| play(&change, &config, run as u64));
        let (ending, most) = change.promised;
        let kept = |(end, weight): &&(Ending, i32)| *end == ending && *weight <= most;
        let otherwise: Vec<_> = played.iter().filter(|played| !kept(played)).collect();
        assert!(
            otherwise.len() <= FEW,
            "{}: {} of {RUNS} otherwise: {otherwise:?}",
            change.name,
            otherwise.len()
        );
    }
}
