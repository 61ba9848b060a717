//! Reads CSV: RFC 4180 with a header line.

use serde_json::Value;

use super::{line_error::LineError, recipient::Recipient};

/// The most columns of an upload.
const MOST_COLUMNS: usize = 1000;

/// The byte order mark, which some programs write first.
const BOM: &[u8] = "\u{feff}".as_bytes();

/// Reads an upload in pieces of any size.
pub struct CsvReader {
    core: csv_core::Reader,
    /// How many bytes of a byte order mark were read; `None` once the first other byte was read.
    bom: Option<usize>,
    /// The line of the next byte, from 1.
    line: u64,
    /// The line in which the current record began; `None` between records.
    began: Option<u64>,
    /// The text of the current record, without separators and quotes.
    fields: Vec<u8>,
    fields_used: usize,
    /// Where each field of the current record ends in `fields`.
    ends: Vec<usize>,
    ends_used: usize,
    /// The names of the columns; `None` before the header line.
    header: Option<Vec<String>>,
}

impl CsvReader {
    pub(super) fn new(longest_line: usize) -> Self {
        Self {
            core: csv_core::Reader::new(),
            bom: Some(0),
            line: 1,
            began: None,
            fields: vec![0; longest_line],
            fields_used: 0,
            ends: vec![0; MOST_COLUMNS],
            ends_used: 0,
            header: None,
        }
    }

    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        into: &mut Vec<Recipient>,
    ) -> Result<(), LineError> {
        while let Some(seen) = self.bom {
            let Some(next) = bytes.first() else { return Ok(()) };
            if BOM.get(seen) == Some(next) {
                self.bom = Some(seen + 1);
                bytes = &bytes[1..];
            } else {
                self.bom = None;
                if seen < BOM.len() {
                    self.read(&BOM[..seen], into)?;
                }
            }
        }
        self.read(bytes, into)
    }

    /// Reads records; empty lines between them are skipped.
    fn read(&mut self, mut bytes: &[u8], into: &mut Vec<Recipient>) -> Result<(), LineError> {
        loop {
            while let (None, Some(end @ (b'\r' | b'\n'))) = (self.began, bytes.first()) {
                self.line += u64::from(*end == b'\n');
                bytes = &bytes[1..];
            }
            if bytes.is_empty() {
                return Ok(());
            }
            bytes = &bytes[self.read_record(bytes, into)?..];
        }
    }

    pub(super) fn finish(&mut self, into: &mut Vec<Recipient>) -> Result<(), LineError> {
        while self.began.is_some() {
            self.read_record(&[], into)?;
        }
        if self.header.is_none() {
            Err(LineError::new(1, "the header line is missing"))
        } else {
            Ok(())
        }
    }

    /// Reads to the end of `bytes` or of a record, and returns how many bytes that were. An empty
    /// `bytes` is the end of the upload.
    fn read_record(&mut self, bytes: &[u8], into: &mut Vec<Recipient>) -> Result<usize, LineError> {
        use csv_core::ReadRecordResult as R;
        let line = *self.began.get_or_insert(self.line);
        let (result, read, written, ended) = self.core.read_record(
            bytes,
            &mut self.fields[self.fields_used..],
            &mut self.ends[self.ends_used..],
        );
        self.line += bytes[..read].iter().filter(|b| **b == b'\n').count() as u64;
        self.fields_used += written;
        self.ends_used += ended;
        match result {
            R::InputEmpty => {}
            R::OutputFull => {
                return Err(LineError::new(
                    line,
                    format!("longer than {} bytes", self.fields.len()),
                ));
            }
            R::OutputEndsFull => {
                return Err(LineError::new(line, format!("more than {MOST_COLUMNS} columns")));
            }
            R::Record => self.complete(line, into)?,
            R::End => self.began = None,
        }
        Ok(read)
    }

    /// Takes the current record as the header or as a recipient.
    fn complete(&mut self, line: u64, into: &mut Vec<Recipient>) -> Result<(), LineError> {
        let text = std::str::from_utf8(&self.fields[..self.fields_used])
            .map_err(|_| LineError::new(line, "not UTF-8"))?;
        let starts = std::iter::once(0).chain(self.ends[..self.ends_used].iter().copied());
        // Separators are ASCII, so no field ends inside a character.
        let row = starts
            .zip(&self.ends[..self.ends_used])
            .map(|(from, to)| text.get(from..*to).unwrap_or_default());
        match &self.header {
            None => self.header = Some(header(row.map(str::to_owned).collect())?),
            Some(header) if header.len() != self.ends_used => {
                return Err(LineError::new(
                    line,
                    format!("{} fields where the header has {}", self.ends_used, header.len()),
                ));
            }
            Some(header) => {
                let fields = header.iter().cloned().zip(row.map(Value::from)).collect();
                into.push(Recipient::from_fields(line, fields)?);
            }
        }
        self.began = None;
        self.fields_used = 0;
        self.ends_used = 0;
        Ok(())
    }
}

/// Checks the names of the columns.
fn header(mut names: Vec<String>) -> Result<Vec<String>, LineError> {
    for name in &mut names {
        *name = name.trim_start_matches('\u{feff}').trim().to_owned();
    }
    if let Some(i) = names.iter().position(String::is_empty) {
        return Err(LineError::new(1, format!("column {} has no name", i + 1)));
    }
    if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        return Err(LineError::of(1, twice.1, "names two columns"));
    }
    if !names.iter().any(|name| name == "email") {
        return Err(LineError::of(1, "email", "there is no such column"));
    }
    Ok(names)
}
