//! The counts of one window: one cell per arm and pod.

use super::bet::Counts;

/// Requests of one pod in one window, or of a whole arm where pods can't be told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cell {
    /// Number of the pod in its run: the same pod has the same number in every window.
    pub pod: u32,
    /// Requests.
    pub n: f64,
    /// Bad ones, by the rule that stops a canary.
    pub x: f64,
    /// Bad ones, by the rule that lets it pass. They differ where the measure is coarse: a latency limit between two
    /// bounds of a histogram counts as slow what is surely slow against the canary, and what may be slow for it.
    pub x_gate: f64,
}

/// What happened between two evaluations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window<'a> {
    /// Its end, in seconds since any fixed moment.
    pub end: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Requests that met the canary, by pod.
    pub canary: &'a [Cell],
    /// Requests that met stable, by pod.
    pub stable: &'a [Cell],
    /// Whether pods can be told apart; if not, cells are those of whatever counts for both arms, such as routers.
    pub by_pod: bool,
    /// Pods of the canary and of stable, whether or not they have a cell: one that has just come has none yet.
    pub pods: (usize, usize),
}

/// Whether a pod that had answered so many requests before a window takes part in it. Which of a window's requests were the
/// first is not known, and what fails while a pod is cold is among them: a window counts as a whole or not at all.
pub fn is_warm(answered: f64, warmup: f64) -> bool {
    answered >= warmup
}

/// Sum of an arm by the rule that stops a canary.
pub fn total(cells: &[Cell]) -> Counts {
    cells.iter().fold(Counts::default(), |sum, c| sum.plus(Counts::new(c.n, c.x)))
}

/// Sum of an arm by the rule that lets a canary pass.
pub fn total_gate(cells: &[Cell]) -> Counts {
    cells.iter().fold(Counts::default(), |sum, c| sum.plus(Counts::new(c.n, c.x_gate)))
}
