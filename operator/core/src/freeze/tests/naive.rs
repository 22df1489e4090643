//! Windows against a naive unrolling of them that is written apart.

use jiff::civil::{Date, Time, Weekday, date};
use jiff::{SignedDuration, Timestamp, ToSpan};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::json;

use super::spec;
use crate::freeze::{Calendar, FOLLOWED, far, problem, zone as zone_of};

/// A rule in the words of RFC 5545: unrolled period by period, each by expanding and limiting what it says.
#[derive(Clone, Debug)]
struct Naive {
    freq: &'static str,
    interval: i64,
    end: Option<Result<usize, i64>>,
    by_day: Vec<(i8, usize)>,
    by_month: Vec<i8>,
    by_month_day: Vec<i8>,
    week_start: usize,
}

const NAMES: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];

fn joined<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl Naive {
    fn text(&self, first: Date) -> String {
        let mut parts = vec![format!("FREQ={}", self.freq), format!("WKST={}", NAMES[self.week_start])];
        if self.interval > 1 {
            parts.push(format!("INTERVAL={}", self.interval));
        }
        let number = |number: i8| if number == 0 { String::new() } else { number.to_string() };
        let by_day: Vec<String> = self.by_day.iter().map(|(n, day)| number(*n) + NAMES[*day]).collect();
        for (name, list) in [
            ("BYDAY", joined(&by_day)),
            ("BYMONTH", joined(&self.by_month)),
            ("BYMONTHDAY", joined(&self.by_month_day)),
        ] {
            if !list.is_empty() {
                parts.push(format!("{name}={list}"));
            }
        }
        match self.end {
            Some(Ok(count)) => parts.push(format!("COUNT={count}")),
            Some(Err(days)) => {
                parts.push(format!("UNTIL={}", first.saturating_add(days.days()).strftime("%Y%m%d")))
            }
            None => {}
        }
        parts.join(";")
    }

    fn weekday(day: usize) -> Weekday {
        Weekday::from_monday_zero_offset(i8::try_from(day).unwrap()).unwrap()
    }

    /// The days of a month that BYMONTHDAY and BYDAY leave, or the one that is as the first.
    fn of_month(&self, month: Date, first: Date, numbers: bool) -> Vec<Date> {
        let all: Vec<Date> =
            month.first_of_month().series(1.day()).take(month.days_in_month() as usize).collect();
        let in_month = |number: &i8| {
            let at = if *number > 0 { *number } else { month.days_in_month() + number + 1 };
            Date::new(month.year(), month.month(), at).ok()
        };
        let numbered: Vec<Date> = self.by_month_day.iter().filter_map(in_month).collect();
        let named: Vec<Date> = if numbers {
            let found = self.by_day.iter().flat_map(|(number, day)| {
                let day = Self::weekday(*day);
                if *number == 0 {
                    all.iter().copied().filter(|d| d.weekday() == day).collect()
                } else {
                    month.nth_weekday_of_month(*number, day).into_iter().collect::<Vec<_>>()
                }
            });
            found.collect()
        } else {
            all.clone()
        };
        match (self.by_month_day.is_empty(), self.by_day.is_empty()) {
            (true, true) => Date::new(month.year(), month.month(), first.day()).into_iter().collect(),
            (false, true) => numbered,
            (true, false) => named,
            (false, false) => numbered.into_iter().filter(|day| named.contains(day)).collect(),
        }
    }

    /// The days of a year that are the numbered weekdays of it.
    fn of_year(&self, year: Date) -> Vec<Date> {
        let all: Vec<Date> =
            year.first_of_year().series(1.day()).take(year.days_in_year() as usize).collect();
        let found = self.by_day.iter().flat_map(|(number, day)| {
            let these: Vec<Date> =
                all.iter().copied().filter(|d| d.weekday() == Self::weekday(*day)).collect();
            match *number {
                0 => these,
                n if n > 0 => these.get(n as usize - 1).copied().into_iter().collect(),
                n => these.iter().rev().nth(n.unsigned_abs() as usize - 1).copied().into_iter().collect(),
            }
        });
        found.collect()
    }

    fn period(&self, first: Date, n: i64) -> Option<Vec<Date>> {
        let month_is_in = |day: &Date| self.by_month.is_empty() || self.by_month.contains(&day.month());
        let is_named = |day: &Date| self.by_day.iter().any(|(_, name)| Self::weekday(*name) == day.weekday());
        let mut days = match self.freq {
            "DAILY" => {
                let day = first.checked_add((n * self.interval).days()).ok()?;
                let fits = (self.by_month_day.is_empty() || self.of_month(day, first, false).contains(&day))
                    && (self.by_day.is_empty() || is_named(&day));
                if fits { vec![day] } else { Vec::new() }
            }
            "WEEKLY" => {
                let mut begin = first;
                while begin.weekday() != Self::weekday(self.week_start) {
                    begin = begin.yesterday().ok()?;
                }
                let begin = begin.checked_add((7 * n * self.interval).days()).ok()?;
                let fits = |day: &Date| {
                    if self.by_day.is_empty() { day.weekday() == first.weekday() } else { is_named(day) }
                };
                begin.series(1.day()).take(7).filter(fits).collect()
            }
            "MONTHLY" => {
                let month = first.first_of_month().checked_add((n * self.interval).months()).ok()?;
                self.of_month(month, first, true)
            }
            _ => {
                let year = first.first_of_year().checked_add((n * self.interval).years()).ok()?;
                let bare = self.by_month.is_empty();
                let months = (1..=12).filter(|month| {
                    match (bare, self.by_month_day.is_empty(), self.by_day.is_empty()) {
                        (false, ..) => self.by_month.contains(month),
                        (true, true, true) => *month == first.month(),
                        (true, ..) => true,
                    }
                });
                let months: Vec<Date> = months.map(|month| date(year.year(), month, 1)).collect();
                let days =
                    months.iter().flat_map(|month| self.of_month(*month, first, !bare)).collect::<Vec<_>>();
                if bare && !self.by_day.is_empty() {
                    let named = self.of_year(year);
                    days.into_iter().filter(|day| named.contains(day)).collect()
                } else {
                    days
                }
            }
        };
        days.retain(month_is_in);
        days.sort();
        days.dedup();
        Some(days)
    }

    /// All days up to `horizon`.
    fn days(&self, first: Date, horizon: Date) -> Vec<Date> {
        let mut found = Vec::new();
        let last = match self.end {
            Some(Err(days)) => first.saturating_add(days.days()).min(horizon),
            _ => horizon,
        };
        for n in 0.. {
            let begin = match self.freq {
                "DAILY" => first.saturating_add((n * self.interval).days()),
                "WEEKLY" => first.saturating_add((7 * n * self.interval - 7).days()),
                "MONTHLY" => first.first_of_month().saturating_add((n * self.interval).months()),
                _ => first.first_of_year().saturating_add((n * self.interval).years()),
            };
            let Some(days) = self.period(first, n).filter(|_| begin <= last) else { break };
            found.extend(days.into_iter().filter(|day| *day >= first && *day <= last));
        }
        if let Some(Ok(count)) = self.end {
            found.truncate(count);
        }
        found
    }
}

prop_compose! {
    fn naive()(
        freq in select(vec!["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]),
        interval in prop_oneof![3 => Just(1i64), 2 => 2..5i64],
        end in prop_oneof![
            2 => Just(None), 1 => (1..20usize).prop_map(|count| Some(Ok(count))), 1 => (0..900i64).prop_map(|days| Some(Err(days)))
        ],
        by_day in prop_oneof![1 => Just(vec![]), 2 => subsequence((0..7usize).collect::<Vec<_>>(), 1..4)],
        numbers in proptest::collection::vec(prop_oneof![2 => Just(0i8), 3 => -5..=5i8, 1 => -53..=53i8], 4),
        by_month in prop_oneof![2 => Just(vec![]), 1 => subsequence((1..=12i8).collect::<Vec<_>>(), 1..6)],
        by_month_day in prop_oneof![2 => Just(vec![]), 1 => proptest::collection::vec(prop_oneof![1..=31i8, -31..=-1i8], 1..5)],
        week_start in 0..7usize,
    ) -> Naive {
        let most = if freq == "MONTHLY" || !by_month.is_empty() { 5 } else { 53 };
        let number = |number: i8| if matches!(freq, "DAILY" | "WEEKLY") || number.abs() > most { 0 } else { number };
        let by_day = by_day.into_iter().zip(numbers).map(|(day, n)| (number(n), day)).collect();
        let by_month_day = if freq == "WEEKLY" { vec![] } else { by_month_day };
        Naive { freq, interval, end, by_day, by_month, by_month_day, week_start }
    }
}

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    // Clocks that are set at midnight, by half an hour, over a whole day, and twice around Ramadan.
    "Asia/Beirut",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
];

/// A window that is unrolled, and when the one ends that is open.
fn naive_until(windows: &[(Timestamp, Timestamp)], now: Timestamp) -> Option<Timestamp> {
    let open = |at: Timestamp| windows.iter().filter(|(s, e)| *s <= at && at < *e).map(|(_, e)| *e).max();
    let mut end = open(now)?;
    for _ in 0..FOLLOWED {
        end = open(end).filter(|_| end < far(now)).unwrap_or(end);
    }
    Some(end)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn windows_are_those_of_a_naive_unrolling(
        rule in naive(),
        day in 0..8000i64,
        (hour, minute) in (0..24i8, select(vec![0i8, 15, 30, 59])),
        (days, seconds) in prop_oneof![4 => (0..4i64, 0..100_000i64), 1 => (0..366i64, 0..10i64)],
        zone in select(ZONES.to_vec()),
        asked in proptest::collection::vec((-3..600i64, 0..86_400i64), 8),
    ) {
        prop_assume!(days + seconds > 0);
        // The first of its days is where it begins.
        let from = date(2005, 1, 1).saturating_add(day.days());
        let begins = Naive { end: None, ..rule.clone() }.days(from, from.saturating_add(9.years()));
        prop_assume!(!begins.is_empty());
        let first = begins[0];
        let (text, time) = (rule.text(first), Time::new(hour, minute, 0, 0).unwrap());
        let window = json!([{
            "start": first.to_datetime(time).to_string(), "duration": format!("P{days}DT{seconds}S"), "recurrence": text,
        }]);
        let spec = spec(zone, window);
        prop_assert_eq!(problem(&spec), None);
        let calendar = Calendar::new(&spec).unwrap();

        let zone = zone_of(zone).unwrap();
        let unrolled: Vec<(Timestamp, Timestamp)> = rule
            .days(first, first.saturating_add(8.years()))
            .into_iter()
            .map(|day| {
                let at = day.to_datetime(time);
                // Its days are local ones, whatever time of the first one the clocks skip.
                let end = at.checked_add(days.days()).unwrap().to_zoned(zone.clone()).unwrap();
                let end = end.checked_add(seconds.seconds()).unwrap();
                (at.to_zoned(zone.clone()).unwrap().timestamp(), end.timestamp())
            })
            // A day that the clocks skip may leave nothing of a window.
            .filter(|(start, end)| start < end)
            .collect();
        // Not so late that what comes next is not unrolled any more.
        let known = first.saturating_add(5.years()).to_zoned(zone.clone()).unwrap().timestamp();
        let edges = unrolled.iter().filter(|(start, _)| *start < known).take(6);
        let edges = edges.flat_map(|(start, end)| [*start, *end]);
        let edges = edges.flat_map(|edge| [edge, edge.checked_sub(1.second()).unwrap()]);
        let begin = first.to_zoned(zone.clone()).unwrap().timestamp();
        let asked = asked.into_iter().map(|(days, seconds)| {
            begin.checked_add(SignedDuration::from_secs(days * 86_400 + seconds)).unwrap()
        });
        for now in edges.chain(asked) {
            let until = naive_until(&unrolled, now);
            prop_assert_eq!(calendar.until(now), until, "{} at {}", text, now);
            let from = until.unwrap_or(now);
            let within = now.checked_add(SignedDuration::from_hours(24 * 100)).unwrap();
            let next = unrolled.iter().map(|(start, _)| *start).find(|start| *start >= from && *start <= within);
            let next = next.and_then(|start| Some((start, naive_until(&unrolled, start)?)));
            prop_assert_eq!(calendar.next(now, 100), next, "{} next at {}", text, now);
        }
    }
}
