//! Reads NDJSON: one JSON object per line.

use super::{
    line_error::LineError,
    recipient::Recipient,
    unique_json::{NotUnique, unique_object},
};

/// Reads an upload in pieces of any size.
pub struct NdjsonReader {
    /// In bytes.
    longest_line: usize,
    /// The number of the current line, from 1.
    line: u64,
    /// The bytes of the current line so far.
    partial: Vec<u8>,
}

impl NdjsonReader {
    pub(super) fn new(longest_line: usize) -> Self {
        Self { longest_line, line: 1, partial: Vec::new() }
    }

    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        into: &mut Vec<Recipient>,
    ) -> Result<(), LineError> {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.append(&bytes[..end])?;
            self.complete(into)?;
            bytes = &bytes[end + 1..];
        }
        self.append(bytes)
    }

    pub(super) fn finish(&mut self, into: &mut Vec<Recipient>) -> Result<(), LineError> {
        if self.partial.is_empty() { Ok(()) } else { self.complete(into) }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        if self.partial.len() + bytes.len() > self.longest_line {
            return Err(LineError::new(
                self.line,
                format!("longer than {} bytes", self.longest_line),
            ));
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// Parses the current line and begins the next one.
    fn complete(&mut self, into: &mut Vec<Recipient>) -> Result<(), LineError> {
        let text = std::str::from_utf8(&self.partial)
            .map_err(|_| LineError::new(self.line, "not UTF-8"))?;
        let text = text.strip_prefix('\u{feff}').filter(|_| self.line == 1).unwrap_or(text);
        if !text.trim().is_empty() {
            let fields = unique_object(text).map_err(|e| json_error(self.line, &e))?;
            into.push(Recipient::from_fields(self.line, fields)?);
        }
        self.partial.clear();
        self.line += 1;
        Ok(())
    }
}

/// serde's error without its line, which is always 1 here.
fn json_error(line: u64, error: &NotUnique) -> LineError {
    let error = match error {
        NotUnique::Duplicate(path) => return LineError::of(line, path, "occurs twice"),
        NotUnique::Json(error) => error,
    };
    if error.is_data() {
        return LineError::new(line, "not a JSON object");
    }
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    LineError::new(line, format!("not JSON: {reason}, column {}", error.column()))
}
