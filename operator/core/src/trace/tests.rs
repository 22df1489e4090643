//! Traces: what can't be read is named, and what is read is played as the format says.

use super::format::{Record, State, Trace};
use super::replay::{Decision, Options, Outcome, Policy, replay};
use crate::api::RiskClass;

const HEADER: &str = r#"{"sluiceTrace":1,"id":"t1","scrapeSeconds":15,"les":[0.1,0.5,1.0],"riskClass":"R2","latencySLOSeconds":0.5,"later":true}"#;

/// What is wrong, without the column.
fn problem(lines: &[&str]) -> String {
    let problem = Trace::read(lines.iter().copied()).unwrap_err().to_string();
    problem.split(" at column").next().unwrap_or_default().to_owned()
}

#[test]
fn bad_lines_are_named() {
    let ok = r#"{"t":0,"weight":0,"state":"ok","arms":{"stable":[{"id":"s","req":9,"err":0,"le":[1,2,3]}]}}"#;
    let with = |line: &str| problem(&[HEADER, ok, line]);
    assert_eq!(
        problem(&[]),
        "line 1: the trace is empty: the first line is a header such as {\"sluiceTrace\":1,\"id\":\"t1\",\"scrapeSeconds\":15}"
    );
    assert!(problem(&[ok]).starts_with("line 1: the header is missing"), "{}", problem(&[ok]));
    assert_eq!(problem(&[r#"{"sluiceTrace":1,"id":"t1"}"#]), "line 1: header: missing field `scrapeSeconds`");
    assert_eq!(
        problem(&[r#"{"sluiceTrace":2,"id":"t","scrapeSeconds":15}"#]),
        "line 1: sluiceTrace: 2: this program reads version 1"
    );
    assert_eq!(
        problem(&[r#"{"sluiceTrace":1,"id":"t","scrapeSeconds":15,"les":[1,0.5]}"#]),
        "line 1: les[1]: 0.5 does not rise from 1"
    );
    assert_eq!(
        problem(&[r#"{"sluiceTrace":1,"id":"t","scrapeSeconds":15,"riskClass":"R9"}"#]),
        "line 1: header: riskClass: unknown variant `R9`, expected one of `R0`, `R1`, `R2`, `R3`, `R4`"
    );
    for (line, says) in [
        ("{\"t\":1", "line 3: EOF while parsing an object"),
        ("{} 5", "line 3: missing field `t`"),
        (r#"{"t":"now","weight":0,"state":"ok"}"#, "line 3: t: invalid type: string \"now\", expected f64"),
        (
            r#"{"t":0,"weight":0,"state":"outage"}"#,
            "line 3: t: 0 is not after 0, that of the record before: records are in the order of time",
        ),
        (r#"{"t":1,"weight":101,"state":"outage"}"#, "line 3: weight: 101: a percentage, 0 to 100"),
        (
            r#"{"t":1,"weight":1,"state":"fine"}"#,
            "line 3: state: unknown variant `fine`, expected one of `ok`, `nodata`, `nan`, `stale`, `multiseries`, `error`, `outage`",
        ),
        (
            r#"{"t":1,"weight":1,"state":"ok"}"#,
            "line 3: arms: missing: state ok comes with the counters of both arms",
        ),
        (
            r#"{"t":1,"weight":1,"state":"ok","arms":{"canary":[{"id":"c","req":1,"err":-3}]}}"#,
            "line 3: arms.canary[0].err: -3: a counter is a number of at least 0",
        ),
        (
            r#"{"t":1,"weight":1,"state":"ok","arms":{"canary":[{"id":"c","req":"x"}]}}"#,
            "line 3: arms.canary[0].req: invalid type: string \"x\", expected f64",
        ),
        (
            r#"{"t":1,"weight":1,"state":"ok","arms":{"stable":[{"id":"c","req":1,"le":[1]}]}}"#,
            "line 3: arms.stable[0].le: 1 buckets, the header's les has 3",
        ),
        (
            r#"{"t":1,"weight":1,"state":"ok","arms":{"stable":[{"id":"c","req":1},{"id":"c","req":1}]}}"#,
            "line 3: arms.stable[1].id: \"c\" appears twice: one series per pod",
        ),
        (r#"{"t":1,"weight":1,"state":"outage"} {}"#, "line 3: more follows the object: trailing characters"),
    ] {
        assert_eq!(with(line), says);
    }
}

#[test]
fn a_trace_that_is_written_reads_the_same() {
    let record = r#"{"t":3600,"weight":2,"state":"ok","arms":{"stable":[{"id":"s0","req":582135,"err":290,"le":[1,2,3]}],"canary":[{"id":"c0","req":11.5,"err":0,"le":[3,6,10]}]},"gauges":{"memory":{"stable":0.51,"canary":null}},"queries":{"none":null,"queue":12.0}}"#;
    let trace = Trace::read([HEADER, "", record, r#"{"t":3615.25,"weight":2,"state":"outage"}"#]).unwrap();
    let lines: Vec<String> = trace.lines().collect();
    assert!(Trace::read([HEADER, "{"]).unwrap_err().to_string().ends_with("at column 1"));
    assert_eq!(lines[1], record);
    assert_eq!(Trace::read(lines.iter().map(String::as_str)).unwrap(), trace);
}

/// Writes traces.
struct Tape {
    trace: Trace,
    t: f64,
    /// Requests, failures and requests within 0.1, 0.5 and 1 s of stable's pod and the canary's.
    pods: [[f64; 5]; 2],
}

impl Tape {
    fn new() -> Self {
        let trace = Trace::read([HEADER]).unwrap();
        let mut tape = Self { trace, t: 0.0, pods: [[1e6, 100.0, 9e5, 1e6, 1e6], [0.0; 5]] };
        tape.ok(0.0, [0.0; 5], [0.0; 5]);
        tape
    }

    fn add(&mut self, stable: [f64; 5], canary: [f64; 5]) {
        for (pod, more) in self.pods.iter_mut().zip([stable, canary]) {
            pod.iter_mut().zip(more).for_each(|(counter, more)| *counter += more);
        }
    }

    fn ok(&mut self, weight: f64, stable: [f64; 5], canary: [f64; 5]) {
        self.add(stable, canary);
        let series = |id: &str, [req, err, le @ ..]: [f64; 5]| super::Series {
            id: id.into(),
            req,
            err,
            le: le.to_vec(),
        };
        let arms = super::Arms {
            stable: vec![series("s", self.pods[0])],
            canary: if weight > 0.0 { vec![series("c", self.pods[1])] } else { vec![] },
        };
        self.push(weight, State::Ok, Some(arms));
    }

    fn push(&mut self, weight: f64, state: State, arms: Option<super::Arms>) {
        let (gauges, queries) = (Default::default(), Default::default());
        self.trace.records.push(Record { t: self.t, weight, state, arms, gauges, queries });
        self.t += 15.0;
    }

    fn play(&self) -> Outcome {
        replay(&self.trace, &Policy::default(), &Options::default(), |_| {})
    }
}

/// A window of `n` requests with `x` failures and none slower than 0.1 s.
fn requests(n: f64, x: f64) -> [f64; 5] {
    [n, x, n, n, n]
}

fn baseline(windows: usize) -> Tape {
    let mut tape = Tape::new();
    for window in 0..windows {
        tape.ok(0.0, requests(750.0, f64::from(u8::from(window % 2 == 0))), [0.0; 5]);
    }
    tape
}

#[test]
fn a_bad_canary_is_stopped_and_a_good_one_promoted() {
    let mut good = baseline(240);
    for weight in [2.0, 10.0, 33.0, 66.0] {
        for window in 0..80 {
            let n = 7.5 * weight;
            good.ok(weight, requests(750.0 - n, f64::from(u8::from(window % 2 == 0))), requests(n, 0.0));
        }
    }
    let outcome = good.play();
    assert_eq!((outcome.decision, outcome.holds.len()), (Decision::Promote, 0), "{outcome:?}");
    let gates: Vec<f64> = outcome.gates.iter().map(|gate| gate.weight).collect();
    assert_eq!(gates, [10.0, 33.0, 66.0, 100.0]);

    let mut bad = baseline(240);
    for _ in 0..20 {
        bad.ok(2.0, requests(735.0, 1.0), requests(15.0, 1.0));
    }
    let outcome = bad.play();
    assert_eq!((outcome.decision, outcome.reason.as_str()), (Decision::Abort, "error-ratio"));
    // Five failures in 75 requests, against 0.13 %.
    assert_eq!(outcome.t, 3600.0 + 15.0 * 5.0, "{outcome:?}");
    let line = serde_json::to_value(&outcome).unwrap();
    assert_eq!(line["gates"], serde_json::json!([{"weight": 100, "openAt": null}]));
    assert_eq!(
        (&line["t"], &line["decision"], &line["trace"]),
        (&3675.into(), &"Abort".into(), &"t1".into())
    );
    assert!(line["guards"][0]["rows"][2]["keyed"].as_bool().unwrap());

    let mut slow = baseline(240);
    for _ in 0..40 {
        slow.ok(2.0, requests(735.0, 1.0), [15.0, 0.0, 0.0, 12.0, 15.0]);
    }
    let outcome = slow.play();
    assert_eq!((outcome.decision, outcome.reason.as_str()), (Decision::Abort, "latency"));
}

#[test]
fn at_weight_100_a_fault_is_reverted() {
    let mut tape = baseline(240);
    for _ in 0..10 {
        tape.ok(50.0, requests(375.0, 0.0), requests(375.0, 0.0));
    }
    for _ in 0..10 {
        tape.ok(100.0, [0.0; 5], requests(750.0, 9.0));
    }
    let outcome = tape.play();
    assert_eq!((outcome.decision, outcome.reason.as_str()), (Decision::Revert, "error-ratio"), "{outcome:?}");
}

#[test]
fn a_gap_with_the_same_pods_is_one_window() {
    let tape = |states: &[State]| {
        let mut tape = baseline(40);
        tape.ok(2.0, requests(735.0, 1.0), requests(15.0, 0.0));
        for state in states {
            tape.add(requests(735.0, 1.0), requests(15.0, 1.0));
            tape.push(2.0, *state, None);
        }
        tape.t = 41.0 * 15.0 + 15.0 * 4.0;
        tape.pods[1] = [60.0, 3.0, 60.0, 60.0, 60.0];
        tape.pods[0] =
            [1e6 + 750.0 * 40.0 + 3000.0, 123.0, 9e5 + 750.0 * 40.0 + 3000.0, 1e6 + 33_000.0, 1e6 + 33_000.0];
        tape.ok(2.0, [0.0; 5], [0.0; 5]);
        tape
    };
    let (with, without) = (tape(&[State::Outage, State::NoData, State::Stale]).play(), tape(&[]).play());
    assert_eq!(with.guards, without.guards);
    assert_eq!(with.score, without.score);
    assert!(with.score > 0.0);
    assert_eq!(with.holds[0].reason, "NoData");
    assert_eq!((with.holds[0].from, with.holds[0].to), (630.0, 675.0));

    // With a weight that moved in the gap nobody knows what belongs to which.
    let mut moved = baseline(40);
    moved.ok(2.0, requests(735.0, 1.0), requests(15.0, 0.0));
    let before = moved.play();
    moved.push(10.0, State::Outage, None);
    moved.ok(10.0, requests(735.0, 1.0), requests(15.0, 15.0));
    assert_eq!(moved.play().score, before.score);
}

#[test]
fn a_restart_counts_from_zero_and_a_tighter_class_stops_no_later() {
    let mut tape = baseline(240);
    for _ in 0..4 {
        tape.ok(2.0, requests(735.0, 1.0), requests(15.0, 0.0));
    }
    tape.pods[1] = [0.0; 5];
    for _ in 0..3 {
        tape.ok(2.0, requests(735.0, 1.0), requests(15.0, 2.0));
    }
    let when = |class| {
        let options = Options { class, always: true, ..Options::default() };
        let outcome = replay(&tape.trace, &Policy::default(), &options, |_| {});
        assert_eq!(outcome.decision, Decision::Abort, "{outcome:?}");
        outcome.t
    };
    let times: Vec<f64> = RiskClass::ALL.into_iter().map(when).collect();
    assert!(times.windows(2).all(|pair| pair[0] >= pair[1]), "{times:?}");
}

#[test]
fn without_common_buckets_latency_is_held() {
    let mut tape = baseline(40);
    tape.trace.header.latency_slo_seconds = Some(2.0);
    for _ in 0..40 {
        tape.ok(50.0, requests(375.0, 0.0), requests(375.0, 0.0));
    }
    let outcome = tape.play();
    assert_eq!((outcome.decision, outcome.reason.as_str()), (Decision::Hold, "NoData"), "{outcome:?}");
}
