//! The rules by which generative AI is recognised, as a versioned data file has them.

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use sluice_core::api::Provenance;

use crate::input::yaml;

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
    /// Agents.
    pub people: Vec<PersonRule>,
    /// Keys whose value is somebody who had a part.
    pub partners: Vec<String>,
    /// Other lines with a key.
    pub trailers: Vec<TrailerRule>,
    /// Lines of the message below its subject.
    pub lines: Vec<LineRule>,
    /// Beginnings of branch names.
    pub branches: Vec<String>,
    /// Accounts that open pull requests for agents, besides the names of `people`.
    #[serde(default)]
    pub openers: Vec<String>,
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
    #[cfg(test)]
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

/// An agent.
#[derive(Debug, Deserialize)]
#[serde(from = "PersonFields")]
pub struct PersonRule {
    /// Unique name.
    pub id: String,
    /// The tool that it stands for.
    pub tool: String,
    /// Whom it is about.
    pub who: Who,
    /// Whether a committer with this name says nothing.
    pub authors_only: bool,
}

/// A rule about a line with a key.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrailerRule {
    /// Unique name.
    pub id: String,
    /// The tool that it stands for.
    pub tool: String,
    /// What the change is then.
    #[serde(default = "assisted")]
    pub level: Provenance,
    keys: Vec<String>,
    #[serde(default, deserialize_with = "optional_pattern")]
    pattern: Option<Regex>,
    #[serde(default)]
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
        let rules: Self = yaml(text)?;
        let mut ids: Vec<String> = rules.ids().collect();
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("rule {} is there twice: give each an id of its own", pair[0])),
            None => Ok(rules),
        }
    }

    /// Names of the rules.
    pub fn ids(&self) -> impl Iterator<Item = String> {
        let people = self.people.iter().flat_map(|rule| [rule.id.clone(), rule.as_partner()]);
        let trailers = self.trailers.iter().map(|rule| rule.id.clone());
        people.chain(trailers).chain(self.lines.iter().map(|rule| rule.id.clone()))
    }

    /// The agent that a line names as somebody who had a part.
    pub fn partner(&self, key: &str, value: &str) -> Option<&PersonRule> {
        if !self.partners.iter().any(|known| known.eq_ignore_ascii_case(key)) {
            return None;
        }
        let mut named = people(value);
        named.find_map(|(name, email)| self.people.iter().find(|rule| rule.who.is(name, email)))
    }
}

impl PersonRule {
    /// Name of the rule when the agent had a part only.
    pub fn as_partner(&self) -> String {
        format!("T-{}", self.id.trim_start_matches("A-"))
    }
}

impl TrailerRule {
    /// Whether it is about this line.
    pub fn is(&self, key: &str, value: &str, tools: &Regex) -> bool {
        self.keys.iter().any(|known| known.eq_ignore_ascii_case(key))
            && !denies(value)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(value))
            // With an address it is somebody: people are called Claude and Ai too.
            && (!self.names_tool || (!value.contains('<') && tools.is_match(value)))
    }
}

/// Whether a value says that there was none, and nothing else.
fn denies(value: &str) -> bool {
    let none = [
        "", "-", "0", "n", "no", "none", "nobody", "n/a", "na", "false", "never", "no ai", "no code",
        "not used",
    ];
    none.contains(&value.trim().trim_end_matches('.').to_lowercase().as_str())
}

impl LineRule {
    /// Whether it is about this line.
    pub fn is(&self, line: &str) -> bool {
        self.pattern.is_match(line)
    }
}

/// Each `Name <address>` of a value; what has no brackets is an address if it looks like one.
pub fn people(value: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = value;
    std::iter::from_fn(move || {
        if rest.trim().is_empty() {
            return None;
        }
        let (name, after) = rest.split_once('<').unwrap_or((rest, ""));
        let (email, after) = after.split_once('>').unwrap_or((after, ""));
        rest = after;
        let name = name.trim_matches([',', ';', ' ', '\t']);
        let email = if email.is_empty() && name.contains('@') { name } else { email.trim() };
        Some((name, email))
    })
}

/// As in the file: whom it is about stands beside the other fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PersonFields {
    id: String,
    tool: String,
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
        let PersonFields { id, tool, names, name_ends, emails, email_ends, authors_only } = fields;
        Self { id, tool, who: Who { names, name_ends, emails, email_ends }, authors_only }
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

/// Any of these, as whole words, perhaps with a version; a hyphen may stand for a space.
fn words<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Regex, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    let any = words.iter().map(|word| word.replace(' ', "[- ]")).collect::<Vec<_>>().join("|");
    regex(&format!("(^|[^\\w-])({any})([-0-9][-\\w.]*)?($|[^\\w-])")).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_rules_are_in_order() {
        let rules = Rules::built_in().unwrap();
        // A rule without a condition would call every commit of its kind AI-made.
        assert!(rules.people.iter().all(|rule| !rule.who.is_empty()));
        let free =
            ["assisted-by", "generated-by", "generated-with", "created-with", "made-with", "ai-used-for"];
        for rule in &rules.trailers {
            let decides = rule.pattern.is_some() || rule.names_tool;
            assert!(decides || !rule.keys.iter().any(|key| free.contains(&key.as_str())), "{}", rule.id);
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let broken = [
            ("version: \"2026.11\"", "version: \"2026.11\"\ncolour: red"),
            ("level: GenAIAutonomous, keys: [agent-logs-url]", "level: Robot, keys: []"),
            ("pattern: \"generated with", "pattern: \"(generated with"),
            ("{id: T-KEYS-5", "{id: T-KEYS-4"),
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
