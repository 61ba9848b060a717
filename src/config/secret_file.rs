//! Reads a secret, such as a password, from a file.

use std::path::Path;

/// The secret in a file: its first line.
///
/// # Errors
/// A text for people, if the file cannot be read or its first line is empty.
pub fn secret(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    match text.lines().next() {
        Some(secret) if !secret.is_empty() => Ok(secret.to_owned()),
        _ => Err("its first line is empty".into()),
    }
}
