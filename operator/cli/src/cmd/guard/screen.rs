//! What guards see, for people.

use sluice_core::evidence::milliseconds;

use super::{Alerts, Counted, Seen, Test};
use crate::out::{Line, Role, labelled};
use crate::view::words;

/// The screen.
pub fn lines(tests: &[Test], caution: Option<&str>, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for (index, test) in tests.iter().enumerate() {
        if index > 0 {
            lines.push(Line::default());
        }
        lines.extend(one(test, width));
    }
    if tests.is_empty() {
        lines.push(Line::default().add(Role::Attention, "there are no guards"));
    }
    lines.extend(caution.iter().flat_map(|caution| labelled("note", Role::Attention, caution, width)));
    lines
}

fn one(test: &Test, width: usize) -> Vec<Line> {
    let role = if test.trouble.is_some() { Role::Attention } else { Role::Ok };
    let state = test.trouble.as_ref().map_or("Ok", |(state, _)| state.as_str());
    let answered =
        test.millis.map_or_else(|| ", not asked".to_owned(), |millis| format!(", answered in {millis} ms"));
    let head = Line::default()
        .mark(role)
        .plain(" ")
        .add(Role::Strong, &test.name)
        .plain(format!("   {:?}   ", test.action))
        .add(role, state)
        .plain(answered);
    let mut lines = vec![head];
    if let Some((_, message)) = &test.trouble {
        lines.extend(labelled("trouble", Role::Attention, message, width));
    }
    match &test.seen {
        Seen::Counted(seen) => lines.extend(counted(seen, width)),
        Seen::Alerts(seen) if test.trouble.is_none() => lines.extend(alerts(seen, width)),
        Seen::Alerts(_) => {}
        Seen::Value(seen) => {
            let text = match seen.values {
                (None, _) => None,
                (Some(canary), None) => Some(format!("canary {canary}")),
                (Some(canary), Some(stable)) => Some(format!("canary {canary}, stable {stable}")),
            };
            lines.extend(text.iter().flat_map(|text| labelled("value", Role::Plain, text, width)));
            lines.extend(query(&seen.query));
        }
    }
    lines
}

fn counted(seen: &Counted, width: usize) -> Vec<Line> {
    let arm = |label: &str, pods: Option<usize>, (requests, failed): (i64, i64)| {
        let text = match pods {
            None => "none now".to_owned(),
            Some(pods) if seen.restarts => {
                format!("{pods} series, {failed} restarts in {} pod-minutes", words::count(requests / 60))
            }
            Some(pods) => format!(
                "{pods} series, {} requests in 5m, {} bad ({})",
                words::count(requests),
                words::count(failed),
                words::ratio(failed, requests)
            ),
        };
        labelled(label, Role::Plain, &text, width)
    };
    let mut lines = arm("stable", Some(seen.pods.0), seen.recent.1);
    lines.extend(arm("canary", seen.pods.1, seen.recent.0));
    if let Some(over) = seen.over {
        let text = format!("over {} ms, about what half of stable's requests take", milliseconds(over));
        lines.extend(labelled("bad", Role::Plain, &text, width));
    }
    lines.extend(query(&seen.query));
    lines
}

/// Not wrapped: it is there to be copied.
fn query(text: &str) -> Option<Line> {
    (!text.is_empty()).then(|| Line::default().add(Role::Dim, "query").pad(crate::out::LABEL).plain(text))
}

fn alerts(seen: &Alerts, width: usize) -> Vec<Line> {
    let mut text = format!("{} known to the source, {} match", seen.all, seen.matching);
    match seen.watchdog {
        Some(true) => text.push_str(", the watchdog fires"),
        Some(false) => text.push_str(", the watchdog does not fire"),
        None => text.push_str(", no watchdog is asked for: silence is taken for health"),
    }
    let mut lines = labelled("alerts", Role::Plain, &text, width);
    if let Some(firing) = &seen.firing {
        lines.extend(labelled("firing", Role::Attention, firing, width));
    }
    lines
}
