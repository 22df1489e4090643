//! Means and shares with their intervals.

use serde::Serialize;

/// Quantiles 0.975 of Student's t for 1 to 30 degrees of freedom.
const T_975: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
/// Beyond those: the normal quantile is less than 4 % smaller.
const Z_975: f64 = 1.960;

/// A mean and its two-sided 95 % interval by Student's t.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Mean {
    /// Of at least two values; with fewer the interval has no width.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n.max(1.0);
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let free = values.len().saturating_sub(1);
        let t = free.checked_sub(1).map_or(0.0, |i| T_975.get(i).copied().unwrap_or(Z_975));
        let half = t * (squares / (free.max(1) as f64) / n.max(1.0)).sqrt();
        Self { mean, low: mean - half, high: mean + half }
    }
}

/// How often something happened, with the two-sided 95 % interval of Wilson (JASA 22, 1927).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Runs in which it did.
    pub of: usize,
    /// Runs.
    pub runs: usize,
    /// The share.
    pub share: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Share {
    /// Of at least one run.
    pub fn of(of: usize, runs: usize) -> Self {
        let (n, share) = (runs as f64, of as f64 / runs as f64);
        let square = Z_975 * Z_975;
        let middle = (share + square / (2.0 * n)) / (1.0 + square / n);
        let spread = (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
        let half = Z_975 * spread / (1.0 + square / n);
        Self { of, runs, share, low: (middle - half).max(0.0), high: (middle + half).min(1.0) }
    }
}

/// The middle value, or the mean of the two in the middle; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (n, half) if n % 2 == 1 => sorted[half],
        (_, half) => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_has_the_interval_of_the_textbook() {
        // 9.0, 10.0, 11.0: s = 1, n = 3, t(2) = 4.303, half = 4.303 / sqrt(3).
        let mean = Mean::of(&[9.0, 10.0, 11.0]);
        assert!((mean.mean - 10.0).abs() < 1e-9 && (mean.high - 12.484).abs() < 1e-3, "{mean:?}");
        assert!((mean.low - 7.516).abs() < 1e-3, "{mean:?}");
    }

    #[test]
    fn a_share_has_the_interval_of_the_textbook() {
        // Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 has 0.2553 to 0.3662.
        let share = Share::of(81, 263);
        assert!((share.low - 0.2553).abs() < 1e-4 && (share.high - 0.3662).abs() < 1e-4, "{share:?}");
        assert!(Share::of(36, 36).high <= 1.0 && Share::of(36, 36).low > 0.9);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
        assert!((median(&[5.0, 1.0, 3.0]) - 3.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }
}
