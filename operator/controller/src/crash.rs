//! Crash injection for tests of debug builds: the process dies right after its n-th write.
//!
//! The file named by `SLUICE_CRASH_FILE` holds the number of writes to survive. The process that reaches zero
//! removes the file and aborts, so that its successor lives on. Release builds have none of this.

/// Dies here if the count says so.
#[cfg(debug_assertions)]
pub fn after_write(name: &str) {
    let Some(path) = std::env::var_os("SLUICE_CRASH_FILE") else {
        return;
    };
    let Ok(text) = std::fs::read_to_string(&path) else {
        return;
    };
    let Ok(left) = text.trim().parse::<u64>() else {
        return;
    };
    if left > 1 {
        let _ = std::fs::write(&path, (left - 1).to_string());
        return;
    }
    let _ = std::fs::remove_file(&path);
    tracing::warn!(after = name, "crash injected");
    std::process::abort();
}

/// Release builds do not crash on request.
#[cfg(not(debug_assertions))]
pub fn after_write(_name: &str) {}
