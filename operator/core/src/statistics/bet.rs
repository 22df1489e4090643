//! The bet: by how much one window of counts multiplies a wealth that stands against the canary, or for it.
//!
//! With a tolerance `(r, a)` and an alternative in which the canary's rate is `rho` times stable's, the window
//! `(n_c, x_c)`, `(n_s, x_s)` has the factor
//!
//! ```text
//! d = n_c rho + n_s        g = n_c (1+r) + n_s
//! m = rho/(1+r) g/d        w = g/d                         n_c (1+r)(m-1) + n_s (w-1) = 0
//! ln f = x_c ln T(m) + x_s ln T(w) - a n_c (m-1)/b
//! ```
//!
//! For independent failures `T(m) = m`, `b = 1` and `E f <= exp(n_c (m-1) (p_c - (1+r) p_s - a))` by `1+z <= e^z`,
//! which is at most 1 for `m > 1` while the canary is within tolerance, and for `m < 1` while it is beyond it. For
//! failures in bursts of variance `phi` times their mean (negative binomial, that is compound Poisson with
//! log-series clusters), `E T_phi(m)^x = exp((m-1) mean/b)` exactly. The factors are e-values in the sense of
//! Vovk & Wang (Annals of Statistics 49(3), 2021). Units: `n` requests, `x` failures, rates are fractions of 1.

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

    /// With the counts of another window.
    pub fn plus(self, other: Self) -> Self {
        Self::new(self.n + other.n, self.x + other.x)
    }
}

/// The largest count that is told apart from the next one.
const MAX_COUNT: f64 = 9e15;

pub(super) fn clean(v: f64) -> f64 {
    if v.is_nan() { 0.0 } else { v.clamp(0.0, MAX_COUNT) }
}

/// A canary is within tolerance while `p_canary <= (1 + relative) p_stable + absolute`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// Tolerated relative rise, 0.15 is 15 %.
    pub relative: f64,
    /// Tolerated absolute rise as a fraction of requests, 0.0002 is 2 basis points.
    pub absolute: f64,
}

/// How failures cluster: the variance of a count is `phi` times its mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    phi: f64,
    ln_phi: f64,
    /// Mean failures per burst.
    b: f64,
}

impl Burst {
    /// Failures that do not depend on each other.
    pub const NONE: Self = Self { phi: 1.0, ln_phi: 0.0, b: 1.0 };

    /// A burst factor, at least 1.
    pub fn new(phi: f64) -> Self {
        // Closer to 1 the formula loses its digits, and T is m to nine of them.
        if phi.is_nan() || phi < 1.0 + 1e-9 {
            return Self::NONE;
        }
        let phi = phi.min(1e6);
        let ln_phi = phi.ln();
        Self { phi, ln_phi, b: (phi - 1.0) / ln_phi }
    }

    /// The factor, variance over mean.
    pub fn phi(self) -> f64 {
        self.phi
    }

    /// Mean failures per burst.
    pub fn b(self) -> f64 {
        self.b
    }

    /// Multiplier of one failure of which independent ones would multiply by `m`. `T(0) = 0`, `T(1) = 1`, rising, and
    /// bounded by `phi/(phi-1)`: the more failures cluster, the less one says.
    pub fn t(self, m: f64) -> f64 {
        if self.b == 1.0 { m } else { -self.phi * (-m * self.ln_phi).exp_m1() / (self.phi - 1.0) }
    }
}

/// The largest factor of one window against the canary: arms are never aligned to the second, so at the edge of an
/// incident that hits both one window may show any ratio.
pub const LN_CAP_ABORT: f64 = 6.907_755_278_982_137;
/// The largest factor of one window for the canary.
pub const LN_CAP_GATE: f64 = 1.386_294_361_119_890_6;

/// Multipliers `(m, w)` of one failed canary and one failed stable request, for the alternative that the canary's rate
/// is `q` times the tolerated one, `(1 + relative) q` times stable's.
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

/// Log of the factor of one window, canary against the concurrent stable, without its cap. 0 when either arm has no
/// requests. `q > 1` bets against the canary, `q < 1` for it.
pub fn ln_factor(canary: Counts, stable: Counts, tolerance: Tolerance, q: f64, burst: Burst) -> f64 {
    let (c, s) = (Counts::new(canary.n, canary.x), Counts::new(stable.n, stable.x));
    if c.n <= 0.0 || s.n <= 0.0 {
        return 0.0;
    }
    let (m, w) = multipliers(c.n, s.n, tolerance.relative, q);
    let slack = clean(tolerance.absolute) * c.n * (m - 1.0) / burst.b;
    finite(x_ln(c.x, m, burst) + x_ln(s.x, w, burst) - slack)
}

/// Log of the factor of one window against a fixed ceiling of the canary's rate, without its cap.
pub fn ln_factor_one_sample(canary: Counts, ceiling: f64, q: f64, burst: Burst) -> f64 {
    let c = Counts::new(canary.n, canary.x);
    if c.n <= 0.0 || ceiling.is_nan() {
        return 0.0;
    }
    finite(x_ln(c.x, q, burst) - ceiling.clamp(0.0, 1.0) * c.n * (q - 1.0) / burst.b)
}

/// 99 % upper bound of a rate from `x` failed of `n` requests in bursts: Wilson & Hilferty's cube-root approximation
/// of the chi-squared quantile (PNAS 17, 1931) on the number of bursts. 1 without requests.
pub fn upper_bound(counts: Counts, phi: f64) -> f64 {
    let c = Counts::new(counts.n, counts.x);
    if c.n <= 0.0 {
        return 1.0;
    }
    let phi = if phi.is_nan() { 1.0 } else { phi.max(1.0) };
    let y = c.x / phi + 1.0;
    let root = 1.0 - 1.0 / (9.0 * y) + Z_99 / (3.0 * y.sqrt());
    (y * root * root * root * phi / c.n).min(1.0)
}

/// 99 % quantile of the normal distribution.
pub(super) const Z_99: f64 = 2.326_348;

/// `x ln T(m)` with `0 ln 0 = 0`.
fn x_ln(x: f64, m: f64, burst: Burst) -> f64 {
    if x == 0.0 { 0.0 } else { x * burst.t(m).ln() }
}

/// NaN bets nothing.
fn finite(ln: f64) -> f64 {
    if ln.is_nan() { 0.0 } else { ln }
}
