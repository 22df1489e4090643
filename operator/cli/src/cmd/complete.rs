//! Completion: Cobra's protocol, since kubectl speaks it, and scripts for shells.
//!
//! `__complete WORD...` prints one candidate a line (after a tab: what it is) and a last line with a
//! directive, `:4` for "no file names". Words may begin with flags, so it does not pass the parser.

use std::ffi::OsString;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _};
use kube::config::Kubeconfig;

use super::{Context, write};
use crate::args::{Cli, Global, Shell};
use crate::cluster::Cluster;
use crate::exit::Code;
use crate::fail::Failure;

/// Nobody waits longer for a completion.
const LIMIT: Duration = Duration::from_secs(3);
/// Directive: these are all, no file names.
const NO_FILES: u8 = 4;
/// Directive: nothing special, so the shell offers file names.
const FILES: u8 = 0;

/// What the last word may be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// One of these, with what they are.
    OneOf(Vec<(String, String)>),
    /// The name of a rollout.
    Rollout,
    /// A namespace.
    Namespace,
    /// A context of the kubeconfig.
    Context,
    /// A file.
    File,
    /// Anything, or nothing.
    Nothing,
}

/// The word that asks for candidates.
pub const VERB: &str = "__complete";

/// Runs `__complete`.
pub async fn run(words: &[String]) -> Result<Code, Failure> {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let wanted = wanted(before, last);
    let mut directive = NO_FILES;
    let candidates = match wanted {
        Wanted::OneOf(list) => list,
        Wanted::Nothing => Vec::new(),
        Wanted::File => {
            directive = FILES;
            Vec::new()
        }
        Wanted::Context => plain(contexts(&global(before))),
        Wanted::Rollout => plain(ask(&global(before), false).await),
        Wanted::Namespace => plain(ask(&global(before), true).await),
    };
    let (prefix, typed) = match last.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => (format!("{flag}="), value),
        _ => (String::new(), last),
    };
    let mut text = String::new();
    for (word, what) in candidates.into_iter().filter(|(word, _)| word.starts_with(typed)) {
        text.push_str(&format!("{prefix}{word}"));
        if !what.is_empty() {
            text.push_str(&format!("\t{what}"));
        }
        text.push('\n');
    }
    text.push_str(&format!(":{directive}\n"));
    write(&text)?;
    Ok(Code::Fine)
}

fn plain(words: Vec<String>) -> Vec<(String, String)> {
    words.into_iter().map(|word| (word, String::new())).collect()
}

/// What may stand at the end of these words. Read off the command line's own definition.
fn wanted(before: &[String], last: &str) -> Wanted {
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    let mut positionals = 0;
    let mut open: Option<&clap::Arg> = None;
    for word in before {
        if open.take().is_some() {
            continue;
        }
        if let Some(arg) = flag(command, word) {
            if arg.get_action().takes_values() && !word.contains('=') {
                open = Some(arg);
            }
        } else if let Some(found) = command.find_subcommand(word) {
            command = found;
        } else {
            positionals += 1;
        }
    }
    if let Some(arg) = open {
        return value(arg);
    }
    if let Some((name, _)) = last.split_once('=')
        && let Some(arg) = flag(command, name)
    {
        return value(arg);
    }
    if last.starts_with('-') {
        let flags = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let flags = flags.filter_map(|arg| Some((format!("--{}", arg.get_long()?), help(arg.get_help()))));
        return Wanted::OneOf(flags.collect());
    }
    if command.has_subcommands() {
        let all = command.get_subcommands();
        return Wanted::OneOf(all.map(|sub| (sub.get_name().to_owned(), help(sub.get_about()))).collect());
    }
    let positional = command.get_positionals().nth(positionals);
    positional.map_or(Wanted::Nothing, value)
}

fn help(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

fn flag<'a>(command: &'a clap::Command, word: &str) -> Option<&'a clap::Arg> {
    let name = word.split('=').next().unwrap_or(word);
    command.get_arguments().find(|arg| match name.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => name
            .strip_prefix('-')
            .is_some_and(|short| arg.get_short().is_some_and(|s| short == s.to_string())),
    })
}

fn value(arg: &clap::Arg) -> Wanted {
    match arg.get_id().as_str() {
        "name" => Wanted::Rollout,
        "namespace" => Wanted::Namespace,
        "context" => Wanted::Context,
        "kubeconfig" | "trace" | "policy" | "bearer_file" | "write" => Wanted::File,
        _ => {
            let values = arg.get_possible_values();
            if values.is_empty() {
                return Wanted::Nothing;
            }
            Wanted::OneOf(
                values.iter().map(|value| (value.get_name().to_owned(), help(value.get_help()))).collect(),
            )
        }
    }
}

/// The flags that choose the cluster, as far as they were typed.
fn global(before: &[String]) -> Global {
    let words = std::iter::once(OsString::from("kubectl-sluice")).chain(before.iter().map(OsString::from));
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(words);
    let parsed = matches.ok().and_then(|matches| Global::from_arg_matches(&matches).ok());
    parsed.unwrap_or_default()
}

fn contexts(global: &Global) -> Vec<String> {
    let read = global.kubeconfig.as_ref().map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    read.map(|found| found.contexts.into_iter().map(|context| context.name).collect()).unwrap_or_default()
}

/// Names from the cluster; none when it does not answer in time.
async fn ask(global: &Global, namespaces: bool) -> Vec<String> {
    let names = async {
        let cluster = Cluster::connect(global).await.ok()?;
        if namespaces {
            return Some(cluster.namespaces().await);
        }
        let items = cluster.list(false, None).await.ok()?;
        Some(items.iter().filter_map(|v| Some(v.pointer("/metadata/name")?.as_str()?.to_owned())).collect())
    };
    tokio::time::timeout(LIMIT, names).await.ok().flatten().unwrap_or_default()
}

/// Prints a script.
pub fn script(context: &Context, shell: Shell) -> Result<Code, Failure> {
    let program =
        if context.call.program.starts_with("kubectl ") { "kubectl-sluice" } else { &context.call.program };
    let text = match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
        Shell::Kubectl => KUBECTL,
    };
    write(&text.replace("PROGRAM", program))?;
    Ok(Code::Fine)
}

/// kubectl runs it for `kubectl sluice <TAB>`.
const KUBECTL: &str = r#"#!/bin/sh
# Completion of `kubectl sluice`. Put this file on the PATH, executable, under the name kubectl_complete-sluice:
#   kubectl sluice completion kubectl > ~/.local/bin/kubectl_complete-sluice
#   chmod +x ~/.local/bin/kubectl_complete-sluice
exec PROGRAM __complete "$@"
"#;

const BASH: &str = r#"# bash completion of PROGRAM: source <(PROGRAM completion bash)
_sluice_complete() {
    local cur="${COMP_WORDS[COMP_CWORD]}" line
    COMPREPLY=()
    while IFS= read -r line; do
        case "$line" in
            :0) compopt -o default ;;
            :*) ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD-1}" "$cur" 2>/dev/null)
}
complete -F _sluice_complete PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
# zsh completion of PROGRAM: source <(PROGRAM completion zsh)
_sluice_complete() {
    local line files=
    local -a found
    while IFS= read -r line; do
        case "$line" in
            :0) files=1 ;;
            :*) ;;
            *) found+=("${${line//:/\\:}/$'\t'/:}") ;;
        esac
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    _describe 'PROGRAM' found
    [[ -n "$files" ]] && _files
}
compdef _sluice_complete PROGRAM
"#;

const FISH: &str = r#"# fish completion of PROGRAM: PROGRAM completion fish | source
function __sluice_complete
    set -l words (commandline -opc)
    $words[1] __complete $words[2..-1] (commandline -ct) 2>/dev/null | string match -v -r '^:[0-9]+$'
end
complete -c PROGRAM -f -a '(__sluice_complete)'
complete -c PROGRAM -l kubeconfig -r -F
complete -c PROGRAM -l trace -l policy -l bearer-file -l write -r -F
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Wanted {
        let mut words: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        let last = words.pop().unwrap_or_default();
        wanted(&words, &last)
    }

    fn names(wanted: Wanted) -> Vec<String> {
        let Wanted::OneOf(list) = wanted else {
            unreachable!("{wanted:?}");
        };
        list.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn verbs_names_and_values() {
        let verbs = names(at(""));
        assert!(
            verbs.contains(&"status".to_owned()) && !verbs.contains(&"__complete".to_owned()),
            "{verbs:?}"
        );
        assert_eq!(at("status che"), Wanted::Rollout);
        assert_eq!(at("abort -n shop che"), Wanted::Rollout);
        assert_eq!(at("status checkout x"), Wanted::Nothing);
        assert_eq!(at("status -n "), Wanted::Namespace);
        assert_eq!(at("status --namespace=sh"), Wanted::Namespace);
        assert_eq!(at("--context "), Wanted::Context);
        assert_eq!(at("list --kubeconfig "), Wanted::File);
        assert_eq!(at("simulate --trace "), Wanted::File);
        assert_eq!(at("simulate --policy=p"), Wanted::File);
        assert_eq!(names(at("simulate --class ")), ["R0", "R1", "R2", "R3", "R4", "all"]);
        assert_eq!(names(at("status -o ")), ["wide", "json", "yaml", "name"]);
        assert_eq!(names(at("completion ")), ["bash", "zsh", "fish", "kubectl"]);
        assert!(names(at("status --w")).contains(&"--watch".to_owned()));
    }

    #[test]
    fn flags_typed_so_far_choose_the_cluster() {
        let words = ["status", "-n", "shop", "--context", "prod"].map(ToOwned::to_owned);
        let global = global(&words);
        assert_eq!((global.namespace.as_deref(), global.context.as_deref()), (Some("shop"), Some("prod")));
    }
}
