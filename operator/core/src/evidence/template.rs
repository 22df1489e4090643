//! Placeholders in a person's PromQL: which there are, and what stands for them in a query.
//!
//! `$` and a letter is a placeholder, any other `$` is the end of a line in a regular expression. What is put in has no
//! character that a quoted string of PromQL would need to escape.

/// All placeholders, without `$`.
pub const PLACEHOLDERS: [&str; 5] = ["namespace", "pods", "service", "canaryPods", "stablePods"];
/// Those that differ between the revisions, so that one expression serves both.
const OF_ONE_REVISION: [&str; 2] = ["pods", "service"];

/// A piece of a query.
enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

fn pieces(query: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = query;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let name = rest.strip_prefix('$').filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()));
        if let Some(name) = name {
            let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
            let (name, after) = name.split_at(end);
            rest = after;
            return Some(Piece::Placeholder(name));
        }
        // A `$` that begins nothing is text, the next one may begin something.
        let end = rest.char_indices().skip(1).find(|(_, c)| *c == '$').map_or(rest.len(), |(at, _)| at);
        let (text, after) = rest.split_at(end);
        rest = after;
        Some(Piece::Text(text))
    })
}

/// The query with what `value` says of each placeholder; one that it does not know stays as it is.
pub fn fill(query: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::with_capacity(query.len());
    for piece in pieces(query) {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Placeholder(name) => match value(name) {
                Some(value) => filled.push_str(&value),
                None => {
                    filled.push('$');
                    filled.push_str(name);
                }
            },
        }
    }
    filled
}

/// A placeholder of the query that is none of these.
pub fn unknown<'a>(query: &'a str, known: &[&str]) -> Option<&'a str> {
    pieces(query).find_map(|piece| match piece {
        Piece::Placeholder(name) if !known.contains(&name) => Some(name),
        _ => None,
    })
}

/// Whether the query asks for something else of each revision.
pub fn tells_revisions_apart(query: &str) -> bool {
    pieces(query).any(|piece| matches!(piece, Piece::Placeholder(name) if OF_ONE_REVISION.contains(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn placeholders_are_filled_and_ends_of_lines_stay() {
        let query = r#"max(m{namespace="$namespace",pod=~"^$pods$",path=~"/$|/a$"}) > $$pods"#;
        let filled = fill(query, |name| Some(format!("<{name}>")));
        assert_eq!(filled, r#"max(m{namespace="<namespace>",pod=~"^<pods>$",path=~"/$|/a$"}) > $<pods>"#);
        assert_eq!((unknown(query, &PLACEHOLDERS), tells_revisions_apart(query)), (None, true));
    }

    #[test]
    fn an_unknown_name_is_found_and_left() {
        assert_eq!(unknown("x{pod=~\"$podsx\"}", &PLACEHOLDERS), Some("podsx"));
        assert_eq!(
            unknown("rate(x[$__interval])", &PLACEHOLDERS),
            None,
            "that is not how a placeholder begins"
        );
        assert_eq!(fill("$a $pods", |name| (name == "pods").then(|| "p".to_owned())), "$a p");
        assert!(!tells_revisions_apart("a{pod=~\"$canaryPods\"} / a{pod=~\"$stablePods\"}"));
    }

    proptest! {
        #[test]
        fn a_query_is_the_sum_of_its_pieces(query in r#"([$a-zA-Z_."{}é0-9 ]|\$pods){0,30}"#) {
            prop_assert_eq!(fill(&query, |_| None), query.clone());
        }
    }
}
