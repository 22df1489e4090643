//! A recurrence of RFC 5545, as far as a freeze needs it: which days it has. The time of day is the first window's.
//!
//! With FREQ of a day or more and no BYHOUR, BYMINUTE or BYSECOND a rule has at most one start a day, so it is a question
//! about a day, and its answer takes no walk through the days before. BYWEEKNO, BYYEARDAY and BYSETPOS are refused.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Weekday};

/// The parts that are known.
const PARTS: &str = "FREQ, INTERVAL, COUNT, UNTIL, BYDAY, BYMONTH, BYMONTHDAY and WKST";
/// Weekdays as RFC 5545 writes them, from Monday.
const WEEKDAYS: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];
/// Every bit: a set that excludes nothing.
const ALL: u32 = u32::MAX;
/// Largest INTERVAL and COUNT.
const MOST: i32 = 1000;

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freq {
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// When it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Never,
    /// After so many days of it.
    Count(i32),
    /// With this day.
    Day(Date),
    /// No start is later than this local time.
    Local(DateTime),
    /// No start is later.
    Instant(Timestamp),
}

/// A recurrence. Sets of numbers are bits: of a month bit 1 to 12, of a day bit 1 to 31, of a weekday bit 0 (Monday) to 6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    freq: Freq,
    interval: i32,
    week_start: i32,
    months: u32,
    days: u32,
    days_from_end: u32,
    weekdays: u32,
    /// Weekdays by their number in the month or year, negative from its end.
    numbered: Vec<(i32, i32)>,
    /// Whether they are numbered within the month.
    by_month: bool,
    pub end: End,
}

impl Rule {
    /// A rule that begins on `first`: what it leaves out follows from that day.
    ///
    /// # Errors
    /// The part that is wrong, its value, and what to write.
    pub fn parse(text: &str, first: Date) -> Result<Self, String> {
        Parts::parse(text)?.rule(first)
    }

    /// Whether it has this day, which is not before the first one. Its end is not looked at.
    pub fn has(&self, first: Date, day: Date) -> bool {
        let weekday = weekday(day);
        self.months & bit(i32::from(day.month())) != 0
            && self.is_its_turn(first, day)
            && self.has_day_of_month(day)
            && (self.weekdays & bit(weekday) != 0 || self.is_numbered(day, weekday))
    }

    /// Whether the day is in a period that INTERVAL does not leave out.
    fn is_its_turn(&self, first: Date, day: Date) -> bool {
        let years = || i32::from(day.year()) - i32::from(first.year());
        let periods = match self.freq {
            _ if self.interval == 1 => 0,
            Freq::Daily => days_between(first, day),
            Freq::Weekly => (days_between(first, day) + (weekday(first) - self.week_start).rem_euclid(7)) / 7,
            Freq::Monthly => 12 * years() + i32::from(day.month()) - i32::from(first.month()),
            Freq::Yearly => years(),
        };
        periods % self.interval == 0
    }

    fn has_day_of_month(&self, day: Date) -> bool {
        let at = i32::from(day.day());
        self.days & bit(at) != 0
            || (self.days_from_end != 0
                && self.days_from_end & bit(i32::from(day.days_in_month()) - at + 1) != 0)
    }

    fn is_numbered(&self, day: Date, weekday: i32) -> bool {
        if self.numbered.is_empty() {
            return false;
        }
        let (at, length) = if self.by_month {
            (i32::from(day.day()), i32::from(day.days_in_month()))
        } else {
            (i32::from(day.day_of_year()), i32::from(day.days_in_year()))
        };
        let (from_begin, from_end) = ((at - 1) / 7 + 1, -((length - at) / 7 + 1));
        self.numbered
            .iter()
            .any(|(number, of)| *of == weekday && (*number == from_begin || *number == from_end))
    }
}

/// The parts of a rule as they are written.
#[derive(Default)]
struct Parts {
    freq: Option<Freq>,
    interval: Option<i32>,
    week_start: i32,
    months: Vec<i32>,
    days: Vec<i32>,
    weekdays: Vec<(i32, i32)>,
    end: Option<End>,
}

impl Parts {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_uppercase();
        let mut parts = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        if let Some(rest) = text.strip_prefix("RRULE:") {
            return Err(format!("write it without \"RRULE:\", as {rest}"));
        }
        for part in text.split(';') {
            let (name, value) = part.split_once('=').ok_or_else(|| {
                format!("{part:?} is no part: write NAME=VALUE, with ';' between them, such as FREQ=WEEKLY;BYDAY=FR")
            })?;
            if part.contains(char::is_whitespace) {
                return Err(format!("{part:?} has a blank: write it without"));
            }
            if seen.contains(&name) {
                return Err(format!("{name} is there twice: write it once"));
            }
            seen.push(name);
            match name {
                "FREQ" => parts.freq = Some(freq(value)?),
                "INTERVAL" => parts.interval = Some(number(name, value, 1, MOST)?),
                "COUNT" => parts.end_once(End::Count(number(name, value, 1, MOST)?))?,
                "UNTIL" => parts.end_once(until(value)?)?,
                "BYDAY" => parts.weekdays = list(value, numbered)?,
                "BYMONTH" => parts.months = list(value, |value| number(name, value, 1, 12))?,
                "BYMONTHDAY" => parts.days = list(value, |value| from_either_end(name, value, 31))?,
                "WKST" => parts.week_start = named(value).ok_or_else(|| no_weekday(name, value))?,
                _ => return Err(format!("{name}={value} is not known here: write {PARTS} only")),
            }
        }
        Ok(parts)
    }

    fn end_once(&mut self, end: End) -> Result<(), String> {
        match self.end.replace(end) {
            None => Ok(()),
            Some(_) => Err("it has both COUNT and UNTIL: write one of them".to_owned()),
        }
    }

    fn rule(self, first: Date) -> Result<Rule, String> {
        let freq = self.freq.ok_or("FREQ is missing: write FREQ=DAILY, WEEKLY, MONTHLY or YEARLY")?;
        let by_month = freq == Freq::Monthly || !self.months.is_empty();
        let most = if by_month { 5 } else { 53 };
        if freq == Freq::Weekly && !self.days.is_empty() {
            return Err("BYMONTHDAY does not go with FREQ=WEEKLY: write FREQ=MONTHLY or DAILY".to_owned());
        }
        for (number, weekday) in self.weekdays.iter().filter(|(number, _)| *number != 0) {
            let name = WEEKDAYS[*weekday as usize];
            let written = format!("BYDAY={number}{name}");
            if matches!(freq, Freq::Daily | Freq::Weekly) {
                return Err(format!(
                    "{written}: a number goes with FREQ=MONTHLY and YEARLY only: write {name}"
                ));
            }
            if number.abs() > most {
                return Err(format!("{written}: write a number from 1 to {most}, or -1 to -{most}"));
            }
        }
        let plain = set(self.weekdays.iter().filter(|(number, _)| *number == 0).map(|(_, weekday)| *weekday));
        let mut rule = Rule {
            freq,
            interval: self.interval.unwrap_or(1),
            week_start: self.week_start,
            months: if self.months.is_empty() { ALL } else { set(self.months.iter().copied()) },
            days: if self.days.is_empty() {
                ALL
            } else {
                set(self.days.iter().copied().filter(|day| *day > 0))
            },
            days_from_end: set(self.days.iter().filter(|day| **day < 0).map(|day| -day)),
            weekdays: if self.weekdays.is_empty() { ALL } else { plain },
            numbered: self.weekdays.iter().copied().filter(|(number, _)| *number != 0).collect(),
            by_month,
            end: self.end.unwrap_or(End::Never),
        };
        // What is left out is as on the first day.
        let bare = self.days.is_empty() && self.weekdays.is_empty();
        match freq {
            Freq::Weekly if self.weekdays.is_empty() => rule.weekdays = bit(weekday(first)),
            Freq::Monthly | Freq::Yearly if bare => rule.days = bit(i32::from(first.day())),
            _ => {}
        }
        if freq == Freq::Yearly && bare && self.months.is_empty() {
            rule.months = bit(i32::from(first.month()));
        }
        Ok(rule)
    }
}

fn freq(value: &str) -> Result<Freq, String> {
    match value {
        "DAILY" => Ok(Freq::Daily),
        "WEEKLY" => Ok(Freq::Weekly),
        "MONTHLY" => Ok(Freq::Monthly),
        "YEARLY" => Ok(Freq::Yearly),
        _ => Err(format!("FREQ={value}: write DAILY, WEEKLY, MONTHLY or YEARLY")),
    }
}

/// All items of a list, separated by commas.
fn list<T>(value: &str, item: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    value.split(',').map(item).collect()
}

fn number(name: &str, value: &str, least: i32, most: i32) -> Result<i32, String> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let read = value.parse().ok().filter(|read| digits && (least..=most).contains(read));
    read.ok_or_else(|| format!("{name}={value}: write a whole number from {least} to {most}"))
}

/// A number that is negative when it counts from the end; never 0.
fn from_either_end(name: &str, value: &str, most: i32) -> Result<i32, String> {
    let (sign, digits) = match value.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, value.strip_prefix('+').unwrap_or(value)),
    };
    number(name, digits, 1, most)
        .map(|read| sign * read)
        .map_err(|_| format!("{name}={value}: write a whole number from 1 to {most}, or -1 to -{most}"))
}

/// A weekday, with its number before it; 0 without one.
fn numbered(value: &str) -> Result<(i32, i32), String> {
    let name = value.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
    let weekday = named(name).ok_or_else(|| no_weekday("BYDAY", value))?;
    let before = &value[..value.len() - name.len()];
    let number = if before.is_empty() { 0 } else { from_either_end("BYDAY", before, 53)? };
    Ok((number, weekday))
}

fn named(name: &str) -> Option<i32> {
    WEEKDAYS.iter().position(|known| *known == name).and_then(|at| i32::try_from(at).ok())
}

fn no_weekday(name: &str, value: &str) -> String {
    format!("{name}={value}: write weekdays as {}", WEEKDAYS.join(", "))
}

/// A day, a local time, or an instant in UTC: `20261231`, `20261231T235959`, `20261231T235959Z`.
fn until(value: &str) -> Result<End, String> {
    let wrong = || {
        format!(
            "UNTIL={value}: write a day as 20261231, or a time as 20261231T180000, with Z at its end if it is in UTC"
        )
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (day, time) = match value.split_once('T') {
        None => (value, None),
        Some((day, time)) => (day, Some(time)),
    };
    if day.len() != 8 || !digits(day) {
        return Err(wrong());
    }
    let date: Date = day.parse().map_err(|_| wrong())?;
    let Some(time) = time else {
        return Ok(End::Day(date));
    };
    let (clock, utc) = match time.strip_suffix('Z') {
        Some(clock) => (clock, true),
        None => (time, false),
    };
    if clock.len() != 6 || !digits(clock) {
        return Err(wrong());
    }
    let part = |at: usize| clock[at..at + 2].parse::<i8>().map_err(|_| wrong());
    let local = jiff::civil::Time::new(part(0)?, part(2)?, part(4)?, 0).map_err(|_| wrong())?;
    let local = date.to_datetime(local);
    if !utc {
        return Ok(End::Local(local));
    }
    let at = jiff::tz::TimeZone::UTC.to_timestamp(local).map_err(|_| wrong())?;
    Ok(End::Instant(at))
}

fn bit(at: i32) -> u32 {
    1 << at
}

fn set(of: impl Iterator<Item = i32>) -> u32 {
    of.fold(0, |set, at| set | bit(at))
}

/// 0 for Monday.
fn weekday(day: Date) -> i32 {
    i32::from(day.weekday().to_monday_zero_offset())
}

/// Days from `first` to `day`.
fn days_between(first: Date, day: Date) -> i32 {
    i32::try_from(first.duration_until(day).as_hours() / 24).unwrap_or(i32::MAX)
}

/// The name of a day's weekday in a sentence.
pub(super) fn weekday_name(day: Date) -> &'static str {
    match day.weekday() {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}
