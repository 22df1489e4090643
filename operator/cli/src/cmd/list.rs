//! `list`: one line per rollout, from the words that the controller keeps for columns.
//!
//! It reads objects as they stand: one that another version wrote still has its line.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{API_VERSION, Context, now};
use crate::args::{List, Output};
use crate::cluster::Cluster;
use crate::exit::Code;
use crate::fail::Failure;
use crate::out::{Line, Role, table};
use crate::view::words;

/// Runs `list`.
pub async fn run(context: &Context, args: List) -> Result<Code, Failure> {
    let cluster = Cluster::connect(&context.global).await?;
    let items = cluster.list(args.all_namespaces, args.selector.as_deref()).await?;
    match context.machine() {
        Some(Output::Name) => {
            for item in &items {
                context.document(Output::Name, text(item, "/metadata/name"), item, true)?;
            }
        }
        Some(format) => {
            let items: Vec<Value> = items.iter().map(document).collect();
            let list = json!({ "apiVersion": API_VERSION, "kind": "RolloutList", "items": items });
            context.document(format, "", &list, false)?;
        }
        None if items.is_empty() => {
            let place = if args.all_namespaces {
                "any namespace".to_owned()
            } else {
                format!("namespace {:?}", cluster.namespace)
            };
            eprintln!("no ProgressiveRollout in {place}");
        }
        None => context.print(&rows(&items, args.all_namespaces, context.wide(), now()))?,
    }
    Ok(Code::Fine)
}

fn text<'a>(item: &'a Value, path: &str) -> &'a str {
    item.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The table.
fn rows(items: &[Value], namespaces: bool, wide: bool, now: Timestamp) -> Vec<Line> {
    let mut header = vec!["NAME", "PHASE", "STEP", "WEIGHT", "CLASS", "READY", "AGE"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    if wide {
        header.extend(["COMMIT", "PROVENANCE", "OBSERVED", "SINCE", "REASON"]);
    }
    let header = header.into_iter().map(|name| Line::default().add(Role::Dim, name)).collect();
    let body = items.iter().map(|item| {
        let cell = |path| Line::new(or_dash(text(item, path)));
        let age = |path| {
            let at = text(item, path).parse::<Timestamp>().ok();
            Line::new(at.map_or_else(|| "-".to_owned(), |at| words::between(at, now)))
        };
        let mut row = Vec::new();
        if namespaces {
            row.push(cell("/metadata/namespace"));
        }
        row.push(cell("/metadata/name"));
        row.push(phase(item));
        row.push(cell("/status/summary/step"));
        row.push(cell("/status/summary/weight"));
        row.push(cell("/status/summary/riskClass"));
        row.push(Line::new(or_dash(condition(item, "Ready"))));
        row.push(age("/metadata/creationTimestamp"));
        if wide {
            row.extend([
                cell("/status/summary/commit"),
                cell("/status/summary/provenance"),
                cell("/status/summary/observed"),
            ]);
            row.push(age("/status/phaseSince"));
            row.push(cell("/status/summary/reason"));
        }
        row
    });
    table(std::iter::once(header).chain(body).collect())
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// Phase with its colour; a stalled one says so.
fn phase(item: &Value) -> Line {
    let phase = or_dash(text(item, "/status/phase"));
    let role = match phase {
        "Idle" => Role::Ok,
        "Rejected" | "NotProven" | "Returning" => Role::Bad,
        _ if condition(item, "Stalled") == "True" => Role::Bad,
        "-" | "Pending" | "Released" => Role::Attention,
        _ => Role::Running,
    };
    Line::default().add(role, phase)
}

fn condition<'a>(item: &'a Value, kind: &str) -> &'a str {
    let conditions = item.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| text(condition, "/type") == kind);
    found.map(|condition| text(condition, "/status")).unwrap_or_default()
}

/// One rollout for programs.
fn document(item: &Value) -> Value {
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "namespace": text(item, "/metadata/namespace"),
        "name": text(item, "/metadata/name"),
        "phase": said(text(item, "/status/phase")),
        "phaseSince": item.pointer("/status/phaseSince"),
        "ready": said(condition(item, "Ready")),
        "stalled": condition(item, "Stalled") == "True",
        "run": item.pointer("/status/run/id"),
        "summary": item.pointer("/status/summary"),
        "waiting": item.pointer("/status/waiting"),
        "stableCommit": item.pointer("/status/stableCommit"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_an_object_of_another_version() {
        let now: Timestamp = "2026-11-03T12:00:00Z".parse().unwrap();
        let known = json!({
            "metadata": { "namespace": "shop", "name": "checkout", "creationTimestamp": "2026-09-23T12:00:00Z" },
            "status": {
                "phase": "Canary", "phaseSince": "2026-11-03T11:22:00Z",
                "summary": { "step": "3/6", "weight": "20%", "riskClass": "R3", "provenance": "GenAIAssisted",
                             "commit": "9f2c1ab", "observed": "19.6%", "reason": "NotEnoughEvidence" },
                "conditions": [{ "type": "Ready", "status": "Unknown" }],
            },
        });
        let foreign = json!({
            "metadata": { "namespace": "shop", "name": "search", "creationTimestamp": "2026-11-03T11:59:30Z" },
            "status": { "phase": "PhaseOfTomorrow" },
        });
        let bare = json!({ "metadata": { "namespace": "shop", "name": "new" } });
        let text = |wide| {
            let lines = rows(&[known.clone(), foreign.clone(), bare.clone()], true, wide, now);
            lines.iter().map(|line| line.paint(false) + "\n").collect::<String>()
        };
        insta::assert_snapshot!("list", text(false));
        insta::assert_snapshot!("list_wide", text(true));
    }
}
