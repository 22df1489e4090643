//! Traces from files and streams. A header line begins the next trace; lines are counted by file, not by trace.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use serde_json::Value;
use sluice_core::trace::Trace;

use crate::fail::Failure;
use crate::input::cause;

/// The longest line that is read: 16 MiB hold the counters of some 100,000 pods.
const LONGEST: u64 = 16 << 20;
/// How compressed files begin: gzip, zstd.
const COMPRESSED: [&[u8]; 2] = [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd]];
/// Where the format is written down.
const FORMAT: &str = "a trace is JSON Lines, as docs/cli.md shows it";

/// Gives each trace to `found`, or in words why there is none. What `found` can't go on from ends the reading.
pub fn read(
    path: &Path,
    found: &mut impl FnMut(Result<Trace, String>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if path.as_os_str() == "-" {
        return split("standard input", &mut io::stdin().lock(), found);
    }
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => split(&name, &mut BufReader::new(file), found),
        Err(error) => found(Err(format!("{name}: {}", cause(&error)))),
    }
}

fn split(
    name: &str,
    reader: &mut impl BufRead,
    found: &mut impl FnMut(Result<Trace, String>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut part = Part { first: 1, lines: Vec::new() };
    let mut any = false;
    let mut number = 0;
    loop {
        let mut bytes = Vec::new();
        number += 1;
        let end = match reader.by_ref().take(LONGEST).read_until(b'\n', &mut bytes) {
            Ok(read) => read == 0,
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                return found(Err(format!("{name}: {}", cause(&error))));
            }
            Err(error) => return found(Err(format!("{name}: line {number}: {}", cause(&error)))),
        };
        if end {
            break;
        }
        let line = match text(bytes, number) {
            Ok(line) => line,
            // What comes before it lacks its end, and what comes after may lack its beginning.
            Err(problem) => return found(Err(format!("{name}: {problem}"))),
        };
        if part.has_text() && is_header(&line) {
            let next = Part { first: number, lines: Vec::new() };
            any = true;
            found(std::mem::replace(&mut part, next).trace(name))?;
        }
        part.lines.push(line);
    }
    // Empty lines at the end of a file are no trace; a file of nothing else is an empty one.
    if part.has_text() || !any { found(part.trace(name)) } else { Ok(()) }
}

fn text(bytes: Vec<u8>, number: usize) -> Result<String, String> {
    if number == 1 && COMPRESSED.iter().any(|magic| bytes.starts_with(magic)) {
        return Err("is compressed: unpack it and give it to --trace -".to_owned());
    }
    if bytes.len() as u64 == LONGEST {
        return Err(format!("line {number}: is longer than {} MiB: {FORMAT}", LONGEST >> 20));
    }
    let line = String::from_utf8(bytes).ok().filter(|line| !line.contains('\0'));
    let line = line.ok_or_else(|| format!("line {number}: is not text: {FORMAT}"))?;
    // A mark that some editors write at the beginning.
    Ok(if number == 1 { line.trim_start_matches('\u{feff}').to_owned() } else { line })
}

/// Lines of one trace.
struct Part {
    first: usize,
    lines: Vec<String>,
}

impl Part {
    fn has_text(&self) -> bool {
        self.lines.iter().any(|line| !line.trim().is_empty())
    }

    fn trace(&self, name: &str) -> Result<Trace, String> {
        Trace::read(self.lines.iter().map(String::as_str))
            .map_err(|problem| format!("{name}: line {}: {}", self.first + problem.line - 1, problem.what))
    }
}

/// Whether a line begins a trace. Parsed only when it may be one: records are many.
fn is_header(line: &str) -> bool {
    let keys = || serde_json::from_str::<Value>(line).ok();
    line.contains("\"sluiceTrace\"") && keys().is_some_and(|value| value.get("sluiceTrace").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"sluiceTrace":1,"id":"ID","scrapeSeconds":15}"#;
    const RECORD: &str = r#"{"t":15,"weight":0,"state":"outage"}"#;

    fn found(bytes: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        let mut each = |found: Result<Trace, String>| {
            all.push(match found {
                Ok(trace) => format!("{}: {} records", trace.header.id, trace.records.len()),
                Err(problem) => problem,
            });
            Ok(())
        };
        split("f", &mut io::Cursor::new(bytes), &mut each).unwrap();
        all
    }

    fn header(id: &str) -> String {
        HEADER.replace("ID", id)
    }

    #[test]
    fn a_header_begins_the_next_trace_and_lines_are_those_of_the_file() {
        let (a, b, c) = (header("a"), header("b"), header("c"));
        let file = format!("\u{feff}\n{a}\r\n{RECORD}\r\n\n{b}\n{RECORD}\n{{\"t\":1\n{c}\n{RECORD}\n\n\n");
        let found = found(file.as_bytes());
        assert_eq!(found[0], "a: 1 records");
        assert!(found[1].starts_with("f: line 7: EOF while parsing an object"), "{found:?}");
        assert_eq!((found[2].as_str(), found.len()), ("c: 1 records", 3));
    }

    #[test]
    fn what_is_no_trace_is_named() {
        let empty = "f: line 1: the trace is empty: the first line is a header such as \
                     {\"sluiceTrace\":1,\"id\":\"t1\",\"scrapeSeconds\":15}";
        assert_eq!(found(b""), [empty]);
        assert_eq!(found(b"\n\n"), [empty]);
        assert!(found(RECORD.as_bytes())[0].starts_with("f: line 1: the header is missing"));
        let not_text = "f: line 2: is not text: a trace is JSON Lines, as docs/cli.md shows it";
        assert_eq!(found(format!("{}\n\u{0}\n", header("a")).as_bytes()), [not_text]);
        assert_eq!(found(&[header("a").as_bytes(), b"\n\xff\xfe\n"].concat()), [not_text]);
        assert_eq!(found(&[0x1f, 0x8b, 8, 0]), ["f: is compressed: unpack it and give it to --trace -"]);
    }

    #[test]
    fn a_missing_file_and_a_directory_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut said = Vec::new();
        for path in [dir.path().join("none.jsonl"), dir.path().to_owned()] {
            let mut each = |found: Result<Trace, String>| {
                said.push(found.unwrap_err());
                Ok(())
            };
            read(&path, &mut each).unwrap();
        }
        assert!(said[0].ends_with("none.jsonl: there is no such file: is the path right?"), "{said:?}");
        assert!(said[1].ends_with(": is a directory: name the files in it"), "{said:?}");
    }
}
