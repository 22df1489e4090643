//! The core links nothing that could look at a clock, a socket or a cluster by itself.

use std::path::Path;
use std::process::Command;

/// Crates whose presence means that the core could do more than decide.
const FORBIDDEN: [&str; 10] = [
    "tokio",
    "async-std",
    "smol",
    "hyper",
    "hyper-util",
    "reqwest",
    "rustls",
    "native-tls",
    "tower",
    "kube-client",
];

#[test]
fn the_core_depends_on_no_runtime_and_no_client() {
    // Cargo resolves features for the whole workspace here; the core alone is what others would link.
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", "sluice-core", "-e", "normal", "--prefix", "none"])
        .args(["--format", "{p}"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(
        names.contains(&"serde_json") && names.contains(&"kube-core"),
        "not the tree of the core:\n{text}"
    );
    let found: Vec<&&str> = names.iter().filter(|name| FORBIDDEN.contains(*name)).collect();
    assert!(found.is_empty(), "the core links {found:?}");
}
