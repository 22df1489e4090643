//! One window: when it is open, and when it begins next.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, ToSpan};

use super::rule::{End, Rule, weekday_name};
use crate::api::FreezeWindow;

/// Seconds of a day whose clocks do not change.
const DAY: i64 = 86_400;
/// Longest window that has a duration, in days.
const LONGEST_DAYS: i64 = 366;
/// A recurrence is followed for this many days, 100 years, where its days have to be counted.
const FAR: i32 = 36_525;
/// Clocks that are set over midnight put a start on the day before or after the one that it is written for.
const SLACK_DAYS: i32 = 2;

/// A window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Window {
    Once { start: Timestamp, end: Timestamp },
    Again(Box<Again>),
}

/// A window that begins on each day of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Again {
    rule: Rule,
    first: Date,
    /// The last day of it, if there is one.
    last: Option<Date>,
    at: Time,
    length: Length,
}

/// How long a window is: local days, and time on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Length {
    days: i32,
    seconds: i64,
}

impl Window {
    /// # Errors
    /// What is wrong, from the field of the window on.
    pub fn read(written: &FreezeWindow, zone: &TimeZone) -> Result<Self, String> {
        let start = local(".start", &written.start)?;
        let length = written.duration.as_deref().map(length).transpose()?;
        let out_of_range =
            || format!(".start {:?} is out of range: write a year from 1970 to 9000", written.start);
        if !(1970..=9000).contains(&start.year()) {
            return Err(out_of_range());
        }
        match (&written.recurrence, &written.end, length) {
            (Some(_), Some(end), _) => {
                Err(format!(".end {end:?} does not go with a recurrence: write duration, such as PT8H"))
            }
            (Some(_), None, None) => {
                Err(".duration is missing: a recurrence needs one, such as PT8H".to_owned())
            }
            (None, Some(end), Some(_)) => {
                Err(format!(".end {end:?} and duration are both there: write one of them"))
            }
            (None, None, None) => {
                Err(" has neither end nor duration: write one of them, such as duration: PT8H".to_owned())
            }
            (Some(text), None, Some(length)) => Again::read(text, start, length, zone)
                .map(|again| Self::Again(Box::new(again)))
                .map_err(|problem| format!(".recurrence {text:?}: {problem}")),
            (None, None, Some(length)) => {
                let (start, end) = length.window(zone, start).ok_or_else(out_of_range)?;
                Ok(Self::Once { start, end })
            }
            (None, Some(text), None) => {
                let end = local(".end", text)?;
                let at = |local| zone.to_timestamp(local).map_err(|_| out_of_range());
                let (start, end) = (at(start)?, at(end)?);
                if end <= start {
                    return Err(format!(
                        ".end {text:?} is not after start {:?}: write a later one",
                        written.start
                    ));
                }
                Ok(Self::Once { start, end })
            }
        }
    }

    /// When it ends, if it is open at this time; `today` is the local day.
    pub fn open(&self, zone: &TimeZone, at: Timestamp, today: Date) -> Option<Timestamp> {
        match self {
            Self::Once { start, end } => (*start <= at && at < *end).then_some(*end),
            Self::Again(again) => again.open(zone, at, today),
        }
    }

    /// When it begins next, at this time or later; one that comes again is looked for this many days ahead.
    pub fn next(&self, zone: &TimeZone, from: Timestamp, today: Date, days: i32) -> Option<Timestamp> {
        match self {
            Self::Once { start, .. } => Some(*start).filter(|start| *start >= from),
            Self::Again(again) => again.next(zone, from, today, days),
        }
    }
}

impl Again {
    fn read(text: &str, start: DateTime, length: Length, zone: &TimeZone) -> Result<Self, String> {
        let first = start.date();
        let rule = Rule::parse(text, first)?;
        if !rule.has(first, first) {
            let day = weekday_name(first);
            // The days of a rule that begins on another day are those of that rule.
            let begins = |day: &Date| Rule::parse(text, *day).is_ok_and(|rule| rule.has(*day, *day));
            let begin = format!("start {start} is a {day} and not one of its days");
            let instead = match days(first).find(begins) {
                Some(day) => {
                    format!(
                        "{begin}: write a start on one of them, such as {}",
                        day.to_datetime(start.time())
                    )
                }
                None => format!("it has no day from {first} on: correct BYMONTH, BYMONTHDAY or BYDAY"),
            };
            return Err(instead);
        }
        let mut again = Self { last: None, rule, first, at: start.time(), length };
        again.last = again.last_day(zone)?;
        Ok(again)
    }

    /// The last day, if the rule has an end.
    fn last_day(&self, zone: &TimeZone) -> Result<Option<Date>, String> {
        let begun = |day: &Date| match self.rule.end {
            End::Instant(until) => self.window(zone, *day).is_some_and(|(start, _)| start <= until),
            End::Local(until) => day.to_datetime(self.at) <= until,
            _ => true,
        };
        let last = match self.rule.end {
            End::Never => return Ok(None),
            End::Count(count) => {
                let left = usize::try_from(count - 1).unwrap_or_default();
                let nth = days(self.first).filter(|day| self.rule.has(self.first, *day)).nth(left);
                return Ok(nth.or_else(|| days(self.first).last()));
            }
            End::Day(day) => day,
            End::Local(until) => until.date(),
            End::Instant(until) => zone.to_datetime(until).date().saturating_add(1.day()),
        };
        let last = back(last).take(3).find(begun);
        match last.filter(|last| *last >= self.first) {
            Some(last) => Ok(Some(last)),
            None => Err("UNTIL is before the start: write a later one".to_owned()),
        }
    }

    /// The window that begins on a day of the rule; none at the end of time.
    fn window(&self, zone: &TimeZone, day: Date) -> Option<(Timestamp, Timestamp)> {
        self.length.window(zone, day.to_datetime(self.at))
    }

    fn has(&self, day: Date) -> bool {
        day >= self.first && self.last.is_none_or(|last| day <= last) && self.rule.has(self.first, day)
    }

    fn open(&self, zone: &TimeZone, at: Timestamp, today: Date) -> Option<Timestamp> {
        let newest = today.tomorrow().ok()?;
        let newest = self.last.map_or(newest, |last| last.min(newest));
        let oldest = today.saturating_sub(i64::from(self.length.reach()).days()).max(self.first);
        // All are of one length, so of those that have begun the last one ends last.
        back(newest)
            .take_while(|day| *day >= oldest)
            .filter(|day| self.rule.has(self.first, *day))
            .filter_map(|day| self.window(zone, day))
            .find(|(start, _)| *start <= at)
            .and_then(|(_, end)| (at < end).then_some(end))
    }

    fn next(&self, zone: &TimeZone, from: Timestamp, today: Date, ahead: i32) -> Option<Timestamp> {
        let begin = today.saturating_sub(i64::from(SLACK_DAYS).days()).max(self.first);
        let end = today.saturating_add(i64::from(ahead + SLACK_DAYS).days());
        days(begin)
            .take_while(|day| *day <= end)
            .filter(|day| self.has(*day))
            .filter_map(|day| self.window(zone, day))
            // A day that the clocks skip may leave nothing of a window.
            .find(|(start, end)| *start >= from && start < end)
            .map(|(start, _)| start)
    }
}

impl Length {
    /// The window of this length that begins at a local time.
    fn window(self, zone: &TimeZone, start: DateTime) -> Option<(Timestamp, Timestamp)> {
        let end = start.checked_add(i64::from(self.days).days()).ok()?;
        let end = zone.to_timestamp(end).ok()?.checked_add(SignedDuration::from_secs(self.seconds)).ok()?;
        Some((zone.to_timestamp(start).ok()?, end))
    }

    /// Days before today on which a window may have begun that is still open.
    fn reach(self) -> i32 {
        self.days + i32::try_from(self.seconds / DAY).unwrap_or_default() + SLACK_DAYS
    }
}

/// A local time as the schema has it. An offset would be read, and not count: the digits stand where they have to.
fn local(field: &str, text: &str) -> Result<DateTime, String> {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let plain = ["0000-00-00T00:00", "0000-00-00T00:00:00"].contains(&shape.as_str());
    if !plain {
        return Err(format!(
            "{field} {text:?}: write a local time without an offset, such as 2026-12-24T18:00:00"
        ));
    }
    text.parse().map_err(|_| format!("{field} {text:?}: there is no such day or time: write one that is"))
}

/// A duration of RFC 5545.
fn length(text: &str) -> Result<Length, String> {
    let wrong = || {
        format!(
            ".duration {text:?}: write weeks, days, hours, minutes and seconds as in PT8H, P2DT12H or P1W, up to P{LONGEST_DAYS}D"
        )
    };
    let span: Span = text.parse().map_err(|_| wrong())?;
    let whole = span.get_years() == 0
        && span.get_months() == 0
        && (span.get_milliseconds(), span.get_microseconds(), span.get_nanoseconds()) == (0, 0, 0);
    if !text.starts_with('P') || !whole {
        return Err(wrong());
    }
    let days = 7 * i64::from(span.get_weeks()) + i64::from(span.get_days());
    let minutes = 60 * i64::from(span.get_hours()) + span.get_minutes();
    let seconds = 60 * minutes + span.get_seconds();
    let in_all = days * DAY + seconds;
    if in_all <= 0 || in_all > LONGEST_DAYS * DAY {
        return Err(wrong());
    }
    Ok(Length { days: i32::try_from(days).map_err(|_| wrong())?, seconds })
}

/// The days from this one on, for as long as days are counted.
fn days(from: Date) -> impl Iterator<Item = Date> {
    std::iter::successors(Some(from), |day| day.tomorrow().ok()).take(FAR as usize)
}

/// The days before this one, and itself, latest first.
fn back(from: Date) -> impl Iterator<Item = Date> {
    std::iter::successors(Some(from), |day| day.yesterday().ok())
}
