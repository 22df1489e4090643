//! Failed calls to the API server, sorted by what the caller can do about them.
//!
//! A call fails as a [`CallError`]: what was tried, the kind of failure, and the server's own words. The name
//! of the kind is the metric label and the condition reason.

use std::time::Duration;

use sluice_providers::innermost;

/// What the caller can do about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallErrorKind {
    /// No answer within the limit. The call may have been carried out.
    TimedOut,
    /// The server can't be reached, or the connection broke. The call may have been carried out.
    Unreachable,
    /// 404: the object, or its kind, is not there.
    NotFound,
    /// 409: somebody else wrote in between, or the name is taken. Read again and decide again.
    Conflict,
    /// 422 and 400: the server refuses the content, or the `test` of a JSON Patch did not hold.
    Invalid,
    /// 401 and 403: a permission is missing, or an admission policy or quota refuses.
    Denied,
    /// 429: the server asks for patience.
    Throttled,
    /// 5xx: the server, or something in front of it, failed.
    ServerError,
    /// Anything else: an answer that can't be read, a request that can't be made.
    Unexpected,
}

impl CallErrorKind {
    /// The name in metrics and conditions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "TimedOut",
            Self::Unreachable => "Unreachable",
            Self::NotFound => "NotFound",
            Self::Conflict => "Conflict",
            Self::Invalid => "Invalid",
            Self::Denied => "Denied",
            Self::Throttled => "Throttled",
            Self::ServerError => "ServerError",
            Self::Unexpected => "Unexpected",
        }
    }

    /// Whether the call may have taken effect in spite of the failure.
    pub fn is_ambiguous(self) -> bool {
        match self {
            Self::TimedOut | Self::Unreachable | Self::ServerError | Self::Unexpected => true,
            Self::NotFound | Self::Conflict | Self::Invalid | Self::Denied | Self::Throttled => false,
        }
    }
}

/// A call to the API server that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {message}")]
pub struct CallError {
    /// What was tried, in words: `get Lease sluice`.
    pub what: String,
    /// What can be done about it.
    pub kind: CallErrorKind,
    /// The server's words, or ours where there was no answer.
    pub message: String,
    /// HTTP status code, 0 when there was no answer.
    pub code: u16,
    /// How long the server asks to wait, when it does.
    pub retry_after: Option<Duration>,
    #[source]
    source: Option<kube::Error>,
}

impl CallError {
    /// No answer within `limit`.
    pub fn timed_out(what: impl Into<String>, limit: Duration) -> Self {
        Self {
            what: what.into(),
            kind: CallErrorKind::TimedOut,
            message: format!("no answer within {} s", limit.as_secs_f64()),
            code: 0,
            retry_after: None,
            source: None,
        }
    }

    /// Sorts an error of the client.
    pub fn from_kube(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        let kube::Error::Api(status) = &error else {
            let kind = match &error {
                kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
                    CallErrorKind::Unreachable
                }
                _ => CallErrorKind::Unexpected,
            };
            let message = innermost(&error);
            return Self { what, kind, message, code: 0, retry_after: None, source: Some(error) };
        };
        let kind = match status.code {
            404 | 410 => CallErrorKind::NotFound,
            409 => CallErrorKind::Conflict,
            400 | 422 => CallErrorKind::Invalid,
            401 | 403 => CallErrorKind::Denied,
            429 => CallErrorKind::Throttled,
            500..=599 => CallErrorKind::ServerError,
            _ => CallErrorKind::Unexpected,
        };
        let wait = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        Self {
            what,
            kind,
            message: if status.message.is_empty() { status.reason.clone() } else { status.message.clone() },
            code: status.code,
            retry_after: (wait > 0).then(|| Duration::from_secs(wait.into())),
            source: Some(error),
        }
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.kind == CallErrorKind::NotFound
    }

    /// Somebody else wrote in between, or the name is taken.
    pub fn is_conflict(&self) -> bool {
        self.kind == CallErrorKind::Conflict
    }

    /// The name is taken: a create found an object.
    pub fn is_already_exists(&self) -> bool {
        matches!(&self.source, Some(kube::Error::Api(status)) if status.is_already_exists())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn api(code: u16, reason: &str) -> CallError {
        let status =
            Status { code, reason: reason.into(), message: format!("says {code}"), ..Status::default() };
        CallError::from_kube("patch Deployment web", kube::Error::Api(status.boxed()))
    }

    #[test]
    fn codes_are_sorted_by_what_can_be_done() {
        for (code, kind, ambiguous) in [
            (404, CallErrorKind::NotFound, false),
            (409, CallErrorKind::Conflict, false),
            (422, CallErrorKind::Invalid, false),
            (403, CallErrorKind::Denied, false),
            (401, CallErrorKind::Denied, false),
            (429, CallErrorKind::Throttled, false),
            (500, CallErrorKind::ServerError, true),
            (504, CallErrorKind::ServerError, true),
            (418, CallErrorKind::Unexpected, true),
        ] {
            let error = api(code, "");
            assert_eq!((error.kind, error.kind.is_ambiguous(), error.code), (kind, ambiguous, code));
            assert_eq!(error.to_string(), format!("patch Deployment web: says {code}"));
        }
    }

    #[test]
    fn a_taken_name_is_told_apart_from_a_conflict() {
        assert!(api(409, "AlreadyExists").is_already_exists());
        assert!(!api(409, "Conflict").is_already_exists());
        assert!(api(409, "Conflict").is_conflict());
    }

    #[test]
    fn a_timeout_names_its_limit() {
        let error = CallError::timed_out("get Lease sluice", Duration::from_millis(2500));
        assert_eq!(error.to_string(), "get Lease sluice: no answer within 2.5 s");
        assert!(error.kind.is_ambiguous());
    }
}
