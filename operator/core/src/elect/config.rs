//! The times of an election, and how they must relate for two never to lead at once.

use std::time::Duration;

/// How long a lease lasts and how often it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectionConfig {
    /// How long others wait, after the record last changed, before they take it over. Whole seconds.
    pub lease_duration: Duration,
    /// How long the leader goes on without a successful renewal.
    pub renew_deadline: Duration,
    /// Time between two attempts.
    pub retry_period: Duration,
}

impl Default for ElectionConfig {
    /// 15 s, 10 s and 2 s: the defaults of client-go and of Kubernetes' own controllers.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Why an [`ElectionConfig`] can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectionConfigError {
    /// The Lease object counts whole seconds.
    #[error("lease duration {0:?}: must be whole seconds, 1 s to 1 h; the default is 15 s")]
    LeaseDuration(Duration),
    /// Others would take over while this elector still leads.
    #[error(
        "renew deadline {renew:?}: must be shorter than the lease duration {lease:?}; the default is 10 s"
    )]
    RenewDeadline {
        /// The renew deadline.
        renew: Duration,
        /// The lease duration.
        lease: Duration,
    },
    /// Not even two attempts fit into the renew deadline.
    #[error(
        "retry period {retry:?}: must be above 0 and at most half of the renew deadline {renew:?}; the default is 2 s"
    )]
    RetryPeriod {
        /// The retry period.
        retry: Duration,
        /// The renew deadline.
        renew: Duration,
    },
}

impl ElectionConfig {
    /// Checks the three against each other.
    pub fn validate(&self) -> Result<(), ElectionConfigError> {
        let (lease, renew, retry) = (self.lease_duration, self.renew_deadline, self.retry_period);
        if lease.subsec_nanos() != 0 || lease.is_zero() || lease > Duration::from_secs(3600) {
            return Err(ElectionConfigError::LeaseDuration(lease));
        }
        if renew >= lease {
            return Err(ElectionConfigError::RenewDeadline { renew, lease });
        }
        if retry.is_zero() || retry * 2 > renew {
            return Err(ElectionConfigError::RetryPeriod { retry, renew });
        }
        Ok(())
    }
}
