//! The bet: by how much one window of counts multiplies the wealth that stands against the canary.
//!
//! A wealth process whose factors have an expectation of at most 1 while the canary is within tolerance
//! exceeds `1/alpha` times its capital with probability at most `alpha`, however often one looks (Ville's
//! inequality, 1939). The factors are e-values in the sense of Vovk & Wang (Annals of Statistics 49(3),
//! 2021). Derivation: `docs/evidence.md`. Units: `n` requests, `x` failed requests of one window and arm,
//! rates are fractions of 1. Every function is total: counts that are not finite or not positive bet nothing.

/// No window multiplies a wealth by more than 1000: the arms are never aligned to the second, so at the edge
/// of an incident that hits both, one window may show any ratio.
pub const LN_CAP: f64 = 6.907_755_278_982_137;

/// Requests and failed requests of one arm. May be fractional.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Requests.
    pub n: f64,
    /// Failed requests.
    pub x: f64,
}

impl Counts {
    /// Counts with `0 <= x <= n`, both finite; anything else becomes the nearest such pair, NaN becomes 0.
    pub fn new(n: f64, x: f64) -> Self {
        let n = clean(n);
        Self { n, x: clean(x).min(n) }
    }

    /// Share of failed requests, 0 without requests.
    pub fn rate(self) -> f64 {
        if self.n > 0.0 { self.x / self.n } else { 0.0 }
    }

    /// Adds the counts of another window.
    pub fn add(&mut self, other: Self) {
        *self = Self::new(self.n + other.n, self.x + other.x);
    }
}

/// The largest count that is told apart from the next one.
const MAX_COUNT: f64 = 9e15;

pub(super) fn clean(v: f64) -> f64 {
    if v.is_nan() { 0.0 } else { v.clamp(0.0, MAX_COUNT) }
}

/// Tolerance of a class: the canary is good while `p_canary <= (1 + relative) * p_stable + absolute`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// Tolerated relative rise, 0.15 is 15 %.
    pub relative: f64,
    /// Tolerated absolute rise as a fraction of requests, 0.0002 is 2 basis points.
    pub absolute: f64,
}

/// Multipliers `(m, w)` of one failed canary and one failed stable request, when the alternative is that the
/// canary fails `(1 + relative) * q` times as often as stable.
pub fn multipliers(n_canary: f64, n_stable: f64, relative: f64, q: f64) -> (f64, f64) {
    let (n_c, n_s) = (clean(n_canary), clean(n_stable));
    let one_r = 1.0 + clean(relative);
    let d = n_c * one_r * q + n_s;
    if d <= 0.0 || !d.is_finite() {
        return (1.0, 1.0);
    }
    let w = (n_c * one_r + n_s) / d;
    (q * w, w)
}

/// Log of the factor of one window, canary against the concurrent stable, uncapped. 0 when either arm has no
/// requests. `q > 1` is the alternative in units of the tolerated ratio.
pub fn ln_factor(canary: Counts, stable: Counts, tolerance: Tolerance, q: f64) -> f64 {
    let (c, s) = (Counts::new(canary.n, canary.x), Counts::new(stable.n, stable.x));
    if c.n <= 0.0 || s.n <= 0.0 {
        return 0.0;
    }
    let (m, w) = multipliers(c.n, s.n, tolerance.relative, q);
    finite(xlny(c.x, m) + xlny(s.x, w) - clean(tolerance.absolute) * c.n * (m - 1.0))
}

/// Log of the factor of one window against a fixed ceiling of the canary's rate, uncapped.
pub fn ln_factor_one_sample(canary: Counts, ceiling: f64, q: f64) -> f64 {
    let c = Counts::new(canary.n, canary.x);
    if c.n <= 0.0 || ceiling.is_nan() {
        return 0.0;
    }
    finite(xlny(c.x, q) - ceiling.clamp(0.0, 1.0) * c.n * (q - 1.0))
}

/// 99 % upper bound of a rate from `x` failed of `n` requests: Wilson & Hilferty's cube-root approximation of
/// the chi-squared quantile (PNAS 17, 1931). 1 without requests.
pub fn upper_bound(counts: Counts) -> f64 {
    let c = Counts::new(counts.n, counts.x);
    if c.n <= 0.0 {
        return 1.0;
    }
    let y = c.x + 1.0;
    let root = 1.0 - 1.0 / (9.0 * y) + 2.326_348 / (3.0 * y.sqrt());
    y * root * root * root / c.n
}

/// `x ln y` with `0 ln 0 = 0`.
fn xlny(x: f64, y: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x * y.ln() }
}

/// NaN bets nothing.
fn finite(ln: f64) -> f64 {
    if ln.is_nan() { 0.0 } else { ln }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, want: f64) {
        // Six digits, as the published vectors are printed.
        assert!((got - want).abs() <= 1e-5 * want.abs().max(1e-9), "got {got}, want {want}");
    }

    #[test]
    fn multipliers_match_the_vectors() {
        for (n_c, n_s, r, q, m, w) in [
            (50.0, 950.0, 0.15, 5.0, 4.07071, 0.814141),
            (500.0, 500.0, 0.15, 5.0, 1.59259, 0.318519),
            (50.0, 950.0, 0.5, 100.0, 12.1302, 0.121302),
        ] {
            let got = multipliers(n_c, n_s, r, q);
            close(got.0, m);
            close(got.1, w);
        }
    }

    #[test]
    fn factors_match_the_vectors() {
        let t = |relative, absolute| Tolerance { relative, absolute };
        let r2 = t(0.15, 2e-4);
        let f = |x_c, n_c, x_s, n_s, tol, q| ln_factor(Counts::new(n_c, x_c), Counts::new(n_s, x_s), tol, q);
        close(f(3.0, 50.0, 1.0, 950.0, r2, 5.0), 3.97512);
        close(f(3.0, 50.0, 0.0, 950.0, r2, 5.0), 4.18074);
        close(f(0.0, 50.0, 4.0, 950.0, r2, 5.0), -0.853192);
        close(f(30.0, 500.0, 2.0, 500.0, t(0.5, 5e-4), 10.0), 9.53539);
        assert_eq!(f(1.0, 0.0, 1.0, 950.0, r2, 5.0), 0.0);
        assert_eq!(f(1.0, 50.0, 0.0, 0.0, r2, 5.0), 0.0);
    }

    #[test]
    fn one_sample_factors_match_the_vectors() {
        close(ln_factor_one_sample(Counts::new(750.0, 4.0), 0.0015, 10.0), -0.91466);
        close(ln_factor_one_sample(Counts::new(750.0, 0.0), 0.0015, 10.0), -10.125);
    }

    #[test]
    fn bounds_match_the_vectors() {
        close(upper_bound(Counts::new(45_000.0, 45.0)), 0.00140528);
        close(upper_bound(Counts::new(1_000.0, 0.0)), 0.00461025);
        assert_eq!(upper_bound(Counts::new(0.0, 0.0)), 1.0);
    }

    #[test]
    fn nonsense_bets_nothing() {
        let nan = Counts { n: f64::NAN, x: f64::NAN };
        let good = Counts::new(10.0, 1.0);
        let tol = Tolerance { relative: f64::NAN, absolute: f64::INFINITY };
        assert_eq!(ln_factor(nan, good, Tolerance::default(), 5.0), 0.0);
        assert_eq!(ln_factor_one_sample(nan, 0.1, 5.0), 0.0);
        assert_eq!(ln_factor_one_sample(good, f64::NAN, 5.0), 0.0);
        assert!(!ln_factor(good, good, tol, 5.0).is_nan());
        assert_eq!(multipliers(0.0, 0.0, 0.1, 5.0), (1.0, 1.0));
        assert_eq!(Counts::new(5.0, 9.0).x, 5.0);
        assert_eq!(Counts::new(-5.0, 9.0), Counts::default());
    }

    #[test]
    fn the_cap_is_a_thousand() {
        assert!((LN_CAP.exp() - 1000.0).abs() < 1e-9);
    }
}
