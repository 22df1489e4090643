//! The root folder of a container: the machine's programs and libraries read-only in effect (they belong to others),
//! a /etc of its own, the program, and the volumes where the spec mounts them. Made by a small shell script inside a
//! mount namespace, so that nothing has to be taken apart afterwards.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::process::Command;

use super::spec::Resolved;

/// What [`command`] needs to know of a pod.
pub(super) struct Place<'a> {
    pub(super) pod: &'a Pod,
    pub(super) pod_dir: &'a Path,
    pub(super) ip: &'a str,
    pub(super) container: &'a Container,
    pub(super) program: &'a Path,
}

/// The process to start; its id stays the same through all steps up to the program itself.
pub(super) fn command(place: &Place<'_>, resolved: &Resolved) -> Result<Command> {
    let dir = place.pod_dir.join(&place.container.name);
    let root = dir.join("root");
    fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
    let script = dir.join("start.sh");
    fs::write(&script, text(place, resolved, &root)?).context("start script")?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "/bin/sh"]).arg(&script).env_clear();
    command.envs(&resolved.env);
    Ok(command)
}

fn text(place: &Place<'_>, resolved: &Resolved, root: &Path) -> Result<String> {
    let (root, ip) = (quote(&root.display().to_string()), place.ip);
    let name = place.pod.metadata.name.as_deref().unwrap_or_default();
    let program_name = place.program.file_name().and_then(|n| n.to_str()).context("program name")?;
    let inside = format!("/{program_name}");

    let mut lines = vec![
        "set -e".to_owned(),
        "OWN_PATH=$PATH; PATH=/usr/sbin:/sbin:/usr/bin:/bin; CHROOT=$(command -v chroot)".into(),
        format!("R={root}"),
        "mount -t tmpfs -o mode=0755 root \"$R\"".into(),
        "for d in usr lib lib32 lib64 libx32 bin sbin nix; do".into(),
        "  if [ -L /$d ]; then cp -P /$d \"$R/$d\"".into(),
        "  elif [ -d /$d ]; then mkdir \"$R/$d\"; mount --rbind /$d \"$R/$d\"; fi".into(),
        "done".into(),
        "mkdir \"$R/etc\" \"$R/run\" \"$R/tmp\" \"$R/var\" \"$R/proc\" \"$R/dev\"".into(),
        "chmod 1777 \"$R/tmp\"; ln -s /run \"$R/var/run\"".into(),
        "mount --rbind /proc \"$R/proc\"; mount --rbind /dev \"$R/dev\"".into(),
        "for f in ld.so.cache ld.so.conf ld.so.conf.d passwd group localtime; do".into(),
        "  if [ -e /etc/$f ]; then cp -RL /etc/$f \"$R/etc/\"; fi".into(),
        "done".into(),
        format!(
            "printf '127.0.0.1 localhost kubernetes.default.svc\\n%s %s\\n' {ip} {} > \"$R/etc/hosts\"",
            quote(name)
        ),
        format!(
            "touch \"$R\"{0}; mount --bind {1} \"$R\"{0}",
            quote(&inside),
            quote(&place.program.display().to_string())
        ),
    ];
    // The one server that a pod must reach by name is in its hosts file; there is no DNS to ask.
    lines.push("echo 'hosts: files' > \"$R/etc/nsswitch.conf\"".into());
    for mount in place.container.volume_mounts.iter().flatten() {
        if !mount.mount_path.starts_with('/') || mount.mount_path.split('/').any(|p| p == "..") {
            bail!("mountPath {} is not an absolute path", mount.mount_path);
        }
        let volume = place.pod_dir.join("volumes").join(&mount.name);
        let source = mount.sub_path.iter().fold(volume, |v, sub| v.join(sub));
        // /var/run is a link inside the new root, and a link there must not lead outside of it.
        let target = mount
            .mount_path
            .strip_prefix("/var/run")
            .map_or(mount.mount_path.clone(), |p| format!("/run{p}"));
        let (source, target) = (quote(&source.display().to_string()), quote(&target));
        lines.push(format!(
            "if [ -d {source} ]; then mkdir -p \"$R\"{target}; else mkdir -p \"$(dirname \"$R\"{target})\"; touch \"$R\"{target}; fi"
        ));
        lines.push(format!("mount --bind {source} \"$R\"{target}"));
        if mount.read_only == Some(true) {
            lines.push(format!("mount -o remount,bind,ro \"$R\"{target} 2>/dev/null || true"));
        }
    }
    let own = place.container.security_context.as_ref();
    let read_only = own.and_then(|s| s.read_only_root_filesystem).unwrap_or(false);
    if read_only {
        lines.push("mount -o remount,bind,ro \"$R\"".into());
    }
    let command = match resolved.command.split_first() {
        // The path inside the real image is unknown here; its last part tells that the image's program is meant.
        Some((first, rest)) if first.rsplit('/').next() == Some(program_name) => {
            std::iter::once(inside.as_str()).chain(rest.iter().map(String::as_str)).collect::<Vec<_>>()
        }
        Some(_) => resolved.command.iter().map(String::as_str).collect(),
        None => vec![inside.as_str()],
    };
    let words: Vec<String> =
        command.into_iter().chain(resolved.args.iter().map(String::as_str)).map(quote).collect();
    lines.push(format!(
        "PATH=$OWN_PATH; exec \"$CHROOT\" \"$R\" /bin/sh -c 'cd \"$0\" && exec \"$@\"' {} {}",
        quote(&resolved.working_dir),
        words.join(" ")
    ));
    Ok(lines.join("\n") + "\n")
}

/// Quotes a word for the shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
