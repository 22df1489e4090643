//! Errors for people: what failed, where, why, and what to do next.

use std::error::Error as _;

pub use sluice_providers::innermost as root;

use crate::exit::Code;

/// A failure with its exit code. The text is the whole message.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// Exit code.
    pub code: Code,
    /// The message.
    pub text: String,
    /// Whether it is a matter of rights.
    pub forbidden: bool,
}

impl Failure {
    /// The command failed.
    pub fn new(text: impl Into<String>) -> Self {
        Self { code: Code::Error, text: text.into(), forbidden: false }
    }

    /// The command line is wrong.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { code: Code::Usage, text: text.into(), forbidden: false }
    }

    /// Time is up.
    pub fn timeout(text: impl Into<String>) -> Self {
        Self { code: Code::Timeout, text: text.into(), forbidden: false }
    }
}

/// What was asked of the API server, for error messages.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The RBAC verb.
    pub verb: &'static str,
    /// The resource, with its group.
    pub resource: &'static str,
    /// The namespace; `None` for all of them.
    pub namespace: Option<&'a str>,
    /// The API server, and the context that chose it.
    pub server: &'a str,
}

/// The resource of a rollout.
pub const ROLLOUTS: &str = "progressiverollouts.sluice.dev";

impl Asked<'_> {
    fn place(&self) -> String {
        self.namespace
            .map_or_else(|| "in all namespaces".to_owned(), |namespace| format!("in namespace {namespace:?}"))
    }

    fn forbidden(&self, said: &str) -> String {
        let Self { verb, resource, .. } = self;
        let role = match (*resource, *verb) {
            (ROLLOUTS, "get" | "list" | "watch") => "; the chart's ClusterRole sluice-view has it",
            (ROLLOUTS, _) => "; the chart's ClusterRole sluice-edit has it",
            _ => "",
        };
        format!(
            "you may not {verb} {resource} {}: {said}. Ask for a Role with verb {verb:?} on {resource:?}{role}.",
            self.place()
        )
    }

    /// Explains an answer of the API server, or the lack of one.
    pub fn explain(&self, error: &kube::Error) -> Failure {
        let Self { verb, resource, server, .. } = self;
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Failure::new(format!(
                    "{server} does not accept your credentials (401): {}. Log in again, or choose another --context.",
                    status.message
                )),
                403 => Failure { forbidden: true, ..Failure::new(self.forbidden(&status.message)) },
                404 if is_unknown_resource(status) => Failure::new(format!(
                    "{server} does not know {resource}: Sluice is not installed in this cluster. Install it with its Helm chart, or choose another --context."
                )),
                _ => Failure::new(format!(
                    "{server} refused to {verb} {resource} {}: {}",
                    self.place(),
                    status.message
                )),
            },
            kube::Error::SerdeError(source) => Failure::new(format!(
                "the answer of {server} is not understood ({source}): is it a Kubernetes API server?"
            )),
            kube::Error::Auth(source) => Failure::new(format!(
                "credentials for {server} can't be had: {}. Log in again, or choose another --context.",
                root(source)
            )),
            other => Failure::new(format!(
                "{server} can't be reached: {}. Check the network and the cluster, or choose another --context.",
                root(other)
            )),
        }
    }
}

/// Whether the server does not know the resource at all, as opposed to one object of it.
pub fn is_unknown_resource(status: &kube::core::Status) -> bool {
    let named = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
    status.code == 404 && !named
}

/// Why a kubeconfig can't be used, and what to write.
pub fn kubeconfig(error: &kube::config::KubeconfigError, context: Option<&str>, file: &str) -> Failure {
    use kube::config::KubeconfigError as E;
    let text = match (error, context) {
        (E::LoadContext(_), Some(context)) => {
            format!("context {context:?} is not in {file}: kubectl config get-contexts lists them.")
        }
        (E::CurrentContextNotSet | E::LoadContext(_), _) => {
            format!(
                "{file} has no current context: name one with --context, or kubectl config use-context NAME."
            )
        }
        (E::ReadConfig(source, path), _) => {
            format!(
                "kubeconfig {} can't be read: {source}. Name a file with --kubeconfig or $KUBECONFIG.",
                path.display()
            )
        }
        (other, _) => {
            let inner = other.source().map(|_| format!(": {}", root(other))).unwrap_or_default();
            format!("{file} can't be used: {other}{inner}.")
        }
    };
    Failure::new(text)
}

#[cfg(test)]
mod tests {
    use kube::core::{Status, response::StatusDetails};

    use super::*;

    fn said(status: Status) -> String {
        let asked = Asked {
            verb: "get",
            resource: ROLLOUTS,
            namespace: Some("shop"),
            server: "https://k:6443 (context prod)",
        };
        asked.explain(&kube::Error::Api(status.boxed())).text
    }

    #[test]
    fn a_missing_crd_is_not_a_missing_object() {
        let unknown = Status::failure("404 page not found", "Failed to parse error data").with_code(404);
        assert!(is_unknown_resource(&unknown));
        assert!(said(unknown).contains("Sluice is not installed in this cluster"));
        let details: StatusDetails =
            serde_json::from_value(serde_json::json!({ "name": "checkout" })).unwrap();
        assert!(!is_unknown_resource(
            &Status::failure("not found", "NotFound").with_code(404).with_details(details)
        ));
    }

    #[test]
    fn forbidden_names_the_verb_and_the_resource() {
        let text = said(Status::failure("User \"bob\" cannot get", "Forbidden").with_code(403));
        assert!(
            text.contains("you may not get progressiverollouts.sluice.dev in namespace \"shop\""),
            "{text}"
        );
        assert!(text.contains("verb \"get\" on \"progressiverollouts.sluice.dev\""), "{text}");
    }
}
