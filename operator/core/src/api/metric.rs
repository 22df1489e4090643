//! A guard on a value of a person's own: a PromQL expression and the range that its value should stay in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a value may be out of range, in seconds, unless the guard says otherwise.
const DEFAULT_FOR_SECONDS: i32 = 300;

/// A value that a PromQL expression yields for one revision, and where it should stay. Such values follow their own past,
/// so no bound on false aborts can be given: there is no score. Outside the range at every evaluation for `forSeconds`
/// trips the guard; the first such evaluation holds already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricGuard {
    /// PromQL expression that yields one series, 1 to 2000 characters. Placeholders: `$namespace`; `$pods`, a regular
    /// expression for the names of the revision's pods; `$service`, the revision's Service; `$canaryPods` and
    /// `$stablePods`, those of one revision whichever is asked about. With minRatio or maxRatio the expression is
    /// evaluated for the canary and for stable, so it needs `$pods` or `$service`.
    #[schemars(length(min = 1, max = 2000))]
    pub query: String,
    /// The canary's value may not be below this: a quantity such as `"5"`, `"0.5"`, `500m` or `900Mi`. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Quantity>,
    /// The canary's value may not be above this: a quantity such as `"5"`, `"0.5"`, `500m` or `900Mi`. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Quantity>,
    /// The canary's value may not be below this many times stable's, a quantity such as `"0.5"`. Not judged at weight 100,
    /// where stable no longer serves. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ratio: Option<Quantity>,
    /// The canary's value may not be above this many times stable's, a quantity such as `"1.5"`. Not judged at weight 100,
    /// where stable no longer serves. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ratio: Option<Quantity>,
    /// How long the value has to be out of range at every evaluation, and at 5 of them at least, until the guard trips, in
    /// seconds, 0 to 3600. Only action Abort waits for that: Hold holds from the first evaluation on, for as long as
    /// the value is out of range. Default 300.
    #[serde(default = "default_for_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub for_seconds: i32,
}

fn default_for_seconds() -> i32 {
    DEFAULT_FOR_SECONDS
}

impl MetricGuard {
    /// Whether it compares the canary with stable.
    pub fn compares(&self) -> bool {
        self.min_ratio.is_some() || self.max_ratio.is_some()
    }
}

/// A number as Kubernetes writes quantities: `5`, `0.5`, `500m`, `900Mi`, `2e9`. Specs have no floats, which not every
/// client writes back as it read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Quantity(
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = r"^-?[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]{1,2})?$")
    )]
    String,
);

impl Quantity {
    /// From its text, which may turn out to be none.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Its value; none if it is no quantity.
    pub fn value(&self) -> Option<f64> {
        let written = self.0.as_str();
        // f64 reads `inf`, `nan` and `+1` too.
        let first = written.strip_prefix('-').unwrap_or(written).chars().next();
        first.filter(char::is_ascii_digit)?;
        let suffixed =
            SUFFIXES.iter().find_map(|(suffix, factor)| Some((written.strip_suffix(suffix)?, *factor)));
        let (number, factor) = suffixed.unwrap_or((written, 1.0));
        let value = number.parse::<f64>().ok()? * factor;
        value.is_finite().then_some(value)
    }
}

/// Powers of 1024 and of 1000.
const SUFFIXES: [(&str, f64); 13] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, value) in [
            ("5", Some(5.0)),
            ("-0.5", Some(-0.5)),
            ("500m", Some(0.5)),
            ("900Mi", Some(943_718_400.0)),
            ("1.5k", Some(1500.0)),
            ("2e9", Some(2e9)),
            ("2E-3", Some(2e-3)),
            ("1E", Some(1e18)),
            ("", None),
            ("M", None),
            ("inf", None),
            ("NaN", None),
            ("+1", None),
            ("1e999", None),
            ("0x10", None),
            ("5 M", None),
        ] {
            assert_eq!(Quantity::new(text).value(), value, "{text}");
        }
    }
}
