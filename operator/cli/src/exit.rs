//! Exit codes. They describe the run (`status`, `status -w`); a verb that did its work returns 0.

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Promoted, idle, or under way.
    Fine,
    /// The command failed, or the rollout is stalled by bad input.
    Error,
    /// The command line is wrong.
    Usage,
    /// Rejected, aborted, not proven, reverted or abandoned.
    Rejected,
    /// It waits for a person.
    Person,
    /// `--timeout` passed.
    Timeout,
    /// A gate of `scan` or `plan` failed.
    Gate,
    /// A newer template took the place of the change.
    Superseded,
}

impl Code {
    /// The number.
    pub fn number(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Rejected => 3,
            Self::Person => 4,
            Self::Timeout => 5,
            Self::Gate => 6,
            Self::Superseded => 7,
        }
    }
}
