//! The rules by which generative AI is recognised, as a versioned data file has them.

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use sluice_core::api::Provenance;

/// The file that this program was built with.
const BUILT_IN: &str = include_str!("rules.yaml");

/// All rules.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rules {
    /// Of the file.
    pub version: String,
    /// By these words a free value names a tool.
    #[serde(deserialize_with = "words")]
    pub tools: Regex,
    /// Authors and committers.
    pub people: Vec<PersonRule>,
    /// Trailers.
    pub trailers: Vec<TrailerRule>,
    /// Lines of the message below its subject.
    pub lines: Vec<LineRule>,
    /// Beginnings of branch names.
    pub branches: Vec<String>,
    /// Labels of a pull request.
    pub labels: Vec<String>,
    /// Files and directories that set up an agent.
    pub files: Vec<String>,
    /// Programs that are no generative AI.
    pub bots: Who,
}

/// Whom a rule is about: any of these.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Who {
    names: Vec<String>,
    name_ends: Vec<String>,
    emails: Vec<String>,
    email_ends: Vec<String>,
}

impl Who {
    /// Whether it is about nobody in particular.
    fn is_empty(&self) -> bool {
        [&self.names, &self.name_ends, &self.emails, &self.email_ends].iter().all(|list| list.is_empty())
    }

    /// Whether it is about this person.
    pub fn is(&self, name: &str, email: &str) -> bool {
        let (name, email) = (name.trim().to_lowercase(), email.trim().to_lowercase());
        let same = |list: &[String], text: &str| list.iter().any(|known| known.to_lowercase() == text);
        let ends = |list: &[String], text: &str| list.iter().any(|end| text.ends_with(&end.to_lowercase()));
        same(&self.emails, &email)
            || ends(&self.email_ends, &email)
            || same(&self.names, &name)
            || ends(&self.name_ends, &name)
    }
}

/// A rule about authors and committers.
#[derive(Debug, Deserialize)]
#[serde(from = "PersonFields")]
pub struct PersonRule {
    /// Unique name.
    pub id: String,
    /// The tool that it stands for.
    pub tool: String,
    /// What the change is then.
    pub level: Provenance,
    /// Whom it is about.
    pub who: Who,
    /// Whether a committer with this name says nothing.
    pub authors_only: bool,
}

/// A rule about a trailer.
#[derive(Debug, Deserialize)]
#[serde(from = "TrailerFields")]
pub struct TrailerRule {
    /// Unique name.
    pub id: String,
    /// The tool that it stands for.
    pub tool: String,
    /// What the change is then.
    pub level: Provenance,
    keys: Vec<String>,
    who: Who,
    pattern: Option<Regex>,
    names_tool: bool,
}

/// A rule about a line of the message.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LineRule {
    /// Unique name.
    pub id: String,
    /// The tool that it stands for.
    pub tool: String,
    #[serde(deserialize_with = "pattern")]
    pattern: Regex,
}

impl Rules {
    /// Those that this program was built with.
    pub fn built_in() -> Result<Self, String> {
        Self::parse(BUILT_IN)
    }

    /// Those of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut track = serde_path_to_error::Track::new();
        let rules = serde_saphyr::with_deserializer_from_str(text, |yaml| {
            Self::deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track))
        });
        let rules = rules.map_err(|error| {
            let line = error.location().map_or_else(String::new, |at| format!("line {}: ", at.line()));
            let said = error.without_snippet().to_string();
            // The place is said once.
            let said = said.split(" at line ").next().unwrap_or_default().split_whitespace();
            format!("{line}{}: {}", track.path(), said.collect::<Vec<_>>().join(" "))
        })?;
        let mut ids: Vec<&str> = rules.ids().collect();
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("rule {} is there twice: give each an id of its own", pair[0])),
            None => Ok(rules),
        }
    }

    /// Names of the rules.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let people = self.people.iter().map(|rule| rule.id.as_str());
        let trailers = self.trailers.iter().map(|rule| rule.id.as_str());
        people.chain(trailers).chain(self.lines.iter().map(|rule| rule.id.as_str()))
    }
}

impl TrailerRule {
    /// Whether it is about this trailer.
    pub fn is(&self, key: &str, value: &str, tools: &Regex) -> bool {
        if !self.keys.iter().any(|known| known.eq_ignore_ascii_case(key)) {
            return false;
        }
        let (name, email) = person(value);
        let pattern = self.pattern.as_ref();
        (self.who.is_empty() || self.who.is(name, email))
            && pattern.is_none_or(|pattern| pattern.is_match(value))
            // With an address it is somebody: people are called Claude and Ai too.
            && (!self.names_tool || (email.is_empty() && tools.is_match(value)))
    }

    /// Whether an address or a name decides: then it counts above the last block too, where a squash leaves it.
    pub fn is_about_somebody(&self) -> bool {
        !self.who.is_empty()
    }
}

impl LineRule {
    /// Whether it is about this line.
    pub fn is(&self, line: &str) -> bool {
        self.pattern.is_match(line)
    }
}

/// `Name <address>`.
pub fn person(value: &str) -> (&str, &str) {
    match value.split_once('<') {
        Some((name, rest)) => (name.trim(), rest.split('>').next().unwrap_or_default().trim()),
        None => (value.trim(), ""),
    }
}

/// As in the file: whom it is about stands beside the other fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PersonFields {
    id: String,
    tool: String,
    level: Provenance,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    name_ends: Vec<String>,
    #[serde(default)]
    emails: Vec<String>,
    #[serde(default)]
    email_ends: Vec<String>,
    #[serde(default)]
    authors_only: bool,
}

impl From<PersonFields> for PersonRule {
    fn from(fields: PersonFields) -> Self {
        let PersonFields { id, tool, level, names, name_ends, emails, email_ends, authors_only } = fields;
        Self { id, tool, level, who: Who { names, name_ends, emails, email_ends }, authors_only }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TrailerFields {
    id: String,
    tool: String,
    #[serde(default = "assisted")]
    level: Provenance,
    keys: Vec<String>,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    emails: Vec<String>,
    #[serde(default)]
    email_ends: Vec<String>,
    #[serde(default, deserialize_with = "optional_pattern")]
    pattern: Option<Regex>,
    #[serde(default)]
    names_tool: bool,
}

impl From<TrailerFields> for TrailerRule {
    fn from(fields: TrailerFields) -> Self {
        let TrailerFields { id, tool, level, keys, names, emails, email_ends, pattern, names_tool } = fields;
        let who = Who { names, name_ends: Vec::new(), emails, email_ends };
        Self { id, tool, level, keys, who, pattern, names_tool }
    }
}

fn assisted() -> Provenance {
    Provenance::GenAIAssisted
}

fn regex(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).case_insensitive(true).build();
    built.map_err(|error| format!("pattern {text:?}: {error}").replace('\n', " "))
}

fn pattern<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Regex, D::Error> {
    regex(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn optional_pattern<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Regex>, D::Error> {
    pattern(deserializer).map(Some)
}

/// Any of these, as whole words; a hyphen may stand for a space.
fn words<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Regex, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    let any = words.iter().map(|word| word.replace(' ', "[- ]")).collect::<Vec<_>>().join("|");
    regex(&format!("(^|[^\\w-])({any})($|[^\\w-])")).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_rules_are_in_order() {
        let rules = Rules::built_in().unwrap();
        // A rule without a condition would call every commit of its kind AI-made.
        assert!(rules.people.iter().all(|rule| !rule.who.is_empty()));
        let free = ["co-authored-by", "signed-off-by", "assisted-by", "generated-by", "made-with"];
        for rule in &rules.trailers {
            let decides = rule.is_about_somebody() || rule.pattern.is_some() || rule.names_tool;
            assert!(decides || !rule.keys.iter().any(|key| free.contains(&key.as_str())), "{}", rule.id);
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let broken = [
            ("version: \"2026.11\"", "version: \"2026.11\"\ncolour: red"),
            ("level: GenAIAutonomous, names: [\"copilot-swe-agent[bot]\"]", "level: Robot, names: []"),
            ("pattern: \"^cursor$\"", "pattern: \"(cursor\""),
            ("{id: T-AMP-2", "{id: T-AMP-1"),
        ];
        let said: Vec<String> = broken
            .iter()
            .map(|(from, to)| {
                assert!(BUILT_IN.contains(from));
                Rules::parse(&BUILT_IN.replacen(from, to, 1)).unwrap_err()
            })
            .collect();
        insta::assert_snapshot!("rule_errors", said.join("\n"));
    }
}
