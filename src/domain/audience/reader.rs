//! Reads an audience upload, NDJSON or CSV, piece by piece in constant memory.

use super::{
    csv_reader::CsvReader, line_error::LineError, ndjson_reader::NdjsonReader, recipient::Recipient,
};

/// The format of an audience upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudienceFormat {
    /// One JSON object per line, with a member `email`.
    Ndjson,
    /// RFC 4180 with a header line that names a column `email`.
    Csv,
}

/// A reader for pieces of any size: each [`AudienceReader::push`] gives the recipients that its
/// bytes complete.
pub enum AudienceReader {
    Ndjson(NdjsonReader),
    Csv(Box<CsvReader>),
}

impl AudienceReader {
    /// A reader that refuses lines of more than `longest_line` bytes, which bounds its memory. For
    /// CSV the text of a record counts, without separators and quotes.
    pub fn new(format: AudienceFormat, longest_line: usize) -> Self {
        match format {
            AudienceFormat::Ndjson => Self::Ndjson(NdjsonReader::new(longest_line)),
            AudienceFormat::Csv => Self::Csv(Box::new(CsvReader::new(longest_line))),
        }
    }

    /// Reads the next bytes and appends the recipients that they complete.
    ///
    /// # Errors
    /// The first line that cannot be read. The reader cannot be used afterwards.
    pub fn push(&mut self, bytes: &[u8], into: &mut Vec<Recipient>) -> Result<(), LineError> {
        match self {
            Self::Ndjson(lines) => lines.push(bytes, into),
            Self::Csv(table) => table.push(bytes, into),
        }
    }

    /// Ends the upload: a last line needs no line end.
    ///
    /// # Errors
    /// As for [`AudienceReader::push`].
    pub fn finish(&mut self, into: &mut Vec<Recipient>) -> Result<(), LineError> {
        match self {
            Self::Ndjson(lines) => lines.finish(into),
            Self::Csv(table) => table.finish(into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        format: AudienceFormat,
        text: &[u8],
        piece: usize,
    ) -> Result<Vec<Recipient>, LineError> {
        let mut reader = AudienceReader::new(format, 200);
        let mut recipients = Vec::new();
        for bytes in text.chunks(piece) {
            reader.push(bytes, &mut recipients)?;
        }
        reader.finish(&mut recipients)?;
        Ok(recipients)
    }

    fn both(format: AudienceFormat, text: &[u8]) -> Result<Vec<Recipient>, LineError> {
        let whole = read(format, text, usize::MAX);
        for piece in [1, 2, 3, 7] {
            assert_eq!(read(format, text, piece), whole, "in pieces of {piece}");
        }
        whole
    }

    fn error(format: AudienceFormat, text: &[u8]) -> String {
        both(format, text).unwrap_err().to_string()
    }

    #[test]
    fn ndjson() {
        let text = "\u{feff}{\"email\":\"a@b.example\",\"n\":1}\r\n\n\
            {\"email\":null,\"ü\":\"ö\"}\n{\"n\":[1],\"email\":\"c@d.example\"}"
            .as_bytes();
        let got = both(AudienceFormat::Ndjson, text).unwrap();
        let lines: Vec<(u64, &str)> = got.iter().map(|r| (r.line, r.email.as_str())).collect();
        assert_eq!(lines, [(1, "a@b.example"), (3, ""), (4, "c@d.example")]);
        assert_eq!(got[1].fields["ü"], "ö");
    }

    #[test]
    fn ndjson_errors_name_line_and_field() {
        assert_eq!(
            error(AudienceFormat::Ndjson, b"{\"email\":\"a\"}\n{\"mail\":\"a\"}"),
            "line 2, field \"email\": is missing"
        );
        assert_eq!(
            error(AudienceFormat::Ndjson, b"{\"email\":5}"),
            "line 1, field \"email\": must be a string"
        );
        assert_eq!(
            error(AudienceFormat::Ndjson, b"\n{\"email\":\"a\",\"x\":{\"y\":1,\"y\":1}}"),
            "line 2, field \"x.y\": occurs twice"
        );
        assert_eq!(error(AudienceFormat::Ndjson, b"\n[1]\n"), "line 2: not a JSON object");
        assert_eq!(error(AudienceFormat::Ndjson, b"{\"email\":\"\xff\"}"), "line 1: not UTF-8");
        assert!(
            error(AudienceFormat::Ndjson, b"{\"email\":\"a\"}\n{\"email\"")
                .starts_with("line 2: not JSON")
        );
        let long = format!("{{\"email\":\"{}", "a".repeat(300));
        assert_eq!(error(AudienceFormat::Ndjson, long.as_bytes()), "line 1: longer than 200 bytes");
    }

    #[test]
    fn csv() {
        let text = "\u{feff}email,name,note\r\na@b.example,\"Ann, B\",\"two\nlines\"\r\n\r\n\
            ,x,\nc@d.example,ü,z"
            .as_bytes();
        let got = both(AudienceFormat::Csv, text).unwrap();
        let lines: Vec<(u64, &str)> = got.iter().map(|r| (r.line, r.email.as_str())).collect();
        assert_eq!(lines, [(2, "a@b.example"), (5, ""), (6, "c@d.example")]);
        assert_eq!(
            (&got[0].fields["name"], &got[0].fields["note"]),
            (&"Ann, B".into(), &"two\nlines".into())
        );
    }

    #[test]
    fn csv_errors_name_line_and_field() {
        assert_eq!(
            error(AudienceFormat::Csv, b"email,name\na@b.example\n"),
            "line 2: 1 fields where the header has 2"
        );
        assert_eq!(
            error(AudienceFormat::Csv, b"mail\na@b.example\n"),
            "line 1, field \"email\": there is no such column"
        );
        assert_eq!(
            error(AudienceFormat::Csv, b"email,x,x\n"),
            "line 1, field \"x\": names two columns"
        );
        assert_eq!(error(AudienceFormat::Csv, b"email,,x\n"), "line 1: column 2 has no name");
        assert_eq!(error(AudienceFormat::Csv, b""), "line 1: the header line is missing");
        assert_eq!(error(AudienceFormat::Csv, b"email\n\xff\n"), "line 2: not UTF-8");
        let long = format!("email\n{}", "a".repeat(300));
        assert_eq!(error(AudienceFormat::Csv, long.as_bytes()), "line 2: longer than 200 bytes");
        let wide = format!("email,{}\n", "a,".repeat(1001).chars().take(150).collect::<String>());
        assert!(both(AudienceFormat::Csv, wide.as_bytes()).is_err());
    }

    #[test]
    fn an_empty_ndjson_upload_has_no_recipients() {
        assert_eq!(both(AudienceFormat::Ndjson, b""), Ok(vec![]));
    }
}
