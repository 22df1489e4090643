//! Names, quotes and conditions in PromQL: what people write must not end the selector and go on as another query.

use sluice_core::evidence::Trouble;

use super::parts::invalid;
use crate::excerpt;

pub(super) fn is_metric_name(name: &str) -> bool {
    is_name(name, true)
}

pub(super) fn is_label_name(name: &str) -> bool {
    is_name(name, false)
}

pub(super) fn is_name(name: &str, colon: bool) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':'))
}

/// Escapes for RE2, the regular expressions of PromQL.
pub(super) fn regex_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A PromQL string.
pub(super) fn quote(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    format!("\"{escaped}\"")
}

/// What people add to a selector, if anything.
pub(super) fn matchers_of(matchers: Option<&str>) -> Result<Option<&str>, Trouble> {
    let Some(matchers) = matchers.map(str::trim).filter(|matchers| !matchers.is_empty()) else {
        return Ok(None);
    };
    check_matchers(matchers).map_err(|problem| {
        invalid(format!(
            "matchers {matchers:?}: {problem}; write conditions such as job=\"checkout\",path!=\"/healthz\""
        ))
    })?;
    Ok(Some(matchers.trim_end_matches(',')))
}

/// Checks `name="value",...`: a condition must not end the selector and go on as another query.
pub(super) fn check_matchers(matchers: &str) -> Result<(), String> {
    let mut rest = matchers.trim_start();
    loop {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if !is_label_name(&rest[..end]) {
            return Err(format!("a label name is expected at {:?}", excerpt(rest, 30)));
        }
        if matches!(&rest[..end], "namespace" | "pod") {
            return Err(format!("{} is already in the query", &rest[..end]));
        }
        rest = rest[end..].trim_start();
        let Some(after) = ["=~", "!~", "!=", "="].iter().find_map(|op| rest.strip_prefix(op)) else {
            return Err(format!("=, !=, =~ or !~ is expected at {:?}", excerpt(rest, 30)));
        };
        rest = after.trim_start();
        rest = after_string(rest)
            .ok_or_else(|| format!("a quoted value is expected at {:?}", excerpt(rest, 30)))?
            .trim_start();
        match rest.strip_prefix(',').map(str::trim_start) {
            Some("") => return Ok(()),
            Some(next) => rest = next,
            None if rest.is_empty() => return Ok(()),
            None => return Err(format!("a comma is expected at {:?}", excerpt(rest, 30))),
        }
    }
}

/// What comes after a quoted string, if `text` begins with one.
pub(super) fn after_string(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            '\n' if quote != '`' => return None,
            c if c == quote => return Some(&text[at + 1..]),
            _ => {}
        }
    }
    None
}
