//! Who wrote a template's change: what is declared of it, what a scan found, and what the Deployment says, joined.
//!
//! Only what describes the template counts, and of that the riskiest. A commit that came with an earlier template does
//! not describe the next one: `kubectl set image` leaves annotations as they are.

use crate::api::{
    ANNOTATION_COMMIT, ANNOTATION_PROVENANCE, Change, ChangeFinding, ChangeKind, ChangeSize, KnownChange,
    ProgressiveRolloutStatus, Provenance, Revision, Run, RunRecord,
};
use crate::view::Workload;

/// Characters of a commit in sentences.
const COMMIT_LEN: usize = 12;

/// What is known of a template's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeView {
    /// Provenance in force: the riskiest of what describes the template, `Unknown` when nothing does.
    pub provenance: Provenance,
    /// Commit, as far as it is known.
    pub commit: Option<String>,
    /// Whether anything describes the template: nothing else is waited for then.
    pub declared: bool,
    /// Whether `spec.change` does.
    pub by_change: bool,
    /// Why the size and the evidence in `spec.change` are those of another commit, in words.
    pub stale: Option<String>,
    /// What kind of change it is, if what is declared describes the template and says so.
    pub kind: Option<ChangeKind>,
    /// How large it is, if a scan of its commit says so.
    pub size: Option<ChangeSize>,
    /// Commits that were scanned, and the version of the rules.
    pub scanned: Option<(i32, String)>,
    /// That more is known than somebody claims, in words.
    pub mismatch: Option<String>,
    /// Why something that seems meant for the template does not count, in words.
    pub obstacle: Option<String>,
}

/// What was there before a template: a commit of it describes no later one.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    stable: &'a Revision,
    status: &'a ProgressiveRolloutStatus,
    earlier: Option<&'a String>,
}

impl<'a> Before<'a> {
    /// Before a template that is held, or would be.
    pub fn held(stable: &'a Revision, status: &'a ProgressiveRolloutStatus) -> Self {
        Self { stable, status, earlier: status.held.as_ref().and_then(|held| held.earlier_commit.as_ref()) }
    }

    /// Before the template of a run.
    pub fn run(run: &'a Run, status: &'a ProgressiveRolloutStatus) -> Self {
        Self { stable: &run.stable, status, earlier: run.earlier_commit.as_ref() }
    }

    /// Whether the Deployment's commit is that of another template: stable's, a good one's, one that was tried or held
    /// before this one. A restart of a template is no other one.
    pub fn has_spent(&self, workload: &Workload) -> bool {
        let Some(commit) = &workload.commit else {
            return false;
        };
        let of = |known: Option<&String>| known == Some(commit);
        let other = |revision: &Revision| revision.restart_digest != workload.restart_digest;
        if of(self.stable.commit.as_ref()) {
            return other(self.stable);
        }
        let Self { status, earlier, .. } = self;
        let held = status.held.as_ref().filter(|held| held.digest != workload.digest);
        of(*earlier)
            || held.is_some_and(|held| of(held.commit.as_ref()))
            || status.good.iter().any(|good| of(good.commit.as_ref()) && other(good))
            || status.history.iter().any(|run| of(run.commit.as_ref()) && run.digest != workload.digest)
    }

    /// The riskiest that the template was tried as, and by which run: from its first exposure on that can only rise. What
    /// nobody had declared may be declared later.
    fn tried_as(&self, workload: &Workload) -> Option<Said> {
        let tried = |run: &&RunRecord| {
            run.digest == workload.digest
                && run.exposed_since.is_some()
                && run.provenance != Provenance::Unknown
        };
        let riskiest = self.status.history.iter().filter(tried).max_by_key(|run| run.provenance)?;
        Some(Said::new(format!("run {}, which tried it,", riskiest.id), riskiest.provenance))
    }
}

impl ChangeView {
    /// What is to be remembered of it.
    pub fn known(&self) -> KnownChange {
        KnownChange {
            changed_lines: self.size.map(|size| size.changed_lines),
            scanned: self.scanned.is_some(),
        }
    }

    /// What is known of a run's change that `spec.change` does not describe, or no more: as much as before, and annotations may
    /// still raise it.
    pub fn remembered(self, before: Provenance, known: KnownChange) -> Self {
        let said = if self.declared { self.provenance } else { before };
        Self {
            provenance: before.max(said),
            declared: false,
            size: known.changed_lines.map(|changed_lines| ChangeSize { changed_lines, changed_files: None }),
            scanned: known.scanned.then(|| (0, String::new())),
            mismatch: Some(self.mismatch.unwrap_or_else(|| "as it is known in the run".to_owned())),
            ..self
        }
    }
}

/// One who says something of the change, and what.
struct Said {
    who: String,
    level: Provenance,
}

impl Said {
    fn new(who: impl Into<String>, level: Provenance) -> Self {
        Self { who: who.into(), level }
    }
}

/// What is known of the change that made the workload's template of what was before.
pub fn describe(change: &Change, workload: &Workload, before: Before<'_>) -> ChangeView {
    let spent = before.has_spent(workload);
    let annotated = workload.commit.clone().filter(|_| !spent);
    let (by_images, mut obstacle) = match by_images(change, workload, before.stable) {
        Images::Declared => (true, None),
        Images::Others => (false, None),
        Images::Nearly(why) => (false, Some(why)),
    };
    let described = by_images || (change.commit.is_some() && change.commit == annotated);
    if spent && !described {
        obstacle.get_or_insert_with(|| {
            format!(
                "annotation {ANNOTATION_COMMIT}={} of the Deployment came with an earlier template: set it in the write that changes \
                 the template, or after it",
                short(workload.commit.as_deref().unwrap_or_default())
            )
        });
    }
    // Of an earlier template it says nothing to one that is described; to one that is not it may still be true.
    let annotation = workload.provenance.as_deref().filter(|_| !(spent && described));
    let level = annotation.map(|text| Provenance::named(text).unwrap_or_default());
    if let Some(text) = annotation.filter(|text| Provenance::named(text).is_none()) {
        let known = Provenance::ALL.map(Provenance::as_str).join(", ");
        obstacle = Some(format!(
            "annotation {ANNOTATION_PROVENANCE}={text:?} of the Deployment counts as Unknown: write one of {known}"
        ));
    }
    let annotation = level.map(|level| Said::new(format!("annotation {ANNOTATION_PROVENANCE}"), level));
    let tried = before.tried_as(workload);
    ChangeView { obstacle, ..join(Some(change).filter(|_| described), annotated, annotation, tried) }
}

/// What `change` says of a template that it describes.
pub fn declared(change: &Change) -> ChangeView {
    join(Some(change), None, None, None)
}

/// What is known of a template that nothing describes.
pub fn undeclared() -> ChangeView {
    join(None, None, None, None)
}

/// What both know of a change.
pub fn riskier(one: KnownChange, other: KnownChange) -> KnownChange {
    KnownChange {
        changed_lines: one.changed_lines.zip(other.changed_lines).map(|(one, other)| one.max(other)),
        scanned: one.scanned && other.scanned,
    }
}

/// Whether all that `change` names is what a revision has.
pub fn is_of(change: &Change, revision: &Revision) -> bool {
    let has = |declared: &String| revision.images.iter().any(|image| is_image(declared, image));
    change.images.iter().all(has)
        && change.commit.as_ref().is_none_or(|commit| revision.commit.as_ref() == Some(commit))
}

/// Joins what describes a template: `change` if it does, the commit of the annotation if it is the template's, and the word
/// beside that; and what it was tried as.
fn join(
    change: Option<&Change>,
    annotated: Option<String>,
    annotation: Option<Said>,
    tried: Option<Said>,
) -> ChangeView {
    let mut claims: Vec<Said> = Vec::new();
    let mut found: Vec<Said> = tried.into_iter().collect();
    let evidence = change.and_then(|change| change.evidence.as_ref());
    let stale = change.and_then(|change| stale(change, annotated.as_deref()));
    let scan = evidence.filter(|_| stale.is_none());
    claims.extend(change.map(|change| Said::new("spec.change.provenance", change.provenance)));
    if let Some(evidence) = evidence {
        claims.extend(evidence.declared.map(|level| Said::new("the author, as the scan was told,", level)));
        found.extend(evidence.findings.iter().map(|finding| Said::new(rule(finding), finding.level)));
    }
    match annotation {
        // Bound to the template by its commit, it is a declaration like any other.
        Some(said) if annotated.is_some() => claims.push(said),
        // Without one it may be of any age: it can raise, and never lower.
        Some(said) => found.push(said),
        None => {}
    }
    let claimed = claims.iter().map(|said| said.level).max();
    let raised = found.iter().map(|said| said.level).max();
    let provenance = claimed.unwrap_or_default().max(raised.unwrap_or(Provenance::Human));
    ChangeView {
        provenance,
        commit: change.and_then(|change| change.commit.clone()).or(annotated),
        declared: claimed.is_some() || raised > Some(Provenance::Unknown),
        by_change: change.is_some(),
        kind: change.and_then(|change| change.kind),
        size: change.and_then(|change| change.size).filter(|_| scan.is_some()),
        scanned: scan.map(|scan| (scan.commits_scanned, scan.rules_version.clone())),
        stale,
        mismatch: mismatch(&claims, &found),
        obstacle: None,
    }
}

/// Why what `change` says of its commit is not said of the template. Findings of another commit may raise; that it was scanned,
/// and how large it is, is known of that one only.
fn stale(change: &Change, annotated: Option<&str>) -> Option<String> {
    let commit = change.commit.as_deref();
    if let (Some(commit), Some(annotated)) = (commit, annotated)
        && !commit.starts_with(annotated)
        && !annotated.starts_with(commit)
    {
        return Some(format!(
            "spec.change.commit is {}, and annotation {ANNOTATION_COMMIT} of the Deployment is {}: write the commit of the template",
            short(commit),
            short(annotated)
        ));
    }
    let scanned = change.evidence.as_ref()?.head_commit.as_deref();
    (commit.is_none() || scanned != commit).then(|| {
        "spec.change.commit and spec.change.evidence.headCommit are not one commit: scan again".to_owned()
    })
}

/// The claim that is exceeded most, and what exceeds it. `Unknown` claims nothing.
fn mismatch(claims: &[Said], found: &[Said]) -> Option<String> {
    let claim =
        claims.iter().filter(|said| said.level != Provenance::Unknown).min_by_key(|said| said.level)?;
    // The first of the riskiest: findings are in the order of their risk.
    let most = found.iter().chain(claims).rev().max_by_key(|said| said.level)?;
    (most.level > claim.level).then(|| {
        let (claimed, counts) = (claim.level.as_str(), most.level.as_str());
        format!("{} says {claimed}, {} says {counts}: {counts} counts", claim.who, most.who)
    })
}

fn rule(finding: &ChangeFinding) -> String {
    let commit =
        finding.commit.as_deref().map_or_else(String::new, |commit| format!(" in {}", short(commit)));
    format!("rule {}{commit} of the scan", finding.rule)
}

/// How the declared images fit those of the template that stable does not have.
enum Images {
    /// There are some, and all of them are declared.
    Declared,
    /// It is about others, or about none.
    Others,
    /// It names an image of the template, but not the one that is there.
    Nearly(String),
}

fn by_images(change: &Change, workload: &Workload, stable: &Revision) -> Images {
    let images = workload.images();
    let mut differing = images.iter().filter(|image| !stable.images.contains(image)).peekable();
    if differing.peek().is_none() {
        return Images::Others;
    }
    let declared = |image: &&String| change.images.iter().any(|known| is_image(known, image));
    let Some(image) = differing.find(|image| !declared(image)) else {
        return Images::Declared;
    };
    let (name, digest) = parts(image);
    let near = change.images.iter().find(|known| parts(known).0 == name);
    match near.map(|known| (known, parts(known).1)) {
        None => Images::Others,
        Some((known, Some(wanted))) => Images::Nearly(match digest {
            Some(digest) => {
                format!("the template has {name} with digest {digest}, spec.change.images declares {wanted}")
            }
            None => format!(
                "the template has {image}, of which nobody knows the digest, spec.change.images declares {known}: write the digest in \
                 the template too"
            ),
        }),
        Some((known, None)) => {
            Images::Nearly(format!("the template has {image}, spec.change.images declares {known}"))
        }
    }
}

/// Whether the declared image is the one in the template. A digest says what runs, whatever the tag beside it.
fn is_image(declared: &str, image: &str) -> bool {
    let (wanted, is) = (parts(declared), parts(image));
    declared == image || (wanted.1.is_some() && wanted == is)
}

/// Name without tag, and digest: `NAME[:TAG][@DIGEST]`.
fn parts(image: &str) -> (&str, Option<&str>) {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    // A colon before a slash belongs to the registry's port.
    let path = name.rfind('/').map_or(0, |slash| slash + 1);
    let end = name[path..].find(':').map_or(name.len(), |colon| path + colon);
    (&name[..end], digest)
}

fn short(commit: &str) -> String {
    commit.chars().take(COMMIT_LEN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_says_what_runs_and_a_port_is_no_tag() {
        for (declared, image, same) in [
            ("app:2", "app:2", true),
            ("app:2", "app:3", false),
            ("app@sha256:aa", "app:2@sha256:aa", true),
            ("r.example:5000/a/app:1@sha256:aa", "r.example:5000/a/app@sha256:aa", true),
            ("app@sha256:aa", "app:2@sha256:ab", false),
            ("app@sha256:aa", "other@sha256:aa", false),
            ("app@sha256:aa", "app:2", false),
            ("app:2", "app:2@sha256:aa", false),
        ] {
            assert_eq!(is_image(declared, image), same, "{declared} {image}");
        }
        assert_eq!(parts("r.example:5000/a/app"), ("r.example:5000/a/app", None));
        assert_eq!(parts("r.example:5000/app:v1@sha256:a"), ("r.example:5000/app", Some("sha256:a")));
    }
}
