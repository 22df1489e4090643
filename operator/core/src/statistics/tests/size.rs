//! How often a canary at the limit is stopped, and one at the margin let through: 10,000 runs each, looked at after
//! every window, with stable's rate moving by a factor of 5.

use crate::api::RiskClass;
use crate::statistics::bet::{Burst, Counts, ln_factor};
use crate::statistics::gate::Gate;
use crate::statistics::process::Process;
use crate::statistics::rows::built_in;

const RUNS: usize = 10_000;

/// Splitmix64 (Steele, Lea & Flood 2014): the same runs everywhere.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // In (0, 1): its logarithm is taken.
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(super) fn poisson(&mut self, mean: f64) -> f64 {
        let (mut left, mut count) = (mean, 0.0);
        loop {
            left += self.unit().ln();
            if left < 0.0 {
                return count;
            }
            count += 1.0;
        }
    }

    /// Failures in bursts: negative binomial as a Poisson number of clusters of log-series size (Kemp 1981).
    fn failures(&mut self, mean: f64, burst: Burst) -> f64 {
        if burst == Burst::NONE {
            return self.poisson(mean);
        }
        let p = 1.0 - 1.0 / burst.phi();
        let clusters = self.poisson(mean / burst.b()) as usize;
        let size = |random: &mut Self| {
            let (u, v) = (random.unit(), random.unit());
            1.0 + (v.ln() / (-((1.0 - p).powf(u) - 1.0)).ln()).floor()
        };
        (0..clusters).map(|_| size(self)).sum()
    }
}

/// Windows of a run: each has stable's rate.
fn rates(random: &mut Random) -> impl Iterator<Item = f64> {
    let phase = random.unit();
    (0..40).map(move |window| 0.004 * 5.0_f64.powf((f64::from(window) / 13.0 + phase).sin()))
}

const CANARY: f64 = 200.0;
const STABLE: f64 = 800.0;

#[test]
fn a_canary_at_the_tolerance_is_stopped_no_more_often_than_capital_allows() {
    let row = built_in(RiskClass::R1);
    for phi in [1.0, 3.0] {
        let burst = Burst::new(phi);
        let mut random = Random(11);
        let stopped = (0..RUNS).filter(|_| {
            let mut process = Process::default();
            let mut due = 0.05;
            rates(&mut random).collect::<Vec<_>>().into_iter().any(|p_s| {
                let p_c = (1.0 + row.tolerance.relative) * p_s + row.tolerance.absolute;
                let canary = Counts::new(CANARY, random.failures(CANARY * p_c, burst));
                let stable = Counts::new(STABLE, random.failures(STABLE * p_s, burst));
                process.play(std::mem::take(&mut due), 1e100, |q| {
                    ln_factor(canary, stable, row.tolerance, q, burst)
                });
                process.sum() >= 1.0
            })
        });
        let stopped = stopped.count();
        assert!(stopped <= RUNS / 20, "phi {phi}: {stopped} of {RUNS}");
        // A rule that never stops anything would pass too.
        assert!(stopped >= RUNS / 1000, "phi {phi}: {stopped} of {RUNS}");
    }
}

#[test]
fn a_canary_at_the_margin_is_let_through_no_more_often_than_beta() {
    let row = built_in(RiskClass::R0);
    assert_eq!(row.beta, 0.1);
    for phi in [1.0, 3.0] {
        let burst = Burst::new(phi);
        let mut random = Random(12);
        let opened = (0..RUNS).filter(|_| {
            let mut gate = Gate::default();
            let mut n = 0.0;
            rates(&mut random).collect::<Vec<_>>().into_iter().any(|p_s| {
                let p_c = (1.0 + row.margin.relative) * p_s + row.margin.absolute;
                let canary = Counts::new(CANARY, random.failures(CANARY * p_c, burst));
                let stable = Counts::new(STABLE, random.failures(STABLE * p_s, burst));
                gate.play(canary, stable, &row, 1.0, burst);
                n += CANARY;
                gate.is_open(&row, 1.0, n)
            })
        });
        let opened = opened.count();
        assert!(opened <= RUNS / 10, "phi {phi}: {opened} of {RUNS}");
        assert!(opened >= RUNS / 1000, "phi {phi}: {opened} of {RUNS}");
    }
}
