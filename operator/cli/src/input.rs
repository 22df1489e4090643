//! Files that people hand over, and what to say when they can't be read.

use std::io;

use serde::de::DeserializeOwned;

/// What the reader advises to those who call it from a program.
const LIBRARY: &str = ", set DuplicateKeyPolicy in Options if acceptable";

/// Why a file can't be read, and what to do.
pub fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file: is the path right?".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory: name the files in it".to_owned(),
        io::ErrorKind::InvalidData => "is not text".to_owned(),
        _ => format!("can't be read: {error}"),
    }
}

/// Reads YAML. What is wrong is said with its line and its field.
pub fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut track = serde_path_to_error::Track::new();
    let read = serde_saphyr::with_deserializer_from_str(text, |yaml| {
        T::deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track))
    });
    read.map_err(|error| {
        let at = error.location().map_or_else(String::new, |at| format!("line {}: ", at.line()));
        let field = track.path().to_string();
        // What breaks off before it has a name is said by what it is in.
        let field = field.trim_end_matches(['?', '.']);
        let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
        let said = error.without_snippet().to_string();
        // The place is said once, and all in one line.
        let said = said.split(" at line ").next().unwrap_or_default().replace(LIBRARY, "");
        let said = said.split_whitespace();
        format!("{at}{field}{}", said.collect::<Vec<_>>().join(" "))
    })
}
