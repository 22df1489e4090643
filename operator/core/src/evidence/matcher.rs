//! Matchers on labels, with Alertmanager's meaning: a missing label is the empty string, and a regular
//! expression has to match the whole value.

use crate::api::{AlertMatcher, MatchOp};
use regex::{Regex, RegexBuilder};
use std::collections::BTreeMap;

/// Largest compiled expression, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

enum Test {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    NotMatches(Regex),
}

/// Compiled matchers; all have to match.
pub struct Matchers(Vec<(String, Test)>);

impl Matchers {
    /// Compiles matchers.
    ///
    /// # Errors
    /// A sentence that names the matcher whose expression is not valid.
    pub fn compile(matchers: &[AlertMatcher]) -> Result<Self, String> {
        let compiled = matchers.iter().map(|m| {
            let test = match m.op {
                MatchOp::Equal => Test::Equal(m.value.clone()),
                MatchOp::NotEqual => Test::NotEqual(m.value.clone()),
                MatchOp::Matches => Test::Matches(whole(m)?),
                MatchOp::NotMatches => Test::NotMatches(whole(m)?),
            };
            Ok((m.label.clone(), test))
        });
        compiled.collect::<Result<_, String>>().map(Self)
    }

    /// Whether all matchers match. No matchers match nothing: a guard on every alert is a mistake.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.0.is_empty()
            && self.0.iter().all(|(label, test)| {
                let value = labels.get(label).map_or("", String::as_str);
                match test {
                    Test::Equal(v) => value == v,
                    Test::NotEqual(v) => value != v,
                    Test::Matches(r) => r.is_match(value),
                    Test::NotMatches(r) => !r.is_match(value),
                }
            })
    }
}

/// Checks matchers without keeping them.
///
/// # Errors
/// As [`Matchers::compile`].
pub fn check_matchers(matchers: &[AlertMatcher]) -> Result<(), String> {
    Matchers::compile(matchers).map(|_| ())
}

fn whole(m: &AlertMatcher) -> Result<Regex, String> {
    // Compiled alone first: `a)(b` would be valid inside the anchors.
    let alone = RegexBuilder::new(&m.value).size_limit(SIZE_LIMIT).build();
    let anchored = format!("^(?:{})$", m.value);
    alone.and_then(|_| RegexBuilder::new(&anchored).size_limit(SIZE_LIMIT).build()).map_err(|e| {
        let reason = match e {
            regex::Error::CompiledTooBig(_) => "it is too large".to_string(),
            // The last line says what is wrong; those before it draw a picture.
            e => e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_string(),
        };
        format!("matcher on label {:?}: {:?} is not a regular expression: {reason}", m.label, m.value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(label: &str, op: MatchOp, value: &str) -> AlertMatcher {
        AlertMatcher { label: label.into(), op, value: value.into() }
    }

    fn hit(matchers: &[AlertMatcher], labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
        Matchers::compile(matchers).is_ok_and(|c| c.matches(&labels))
    }

    #[test]
    fn all_four_operators() {
        let web = [("service", "web-canary"), ("severity", "critical")];
        assert!(hit(&[m("severity", MatchOp::Equal, "critical")], &web));
        assert!(!hit(&[m("severity", MatchOp::Equal, "crit")], &web));
        assert!(hit(&[m("severity", MatchOp::NotEqual, "warning")], &web));
        assert!(hit(&[m("service", MatchOp::Matches, "web|web-canary")], &web));
        assert!(!hit(&[m("service", MatchOp::Matches, "web")], &web), "anchored");
        assert!(hit(&[m("service", MatchOp::NotMatches, "web")], &web));
        assert!(!hit(&[m("service", MatchOp::NotMatches, "web.*")], &web));
    }

    #[test]
    fn all_have_to_match_and_none_is_not_every() {
        let web = [("service", "web"), ("severity", "warning")];
        let both = [m("service", MatchOp::Equal, "web"), m("severity", MatchOp::Equal, "critical")];
        assert!(!hit(&both, &web));
        assert!(hit(&both[..1], &web));
        assert!(!hit(&[], &web));
    }

    #[test]
    fn a_missing_label_is_empty() {
        assert!(hit(&[m("team", MatchOp::Equal, "")], &[]));
        assert!(hit(&[m("team", MatchOp::NotEqual, "a")], &[]));
        assert!(hit(&[m("team", MatchOp::Matches, ".*")], &[]));
        assert!(!hit(&[m("team", MatchOp::Matches, ".+")], &[]));
    }

    #[test]
    fn bad_expressions_are_named() {
        for bad in ["(", "a)(b", "[", "*", "a{99999}{99999}"] {
            let error = check_matchers(&[m("service", MatchOp::Matches, bad)]).err().unwrap_or_default();
            assert!(error.contains("\"service\"") && error.contains("not a regular expression"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(check_matchers(&[m("service", MatchOp::Equal, "(")]).is_ok());
    }
}
