//! Numbers and times in words.

use jiff::Timestamp;

/// A time span as kubectl writes it: two units at most.
pub fn span(seconds: i64) -> String {
    let s = seconds.max(0);
    let (days, hours, minutes) = (s / 86_400, s / 3600, s / 60);
    match s {
        0..60 => format!("{s}s"),
        60..600 if s % 60 != 0 => format!("{minutes}m{:02}s", s % 60),
        60..3600 => format!("{minutes}m"),
        3600..86_400 if minutes % 60 == 0 => format!("{hours}h"),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ if days < 10 && hours % 24 != 0 => format!("{days}d{:02}h", hours % 24),
        _ => format!("{days}d"),
    }
}

/// Seconds from `since` to `now`, never negative.
pub fn seconds(since: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(since).as_secs().max(0)
}

/// The time span from `since` to `now`.
pub fn between(since: Timestamp, now: Timestamp) -> String {
    span(seconds(since, now))
}

/// A count with separators.
pub fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0 { format!("-{out}") } else { out }
}

/// A share in thousandths as percent.
pub fn permille(share: i32) -> String {
    format!("{}.{}%", share / 10, share % 10)
}

/// A ratio of two counts as percent.
#[allow(clippy::cast_precision_loss)] // counts of requests are far below 2^52
pub fn ratio(bad: i64, all: i64) -> String {
    if all <= 0 { "-".to_owned() } else { format!("{:.2}%", 100.0 * bad as f64 / all as f64) }
}

/// A fraction as percent, with two digits that count.
pub fn share(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    let text = match percent {
        p if p >= 10.0 || p <= 0.0 => format!("{p:.0}"),
        p if p >= 1.0 => format!("{p:.1}"),
        p if p >= 0.1 => format!("{p:.2}"),
        p if p >= 0.01 => format!("{p:.3}"),
        p => format!("{p:.4}"),
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}%")
}

/// A score in thousandths, never rounded up to a limit that it has not reached.
pub fn score(permille: i64) -> String {
    format!("{}.{:02}", permille / 1000, permille % 1000 / 10)
}

/// An image without its registry and path, digests shortened.
pub fn image(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once("@sha256:") {
        Some((name, digest)) => format!("{name}@{}", digest.chars().take(12).collect::<String>()),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let cases = [
            (-3, "0s"),
            (59, "59s"),
            (60, "1m"),
            (860, "14m"),
            (95, "1m35s"),
            (3600, "1h"),
            (7_500, "2h05m"),
            (90_000, "1d01h"),
            (86_400 * 41, "41d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn counts() {
        assert_eq!(
            [count(0), count(999), count(6_120), count(1_234_567)],
            ["0", "999", "6,120", "1,234,567"]
        );
    }

    #[test]
    fn a_score_below_one_is_never_shown_as_one() {
        assert_eq!([score(0), score(40), score(999), score(1310)], ["0.00", "0.04", "0.99", "1.31"]);
    }

    #[test]
    fn shares() {
        let shares = [0.0, 1.0, 0.125, 0.02, 0.0123, 0.0051, 0.001, 0.00025, 0.000_012];
        let text = ["0%", "100%", "12%", "2%", "1.2%", "0.51%", "0.1%", "0.025%", "0.0012%"];
        assert_eq!(shares.map(share), text);
    }

    #[test]
    fn images() {
        assert_eq!(image("registry.example.com/shop/checkout:v2"), "checkout:v2");
        assert_eq!(image("r/checkout@sha256:0123456789abcdef0123"), "checkout@0123456789ab");
        assert_eq!(image("localhost:5000/checkout"), "checkout");
    }
}
