//! How failures cluster, and how pods differ, learned from stable alone: a bad canary can't hide behind itself.
//!
//! In cells with `(n_i, x_i)`, `q_i = n_i/N`, `s = sum q_i^2`, the excess of pairs of failures in one cell,
//! `e = (sum x_i (x_i-1) - s X) / (1-s)`, has mean 0 for independent failures whatever their total does, and a
//! cluster of K failures in one cell adds K (K-1). Cells are stable's pods within a block of windows (failures that
//! cluster in a pod), and windows within a block of time (failures that cluster in time, in all pods).

use super::bet::Z_99;
use super::cell::{Cell, Window, total};
use serde::{Deserialize, Serialize};

/// Lengths of the blocks in which pods are compared, in windows.
const POD_BLOCKS: [u32; 3] = [1, 4, 16];
/// Length of the blocks in which windows are compared, in windows.
const TIME_BLOCK: u32 = 16;
/// Blocks of time that are remembered one by one: the largest tenth of all does not count, of up to 640.
const REMEMBERED: usize = 64;
/// The largest burst factor.
pub const MAX_PHI: f64 = 64.0;
/// From this burst factor on people are told.
pub const OVERDISPERSED: f64 = 10.0;
/// How much pods may differ where that can't be seen: standard deviation of their rates over the mean.
pub const UNSEEN_CV: f64 = 0.3;
/// 99.5 % quantile of the normal distribution: pods differ by more in 0.5 % of good canaries.
const Z_WIDEN: f64 = 2.58;
/// Failures without which pods can't be said to differ: with fewer a single cluster looks like a bad pod.
const SPREAD_FAILURES: f64 = 10.0;
/// Standard error of `cv^2` up to which one of them is enough: what chance feigns there widens little (by 1.7 with one
/// canary pod and ten of stable), and a spread that is overlooked aborts good canaries.
const SMALL_ERROR: f64 = 0.065;

/// Excess of pairs in cells of `(n, x)`; none where a single cell has everything.
#[derive(Clone, Copy, Debug, Default)]
struct Pairs {
    n: f64,
    n2: f64,
    x: f64,
    pairs: f64,
}

impl Pairs {
    fn add(&mut self, n: f64, x: f64) {
        self.n += n;
        self.n2 += n * n;
        self.x += x;
        self.pairs += x * (x - 1.0);
    }

    /// `sum q_i^2`.
    fn s(&self) -> f64 {
        self.n2 / (self.n * self.n)
    }

    fn excess(&self) -> Option<f64> {
        let s = self.s();
        (self.n > 0.0 && s < 1.0 - 1e-9).then(|| (self.pairs - s * self.x * (self.x - 1.0)) / (1.0 - s))
    }
}

/// Sums over blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Sum of excesses.
    pub e: f64,
    /// Sum of their squares.
    pub e2: f64,
    /// Failures.
    pub x: f64,
}

impl Estimate {
    fn add(&mut self, e: f64, x: f64) {
        self.e += e;
        self.e2 += e * e;
        self.x += x;
    }

    fn without(self, blocks: &[(f64, f64)]) -> Self {
        let mut rest = self;
        for (e, x) in blocks {
            rest.e -= e;
            rest.e2 -= e * e;
            rest.x -= x;
        }
        rest
    }

    /// Variance over mean. Counts only beyond its standard error; with the prior of 5 failures at 1.1.
    pub fn phi(self) -> f64 {
        let excess = if self.e > self.e2.max(0.0).sqrt() { self.e } else { 0.0 };
        1.0 + (excess + 0.5) / (self.x.max(0.0) + 5.0)
    }
}

/// Pods over several windows: those present in all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct PodBlock {
    windows: u32,
    pods: Vec<(u32, f64, f64)>,
}

impl PodBlock {
    fn add(&mut self, cells: &[Cell]) {
        if self.windows == 0 {
            self.pods = cells.iter().map(|c| (c.pod, c.n, c.x)).collect();
        } else {
            self.pods.retain_mut(|(pod, n, x)| match cells.binary_search_by_key(pod, |c| c.pod) {
                Ok(at) => {
                    *n += cells[at].n;
                    *x += cells[at].x;
                    true
                }
                Err(_) => false,
            });
        }
        self.windows += 1;
    }
}

/// Windows of one block of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct TimeBlock {
    windows: u32,
    n: f64,
    n2: f64,
    x: f64,
    pairs: f64,
}

/// What is known about clusters of stable's failures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bursts {
    pods: [Estimate; 3],
    open: [PodBlock; 2],
    /// Whether pods were ever compared.
    #[serde(default)]
    compared: bool,
    time: Estimate,
    time_open: TimeBlock,
    /// Blocks of time so far.
    blocks: u32,
    /// The blocks of the largest excess, `(e, x)`, largest first.
    largest: Vec<(f64, f64)>,
}

impl Bursts {
    /// Takes in stable's part of one window, unpooled.
    pub fn add(&mut self, window: &Window<'_>) {
        if window.by_pod {
            let mut cells = window.stable.to_vec();
            cells.sort_unstable_by_key(|cell| cell.pod);
            self.add_pods(&cells);
        }
        let all = total(window.stable);
        let open = &mut self.time_open;
        open.windows += 1;
        open.n += all.n;
        open.n2 += all.n * all.n;
        open.x += all.x;
        open.pairs += all.x * (all.x - 1.0);
        if open.windows == TIME_BLOCK {
            let TimeBlock { n, n2, x, pairs, .. } = std::mem::take(open);
            if let Some(e) = (Pairs { n, n2, x, pairs }).excess() {
                self.add_time(e, x);
            }
        }
    }

    fn add_pods(&mut self, cells: &[Cell]) {
        let [one, more @ ..] = &mut self.pods;
        self.compared |= compare(one, cells.iter().map(|c| (c.n, c.x)));
        for ((block, estimate), length) in self.open.iter_mut().zip(more).zip(&POD_BLOCKS[1..]) {
            block.add(cells);
            if block.windows == *length {
                let PodBlock { pods, .. } = std::mem::take(block);
                self.compared |= compare(estimate, pods.iter().map(|(_, n, x)| (*n, *x)));
            }
        }
    }

    fn add_time(&mut self, e: f64, x: f64) {
        self.time.add(e, x);
        self.blocks += 1;
        let at = self.largest.partition_point(|(larger, _)| *larger >= e);
        if at < REMEMBERED {
            self.largest.insert(at, (e, x));
            self.largest.truncate(REMEMBERED);
        }
    }

    /// The burst factor, 1 to 64.
    pub fn phi(&self) -> f64 {
        let pods = self.pods.iter().map(|estimate| estimate.phi()).fold(1.0, f64::max);
        // A shared rate that wanders looks like bursts; the windows of an incident are the largest of them. Where pods
        // can't be compared, this is all there is, and nothing is dropped.
        let dropped =
            if self.compared { (self.blocks as usize).div_ceil(10).min(self.largest.len()) } else { 0 };
        let time = self.time.without(&self.largest[..dropped]).phi();
        pods.max(time).clamp(1.0, MAX_PHI)
    }
}

/// Compares pods, if there are two.
fn compare(estimate: &mut Estimate, cells: impl Iterator<Item = (f64, f64)>) -> bool {
    let (mut pairs, mut pods) = (Pairs::default(), 0);
    for (n, x) in cells {
        pairs.add(n, x);
        pods += 1;
    }
    let excess = pairs.excess().filter(|_| pods >= 2);
    if let Some(e) = excess {
        estimate.add(e, pairs.x);
    }
    excess.is_some()
}

/// How much the rates of stable's pods differ, as a standard deviation over the mean, from their totals `(n, x)`
/// before the start. 0 unless it is beyond chance.
///
/// Failures that are dealt out to the pods by their requests alone give `phi nu + X cv^2`, with `nu = 1/s - 1`, the
/// distribution of `phi` times a chi-square variable of `nu` degrees of freedom: from few failures `cv^2` is large by
/// chance, and has to be beyond its 99 % quantile. Pods of unequal size add `4 X^3 (sum q_i^3 - s^2)` to the variance of the
/// pairs: the second term of the root.
pub fn pod_spread(pods: impl Iterator<Item = (f64, f64)>, phi: f64) -> f64 {
    let (mut pairs, mut n3) = (Pairs::default(), 0.0);
    pods.for_each(|(n, x)| {
        pairs.add(n, x);
        n3 += n * n * n;
    });
    if pairs.n <= 0.0 || pairs.x < SPREAD_FAILURES {
        return 0.0;
    }
    let (s, x) = (pairs.s(), pairs.x);
    let nu = 1.0 / s - 1.0;
    if nu < 1e-9 {
        return 0.0; // one pod differs from none
    }
    let cv2 = (pairs.pairs - s * x * (x - 1.0) - (phi - 1.0) * x * (1.0 - s)) / (s * x * x);
    let unequal = (n3 / pairs.n.powi(3) / (s * s) - 1.0).max(0.0);
    let root = (1.0 + 2.0 * x * unequal / nu).sqrt();
    let error = (2.0 / s).sqrt() / x * root;
    let chance = if error <= SMALL_ERROR { error } else { (chi_square_99(nu) - nu) / x * root };
    if cv2 > phi * chance { cv2.sqrt() } else { 0.0 }
}

/// 99 % quantile of the chi-square distribution (Wilson & Hilferty).
fn chi_square_99(nu: f64) -> f64 {
    let variance = 2.0 / (9.0 * nu);
    nu * (1.0 - variance + Z_99 * variance.sqrt()).powi(3)
}

/// By how much the tolerated ratio is widened, because the canary's pods are a sample as stable's are.
pub fn widen(spread: f64, canary_pods: usize, stable_pods: usize) -> f64 {
    let share = |pods: usize| 1.0 / pods.max(1) as f64;
    1.0 + Z_WIDEN * spread * (share(canary_pods) + share(stable_pods)).sqrt()
}

#[cfg(test)]
pub(super) fn vectors() -> ([f64; 4], f64, f64) {
    let windows = [[1.0, 0.0, 5.0, 0.0], [0.0, 2.0, 0.0, 1.0], [0.0; 4], [1.0, 1.0, 0.0, 0.0]];
    let (mut single, mut estimate, mut block) = ([0.0; 4], Estimate::default(), PodBlock::default());
    for (window, e) in windows.iter().zip(&mut single) {
        let mut pairs = Pairs::default();
        window.iter().for_each(|x| pairs.add(100.0, *x));
        *e = pairs.excess().unwrap();
        estimate.add(*e, pairs.x);
        let cells: Vec<Cell> =
            window.iter().zip(0..).map(|(x, pod)| Cell { pod, n: 100.0, x: *x, x_gate: *x }).collect();
        block.add(&cells);
    }
    let mut pairs = Pairs::default();
    block.pods.iter().for_each(|(_, n, x)| pairs.add(*n, *x));
    (single, estimate.phi(), pairs.excess().unwrap())
}
