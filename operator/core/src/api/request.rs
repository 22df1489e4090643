//! A person's request as it is written in an annotation: `<verb>/<runID>`, or `<verb>/<runID>/<nonce>`.

use std::fmt;
use std::str::FromStr;

/// Longest run id that is accepted, in characters.
const RUN_ID_LIMIT: usize = 32;
/// Longest nonce, in characters.
const NONCE_LIMIT: usize = 32;

/// What a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Return all traffic to stable, reject the revision.
    Abort,
    /// Keep the weight.
    Pause,
    /// Go on.
    Resume,
    /// Start the held revision again.
    Retry,
}

impl Verb {
    /// All verbs.
    pub const ALL: [Self; 4] = [Self::Abort, Self::Pause, Self::Resume, Self::Retry];

    /// The word in the annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry => "retry",
        }
    }
}

/// A verb for one run. The same text is acted on once; another nonce makes it a new request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub verb: Verb,
    /// The run that it is for.
    pub run_id: String,
    /// Tells a request from an earlier one with the same verb and run.
    pub nonce: Option<String>,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.verb.as_str(), self.run_id)?;
        match &self.nonce {
            Some(nonce) => write!(f, "/{nonce}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Request {
    /// What is wrong, and what to write instead.
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let shown = || format!("{:?}", value.chars().take(60).collect::<String>());
        let parts: Vec<&str> = value.split('/').collect();
        let (verb, run_id, nonce) = match parts.as_slice() {
            [verb, run] => (*verb, *run, None),
            [verb, run, nonce] => (*verb, *run, Some(*nonce)),
            _ => {
                return Err(format!(
                    "write <verb>/<runID>, such as abort/7-x2k4f, or <verb>/<runID>/<nonce>, not {}",
                    shown()
                ));
            }
        };
        let Some(verb) = Verb::ALL.into_iter().find(|known| known.as_str() == verb) else {
            return Err(format!(
                "{:?} is no verb; write abort, pause, resume or retry",
                verb.chars().take(30).collect::<String>()
            ));
        };
        if !is_word(run_id, RUN_ID_LIMIT) {
            return Err(format!(
                "{} names no run; write {}/<runID> with the id that status.run.id or status.history shows",
                shown(),
                verb.as_str()
            ));
        }
        if nonce.is_some_and(|nonce| !is_word(nonce, NONCE_LIMIT)) {
            return Err(format!(
                "the nonce of {} must be 1 to {NONCE_LIMIT} letters, digits, '-', '_' or '.', such as {}/{run_id}/2",
                shown(),
                verb.as_str()
            ));
        }
        Ok(Self { verb, run_id: run_id.to_owned(), nonce: nonce.map(ToOwned::to_owned) })
    }
}

fn is_word(text: &str, limit: usize) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= limit && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Result<Request, String> {
        value.parse()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for verb in Verb::ALL {
            for nonce in [None, Some("2".to_owned()), Some("mtz3k_9.a-B".to_owned())] {
                let request = Request { verb, run_id: "7-5bd9c".to_owned(), nonce };
                assert_eq!(parsed(&request.to_string()), Ok(request));
            }
        }
    }

    #[test]
    fn what_is_malformed_says_what_to_write() {
        for (value, says) in [
            ("abort", "write <verb>/<runID>, such as abort/7-x2k4f"),
            ("abort/7-x/1/2", "write <verb>/<runID>, such as abort/7-x2k4f"),
            ("promote/7-x", "\"promote\" is no verb; write abort, pause, resume or retry"),
            ("Abort/7-x", "\"Abort\" is no verb"),
            ("abort/", "write abort/<runID>"),
            ("abort/ 7-x", "write abort/<runID>"),
            ("pause/7-x/", "the nonce of \"pause/7-x/\" must be 1 to 32 letters"),
            ("pause/7-x/a b", "such as pause/7-x/2"),
        ] {
            let problem = parsed(value).unwrap_err();
            assert!(problem.contains(says), "{value}: {problem}");
        }
        assert!(parsed(&"x".repeat(10_000)).unwrap_err().len() < 200);
        assert!(parsed(&format!("{}/7-x", "x".repeat(10_000))).unwrap_err().len() < 200);
        assert!(parsed(&format!("pause/7-x/{}", "x".repeat(33))).is_err());
    }
}
