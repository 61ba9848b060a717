//! CSV that a spreadsheet cannot take for formulas (OWASP, *CSV injection*).

use csv::{ByteRecord, ReaderBuilder, WriterBuilder};
use serde::Serialize;

/// The characters that begin a formula in a spreadsheet, with their full-width forms.
const FORMULA: &[char] =
    &['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];
/// The characters after which a spreadsheet may begin a new cell, whatever the quotes say. In some
/// languages, spreadsheets separate cells with semicolons.
const SEPARATORS: &[char] = &[';', '\t', '\r', '\n'];

/// The items as lines of CSV, without a head.
///
/// # Errors
/// An item is no flat record.
pub fn csv_lines<T: Serialize>(items: &[T]) -> Result<Vec<u8>, csv::Error> {
    let mut plain = WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    for item in items {
        plain.serialize(item)?;
    }
    let plain = plain.into_inner().map_err(|e| e.into_error())?;
    let mut reader = ReaderBuilder::new().has_headers(false).from_reader(plain.as_slice());
    let mut safe = WriterBuilder::new().from_writer(Vec::with_capacity(plain.len()));
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record)? {
        for cell in &record {
            match std::str::from_utf8(cell).ok().and_then(disarmed) {
                Some(text) => safe.write_field(text)?,
                None => safe.write_field(cell)?,
            }
        }
        safe.write_record(None::<&[u8]>)?;
    }
    Ok(safe.into_inner().map_err(|e| e.into_error())?)
}

/// The cell with an apostrophe before each place where a formula could begin. `None` for a number,
/// and for a cell that neither begins a formula nor holds a separator.
fn disarmed(cell: &str) -> Option<String> {
    let begins_formula = |text: &str| text.trim_start_matches(' ').starts_with(FORMULA);
    let is_harmless = !begins_formula(cell) && !cell.contains(SEPARATORS);
    if is_harmless || is_number(cell) {
        return None;
    }
    let mut safe = String::with_capacity(cell.len() + 2);
    let mut begins = true;
    for (at, c) in cell.char_indices() {
        if begins && begins_formula(&cell[at..]) {
            safe.push('\'');
        }
        safe.push(c);
        begins = SEPARATORS.contains(&c);
    }
    Some(safe)
}

/// At most one sign, then digits with at most one decimal point.
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix(['+', '-']).unwrap_or(cell);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, fraction]
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> String {
        let lines = csv_lines(&[(1, text)]).expect("a flat record");
        let mut reader = ReaderBuilder::new().has_headers(false).from_reader(lines.as_slice());
        let record = reader.records().next().expect("a line").expect("good CSV");
        assert_eq!((record.len(), &record[0]), (2, "1"), "{text:?}");
        record[1].to_owned()
    }

    #[test]
    fn no_cell_begins_a_formula() {
        for formula in [
            "=HYPERLINK(\"http://evil.example\")",
            "+1+cmd|' /C calc'!A0",
            "-1+1",
            "@SUM(1)",
            "\t=1",
            "\r=1",
            "\n=1",
            "  =1+1",
            "\u{ff1d}1",
            "-inf",
            "+49 30 1",
        ] {
            assert!(cell(formula).starts_with('\''), "{formula:?}: {:?}", cell(formula));
        }
        assert_eq!(cell("Mozilla;=1+1;x"), "Mozilla;'=1+1;x");
        assert_eq!(cell("a\n=1"), "a\n'=1");
        assert_eq!(cell("1;2; +x"), "1;2;' +x");
        assert_eq!(cell("a\",\"=1"), "a\",\"=1", "quotes keep it inside its cell");
    }

    #[test]
    fn numbers_and_plain_text_stay_as_they_are() {
        for plain in ["", "-5", "+5", "-1.5", "0", "ann@example.org", "a=b", "1;2; x", "'x", "ü"] {
            assert_eq!(cell(plain), plain);
        }
        assert_eq!(csv_lines(&[(-3, None::<u8>, "")]).expect("a record"), b"-3,,\n");
    }
}
