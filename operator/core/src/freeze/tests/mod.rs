//! The examples of RFC 5545, days that clocks change, and what is said of mistakes.

mod naive;

use jiff::ToSpan;
use jiff::civil::{Date, date};
use serde_json::{Value, json};

use super::rule::{End, Rule};
use super::*;

fn spec(zone: &str, windows: Value) -> ChangeFreezeSpec {
    serde_json::from_value(json!({"reason": "stock-taking", "zone": zone, "windows": windows})).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The first days of a rule that begins on this day.
fn days(text: &str, first: Date, count: usize) -> Vec<String> {
    let rule = Rule::parse(text, first).unwrap();
    let most = if let End::Count(count) = rule.end { usize::try_from(count).unwrap() } else { count };
    let all = first.series(1.day()).filter(|day| rule.has(first, *day));
    all.take(count.min(most)).map(|day| day.to_string()).collect()
}

#[test]
fn the_examples_of_rfc_5545_have_the_days_that_it_lists() {
    let september = date(1997, 9, 2);
    for (text, first, listed) in [
        ("FREQ=DAILY;COUNT=3", september, "1997-09-02 1997-09-03 1997-09-04"),
        (
            "FREQ=DAILY;INTERVAL=10;COUNT=5",
            september,
            "1997-09-02 1997-09-12 1997-09-22 1997-10-02 1997-10-12",
        ),
        ("FREQ=WEEKLY;INTERVAL=2;WKST=SU", september, "1997-09-02 1997-09-16 1997-09-30 1997-10-14"),
        (
            "FREQ=WEEKLY;INTERVAL=2;COUNT=8;WKST=SU;BYDAY=TU,TH",
            september,
            "1997-09-02 1997-09-04 1997-09-16 1997-09-18",
        ),
        (
            "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO",
            date(1997, 8, 5),
            "1997-08-05 1997-08-10 1997-08-19 1997-08-24",
        ),
        (
            "FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU",
            date(1997, 8, 5),
            "1997-08-05 1997-08-17 1997-08-19 1997-08-31",
        ),
        (
            "FREQ=MONTHLY;COUNT=10;BYDAY=1FR",
            date(1997, 9, 5),
            "1997-09-05 1997-10-03 1997-11-07 1997-12-05 1998-01-02",
        ),
        (
            "FREQ=MONTHLY;INTERVAL=2;BYDAY=1SU,-1SU",
            date(1997, 9, 7),
            "1997-09-07 1997-09-28 1997-11-02 1997-11-30 1998-01-04",
        ),
        ("FREQ=MONTHLY;BYDAY=-2MO", date(1997, 9, 22), "1997-09-22 1997-10-20 1997-11-17 1997-12-22"),
        (
            "FREQ=MONTHLY;BYMONTHDAY=-3",
            date(1997, 9, 28),
            "1997-09-28 1997-10-29 1997-11-28 1997-12-29 1998-01-29 1998-02-26",
        ),
        ("FREQ=MONTHLY;BYMONTHDAY=1,-1", date(1997, 9, 30), "1997-09-30 1997-10-01 1997-10-31 1997-11-01"),
        (
            "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13",
            date(1998, 2, 13),
            "1998-02-13 1998-03-13 1998-11-13 1999-08-13 2000-10-13",
        ),
        (
            "FREQ=MONTHLY;BYDAY=SA;BYMONTHDAY=7,8,9,10,11,12,13",
            date(1997, 9, 13),
            "1997-09-13 1997-10-11 1997-11-08",
        ),
        (
            "FREQ=MONTHLY;BYMONTHDAY=15,30;COUNT=5",
            date(2007, 1, 15),
            "2007-01-15 2007-01-30 2007-02-15 2007-03-15 2007-03-30",
        ),
        (
            "FREQ=YEARLY;COUNT=10;BYMONTH=6,7",
            date(1997, 6, 10),
            "1997-06-10 1997-07-10 1998-06-10 1998-07-10",
        ),
        ("FREQ=YEARLY;BYDAY=20MO", date(1997, 5, 19), "1997-05-19 1998-05-18 1999-05-17"),
        ("FREQ=YEARLY;BYMONTH=3;BYDAY=TH", date(1997, 3, 13), "1997-03-13 1997-03-20 1997-03-27 1998-03-05"),
        ("FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU", date(1997, 10, 26), "1997-10-26 1998-10-25 1999-10-31"),
        (
            "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8",
            date(1996, 11, 5),
            "1996-11-05 2000-11-07 2004-11-02",
        ),
        // A day that a month does not have is left out, not moved.
        ("FREQ=MONTHLY", date(2026, 1, 31), "2026-01-31 2026-03-31 2026-05-31"),
        ("FREQ=YEARLY", date(2024, 2, 29), "2024-02-29 2028-02-29"),
    ] {
        let listed: Vec<String> = listed.split(' ').map(ToOwned::to_owned).collect();
        assert_eq!(days(text, first, listed.len()), listed, "{text}");
    }
}

#[test]
fn a_mistake_is_said_with_its_field_its_value_and_what_to_write() {
    let again = |recurrence: &str| json!([{"start": "2026-12-04T18:00:00", "duration": "PT8H", "recurrence": recurrence}]);
    for (recurrence, says) in [
        ("FREQ=HOURLY", "FREQ=HOURLY: write DAILY, WEEKLY, MONTHLY or YEARLY"),
        ("BYDAY=FR", "FREQ is missing: write FREQ=DAILY, WEEKLY, MONTHLY or YEARLY"),
        (
            "FREQ=WEEKLY;BYDAI=FR",
            "BYDAI=FR is not known here: write FREQ, INTERVAL, COUNT, UNTIL, BYDAY, BYMONTH, BYMONTHDAY and WKST only",
        ),
        ("FREQ=WEEKLY;BYHOUR=9", "BYHOUR=9 is not known here: write FREQ, INTERVAL"),
        ("FREQ=MONTHLY;BYSETPOS=-1;BYDAY=FR", "BYSETPOS=-1 is not known here"),
        (
            "FREQ=WEEKLY;",
            "\"\" is no part: write NAME=VALUE, with ';' between them, such as FREQ=WEEKLY;BYDAY=FR",
        ),
        ("every friday", "\"EVERY FRIDAY\" is no part"),
        ("FREQ=WEEKLY;FREQ=DAILY", "FREQ is there twice: write it once"),
        ("FREQ=WEEKLY;INTERVAL=0", "INTERVAL=0: write a whole number from 1 to 1000"),
        ("FREQ=WEEKLY;COUNT=+3", "COUNT=+3: write a whole number from 1 to 1000"),
        ("FREQ=WEEKLY;COUNT=3;UNTIL=20270101", "it has both COUNT and UNTIL: write one of them"),
        (
            "FREQ=WEEKLY;UNTIL=2027-01-01",
            "UNTIL=2027-01-01: write a day as 20261231, or a time as 20261231T180000",
        ),
        ("FREQ=WEEKLY;UNTIL=20261301", "UNTIL=20261301: write a day"),
        ("FREQ=WEEKLY;UNTIL=20261203", "UNTIL is before the start: write a later one"),
        ("FREQ=WEEKLY;BYDAY=FRI", "BYDAY=FRI: write weekdays as MO, TU, WE, TH, FR, SA, SU"),
        ("FREQ=WEEKLY;BYDAY=", "BYDAY=: write weekdays as MO"),
        ("FREQ=WEEKLY;BYDAY=1FR", "BYDAY=1FR: a number goes with FREQ=MONTHLY and YEARLY only: write FR"),
        ("FREQ=WEEKLY; BYDAY=FR", "\" BYDAY=FR\" has a blank: write it without"),
        ("RRULE:FREQ=WEEKLY;BYDAY=FR", "write it without \"RRULE:\", as FREQ=WEEKLY;BYDAY=FR"),
        ("FREQ=MONTHLY;BYDAY=6FR", "BYDAY=6FR: write a number from 1 to 5, or -1 to -5"),
        ("FREQ=YEARLY;BYDAY=54FR", "BYDAY=54: write a whole number from 1 to 53, or -1 to -53"),
        ("FREQ=WEEKLY;BYMONTHDAY=4", "BYMONTHDAY does not go with FREQ=WEEKLY: write FREQ=MONTHLY or DAILY"),
        ("FREQ=MONTHLY;BYMONTHDAY=0", "BYMONTHDAY=0: write a whole number from 1 to 31, or -1 to -31"),
        ("FREQ=YEARLY;BYMONTH=13", "BYMONTH=13: write a whole number from 1 to 12"),
        (
            "FREQ=WEEKLY;BYDAY=SA",
            "start 2026-12-04T18:00:00 is a Friday and not one of its days: write a start on one of them, such as 2026-12-05T18:00:00",
        ),
        (
            "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
            "it has no day from 2026-12-04 on: correct BYMONTH, BYMONTHDAY or BYDAY",
        ),
    ] {
        let problem = problem(&spec("UTC", again(recurrence))).unwrap_or_default();
        let begin = format!("spec.windows[0].recurrence {recurrence:?}: {says}");
        assert!(problem.starts_with(&begin), "{problem}\n{begin}");
    }
    let one = |window: Value| problem(&spec("UTC", json!([window]))).unwrap_or_default();
    for (window, says) in [
        (
            json!({"start": "2026-12-04"}),
            ".start \"2026-12-04\": write a local time without an offset, such as 2026-12-24T18:00:00",
        ),
        (
            json!({"start": "2026-12-04T18:00:00Z"}),
            ".start \"2026-12-04T18:00:00Z\": write a local time without an offset",
        ),
        (json!({"start": "2026-12-04T18:00-01"}), ".start \"2026-12-04T18:00-01\": write a local time"),
        (
            json!({"start": "2026-13-04T18:00:00"}),
            ".start \"2026-13-04T18:00:00\": there is no such day or time: write one that is",
        ),
        (
            json!({"start": "0026-12-04T18:00:00", "duration": "PT1H"}),
            ".start \"0026-12-04T18:00:00\" is out of range: write a year from 1970 to 9000",
        ),
        (json!({"start": "2026-12-04T18:00:00"}), " has neither end nor duration: write one of them"),
        (
            json!({"start": "2026-12-04T18:00:00", "end": "2026-12-04T18:00:00"}),
            ".end \"2026-12-04T18:00:00\" is not after start \"2026-12-04T18:00:00\"",
        ),
        (
            json!({"start": "2026-12-04T18:00:00", "end": "2026-12-05T18:00:00", "duration": "PT1H"}),
            ".end \"2026-12-05T18:00:00\" and duration are both there",
        ),
        (
            json!({"start": "2026-12-04T18:00:00", "recurrence": "FREQ=DAILY"}),
            ".duration is missing: a recurrence needs one, such as PT8H",
        ),
        (
            json!({"start": "2026-12-04T18:00:00", "end": "2026-12-05T18:00:00", "recurrence": "FREQ=DAILY"}),
            ".end \"2026-12-05T18:00:00\" does not go with a recurrence",
        ),
        (
            json!({"start": "2026-12-04T18:00:00", "duration": "8h"}),
            ".duration \"8h\": write weeks, days, hours, minutes and seconds as in PT8H, P2DT12H or P1W, up to P366D",
        ),
        (json!({"start": "2026-12-04T18:00:00", "duration": "P1M"}), ".duration \"P1M\": write weeks"),
        (json!({"start": "2026-12-04T18:00:00", "duration": "PT0S"}), ".duration \"PT0S\": write weeks"),
        (json!({"start": "2026-12-04T18:00:00", "duration": "-PT8H"}), ".duration \"-PT8H\": write weeks"),
        (json!({"start": "2026-12-04T18:00:00", "duration": "PT0.5S"}), ".duration \"PT0.5S\": write weeks"),
        (json!({"start": "2026-12-04T18:00:00", "duration": "P367D"}), ".duration \"P367D\": write weeks"),
    ] {
        let problem = one(window);
        assert!(problem.starts_with(&format!("spec.windows[0]{says}")), "{problem}\n{says}");
    }
    let whole = json!([{"start": "2026-12-04T18:00:00", "duration": "PT8H"}]);
    let zone = problem(&spec("Europe/Berln", whole.clone())).unwrap_or_default();
    assert!(zone.starts_with("spec.zone \"Europe/Berln\" is no zone of the IANA database 20"), "{zone}");
    assert!(zone.ends_with(": write a name such as Europe/Berlin, or UTC"), "{zone}");
    assert_eq!(
        problem(&spec("UTC", json!([]))).as_deref(),
        Some("spec.windows is empty: write at least one window")
    );
    for (scope, says) in [
        (json!({}), "spec.scope names nothing: write namespaces"),
        (json!({"namespaces": ["Shop"]}), "spec.scope.namespaces \"Shop\": write the name of a namespace"),
        (json!({"namespaceSelector": {"matchLabels": {}}}), "spec.scope names nothing"),
        (
            json!({"namespaceSelector": {"matchLabels": {"a/b/c": ""}}}),
            "spec.scope.namespaceSelector.matchLabels \"a/b/c\": write a label key",
        ),
        (
            json!({"namespaceSelector": {"matchLabels": {"team": "a b"}}}),
            "spec.scope.namespaceSelector.matchLabels[team] \"a b\": write a label value",
        ),
    ] {
        let mut spec = spec("UTC", whole.clone());
        spec.scope = Some(serde_json::from_value(scope).unwrap());
        let problem = problem(&spec).unwrap_or_default();
        assert!(problem.starts_with(says), "{problem}");
    }
    let nothing = ChangeFreezeSpec { reason: " ".to_owned(), ..spec("UTC", whole.clone()) };
    assert_eq!(problem(&nothing).as_deref(), Some("spec.reason is empty: write why no change may start"));
    assert_eq!(problem(&spec("europe/berlin", whole)), None, "zones have no case");
}

#[test]
fn days_of_a_window_are_local_ones_and_windows_that_touch_are_one() {
    // Friday evening to Monday morning; on 25 October the clocks go back.
    let windows = json!([{"start": "2026-10-16T18:00:00", "duration": "P2DT12H", "recurrence": "FREQ=WEEKLY;BYDAY=FR"}]);
    let weekend = Calendar::new(&spec("Europe/Berlin", windows)).unwrap();
    for (now, until) in [
        ("2026-10-16T15:59:59Z", None),
        ("2026-10-16T16:00:00Z", Some("2026-10-19T04:00:00Z")),
        ("2026-10-19T04:00:00Z", None),
        ("2026-10-23T16:00:00Z", Some("2026-10-26T05:00:00Z")),
        ("2027-01-01T16:59:59Z", None),
        ("2027-01-01T17:00:00Z", Some("2027-01-04T05:00:00Z")),
    ] {
        assert_eq!(weekend.until(at(now)), until.map(at), "{now}");
    }
    assert_eq!(weekend.words(at("2026-10-26T05:00:00Z")), "2026-10-26 06:00 Europe/Berlin");
    let next = weekend.next(at("2026-10-17T00:00:00Z"), 7);
    assert_eq!(next, Some((at("2026-10-23T16:00:00Z"), at("2026-10-26T05:00:00Z"))));
    assert_eq!(weekend.next(at("2026-10-17T00:00:00Z"), 6), None, "it is 6 days and 16 hours ahead");

    let windows = json!([
        {"start": "2026-12-23T00:00:00", "end": "2026-12-25T00:00"},
        {"start": "2026-12-25T00:00:00", "duration": "P1D"},
        {"start": "2026-12-25T12:00:00", "duration": "P1D", "recurrence": "FREQ=DAILY;UNTIL=20261230T120000Z"},
    ]);
    let days = Calendar::new(&spec("UTC", windows)).unwrap();
    assert_eq!(days.until(at("2026-12-23T00:00:00Z")), Some(at("2026-12-31T12:00:00Z")));
    assert_eq!(
        days.next(at("2026-12-01T00:00:00Z"), 400),
        Some((at("2026-12-23T00:00:00Z"), at("2026-12-31T12:00:00Z")))
    );
    assert_eq!(days.until(at("2026-12-31T12:00:00Z")), None);

    // One that never ends is followed for a while.
    let windows = json!([{"start": "2026-01-01T00:00:00", "duration": "P1D", "recurrence": "FREQ=DAILY"}]);
    let always = Calendar::new(&spec("UTC", windows)).unwrap();
    let until = always.until(at("2026-12-23T10:00:00Z")).unwrap();
    assert!(until > at("2027-03-01T00:00:00Z") && until < at("2027-12-01T00:00:00Z"), "{until}");
}
