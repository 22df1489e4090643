//! The chart's admission policies for Deployments, written out in Rust: what the API server does to a write
//! before it is stored. The text of the policies is in the chart; the end-to-end tests play the same writes
//! against a real API server.

use serde_json::{Value, json};
use sluice_core::api::{ANNOTATION_BREAK_GLASS, ANNOTATION_HELD, LABEL_MANAGED};

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Our ServiceAccount.
    Sluice,
    /// Controllers of Kubernetes.
    Native,
    /// A ServiceAccount that applies from git.
    GitOps,
    /// A person who may edit.
    Person,
    /// A person with the verb `breakglass`.
    Responder,
}

fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    object
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(key))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn managed(object: &Value) -> bool {
    label(object) == "true"
}

fn label(object: &Value) -> &str {
    let labels = object.pointer("/metadata/labels");
    labels.and_then(|labels| labels.get(LABEL_MANAGED)).and_then(Value::as_str).unwrap_or_default()
}

fn paused(object: &Value) -> bool {
    object.pointer("/spec/paused").and_then(Value::as_bool).unwrap_or(false)
}

/// Mutates and validates one update of a Deployment.
pub fn admit(old: &Value, mut new: Value, actor: Actor) -> Result<Value, String> {
    // An objectSelector matches when the old or the new object does.
    if !(managed(old) || managed(&new)) || actor == Actor::Sluice {
        return Ok(new);
    }
    let glass = annotation(&new, ANNOTATION_BREAK_GLASS);
    let licence = !glass.is_empty() && glass != annotation(old, ANNOTATION_BREAK_GLASS);
    if licence && actor == Actor::Responder {
        return Ok(new);
    }
    mutate(old, &mut new);
    validate(old, &new)?;
    Ok(new)
}

fn mutate(old: &Value, new: &mut Value) {
    let was = annotation(old, ANNOTATION_HELD).to_owned();
    let now = annotation(new, ANNOTATION_HELD).to_owned();
    let template_changed = new.pointer("/spec/template") != old.pointer("/spec/template");
    if !was.is_empty() || template_changed {
        let mark = if was.is_empty() {
            if paused(old) && paused(new) && now != "held" { "user-paused" } else { "held" }
        } else if was == "user-paused" && (!paused(new) || now == "held") {
            "held"
        } else {
            was.as_str()
        };
        new["metadata"]["annotations"][ANNOTATION_HELD] = json!(mark);
        new["spec"]["paused"] = json!(true);
    } else if !now.is_empty()
        && let Some(annotations) = new.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(ANNOTATION_HELD);
    }
    new["metadata"]["labels"][LABEL_MANAGED] = json!("true");
}

fn validate(old: &Value, new: &Value) -> Result<(), String> {
    let (was, now) = (annotation(old, ANNOTATION_HELD), annotation(new, ANNOTATION_HELD));
    let template_same = new.pointer("/spec/template") == old.pointer("/spec/template");
    if !paused(new) && !template_same {
        return Err("a new pod template must arrive with spec.paused=true".to_owned());
    }
    if !was.is_empty() && (now.is_empty() || !paused(new)) {
        return Err("the Deployment is held".to_owned());
    }
    if label(old) != label(new) {
        return Err("the label sluice.dev/managed goes away with the ProgressiveRollout".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(image: &str, paused: bool, mark: &str) -> Value {
        json!({
            "metadata": {"labels": {LABEL_MANAGED: "true"}, "annotations": {ANNOTATION_HELD: mark}},
            "spec": {"paused": paused, "template": {"spec": {"image": image}}},
        })
    }

    #[test]
    fn a_new_template_arrives_held_whatever_the_manifest_says() {
        let new = admit(&deployment("a:1", false, ""), deployment("a:2", false, ""), Actor::GitOps).unwrap();
        assert!(paused(&new));
        assert_eq!(annotation(&new, ANNOTATION_HELD), "held");
    }

    #[test]
    fn a_pause_of_the_user_is_kept_until_the_user_resumes() {
        let held = admit(&deployment("a:1", true, ""), deployment("a:2", true, ""), Actor::Person).unwrap();
        assert_eq!(annotation(&held, ANNOTATION_HELD), "user-paused");
        // A template that comes with the end of the pause is an ordinary new one.
        let both = admit(&deployment("a:1", true, ""), deployment("a:2", false, ""), Actor::GitOps).unwrap();
        assert_eq!((paused(&both), annotation(&both, ANNOTATION_HELD)), (true, "held"));
        let mut resumed = held.clone();
        resumed["spec"]["paused"] = json!(false);
        let resumed = admit(&held, resumed, Actor::Person).unwrap();
        assert!(paused(&resumed));
        assert_eq!(annotation(&resumed, ANNOTATION_HELD), "held");
    }

    #[test]
    fn only_we_lift_a_hold() {
        let held = deployment("a:2", true, "held");
        let freed = deployment("a:2", false, "");
        assert!(paused(&admit(&held, freed.clone(), Actor::Person).unwrap()));
        assert!(!paused(&admit(&held, freed, Actor::Sluice).unwrap()));
    }

    #[test]
    fn break_glass_needs_a_new_value_and_the_verb() {
        let held = deployment("a:2", true, "held");
        let mut freed = deployment("a:2", false, "");
        freed["metadata"]["annotations"][ANNOTATION_BREAK_GLASS] = json!("INC-1");
        assert!(paused(&admit(&held, freed.clone(), Actor::Person).unwrap()));
        assert!(!paused(&admit(&held, freed, Actor::Responder).unwrap()));
    }
}
