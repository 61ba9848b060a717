//! Quoted-printable: the encoding of parts that are mostly ASCII (RFC 2045, 6.7).

/// The limit of a line in bytes. Only a line that cannot be broken may be longer.
///
/// RFC 5322, 2.1.1 allows 78, RFC 2047 and RFC 2045 allow 76.
pub const LINE_BYTES: usize = 76;
/// A soft line break. The reader's program removes it again.
pub const SOFT_BREAK: &str = "=\r\n";

/// How many bytes are checked at once.
const BLOCK: usize = 16;

/// Appends the encoded text, with CRLF line ends.
///
/// A dot or "From " at the start of a line is encoded, too: some servers change them.
pub fn quoted_printable(out: &mut String, text: &str) {
    out.reserve(text.len() + text.len() / 8);
    for line in lines(text) {
        let bytes = line.as_bytes();
        let (mut at, mut column) = (0, 0);
        while at < bytes.len() {
            let left = bytes.len() - at;
            let run = literal_run(&bytes[at..], column == 0);
            // One column stays free for the "=" of a soft line break, unless the line ends here.
            let room = LINE_BYTES - column - usize::from(left > LINE_BYTES - column || run < left);
            let taken = run.min(room);
            if taken > 0 {
                out.push_str(&line[at..at + taken]);
                at += taken;
                column += taken;
            } else if run == 0 && LINE_BYTES - column - usize::from(left > 1) >= 3 {
                escape(out, bytes[at]);
                at += 1;
                column += 3;
            } else {
                out.push_str(SOFT_BREAK);
                column = 0;
            }
        }
        out.push_str("\r\n");
    }
}

/// How many bytes need no encoding, up to the length of one line.
fn literal_run(rest: &[u8], line_start: bool) -> usize {
    if line_start && (rest.starts_with(b".") || rest.starts_with(b"From ")) {
        return 0;
    }
    let near = &rest[..rest.len().min(LINE_BYTES)];
    let blocks =
        near.as_chunks::<BLOCK>().0.iter().take_while(|block| are_literal(block)).count() * BLOCK;
    let is_literal = |b: &u8| matches!(b, b'\t' | b' '..=b'<' | b'>'..=b'~');
    let run =
        near[blocks..].iter().position(|b| !is_literal(b)).map_or(near.len(), |at| blocks + at);
    // Servers may remove white space at the end of a line.
    let lost = run > 0 && run == rest.len() && matches!(rest[run - 1], b' ' | b'\t');
    run - usize::from(lost)
}

/// Whether all bytes are from ` ` to `~`, and none is `=`.
///
/// There is no branch, so that the compiler checks all bytes in one step.
fn are_literal(block: &[u8; BLOCK]) -> bool {
    !block.iter().fold(false, |other, byte| {
        other | (byte.wrapping_sub(b' ') > b'~' - b' ') | (*byte == b'=')
    })
}

fn escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('=');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// The lines of a text without their ends, which may be LF, CRLF or CR.
///
/// A line end at the end of the text begins no further line.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(end) = memchr::memchr2(b'\n', b'\r', rest.as_bytes()) else {
            return Some(std::mem::take(&mut rest));
        };
        let line = &rest[..end];
        let length = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + length..];
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_printable_keeps_its_lines_short() {
        let encode = |text: &str| {
            let mut out = String::new();
            quoted_printable(&mut out, text);
            out
        };
        assert_eq!(
            encode("a=b é \n\t\r.x\r\n\r\nFrom y"),
            "a=3Db =C3=A9=20\r\n=09\r\n=2Ex\r\n\r\n=46rom y\r\n"
        );
        for text in [
            "x".repeat(76),
            "x".repeat(77),
            "é".repeat(100),
            format!("{}.", "x".repeat(75)),
            format!("{}. y", "x".repeat(75)),
        ] {
            let encoded = encode(&text);
            assert!(encoded.lines().all(|l| l.len() <= 76 && !l.starts_with('.')), "{encoded}");
        }
        assert_eq!(encode(&"x".repeat(76)).lines().count(), 1);
    }

    #[test]
    fn a_block_is_literal_if_all_its_bytes_are() {
        for byte in 0..=u8::MAX {
            for at in 0..BLOCK {
                let mut block = *b"sixteen literals";
                block[at] = byte;
                let one_by_one = block.iter().all(|b| matches!(b, b' '..=b'<' | b'>'..=b'~'));
                assert_eq!(are_literal(&block), one_by_one, "{byte} at {at}");
            }
        }
    }

    fn decoded(encoded: &str) -> String {
        let soft = encoded.replace("=\r\n", "");
        let mut bytes = Vec::new();
        let mut rest = soft.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            if *first == b'=' {
                let hex = std::str::from_utf8(&rest[..2]).expect("ASCII");
                bytes.push(u8::from_str_radix(hex, 16).expect("hexadecimal"));
                rest = &rest[2..];
            } else {
                bytes.push(*first);
            }
        }
        String::from_utf8(bytes).expect("UTF-8")
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives_quoted_printable(
            text in "([ -~]{0,90}|[ \t=.Fé\u{7}🎉\r\n]{0,9}|From )*",
        ) {
            let mut encoded = String::new();
            quoted_printable(&mut encoded, &text);
            let canonical: String = lines(&text).flat_map(|line| [line, "\r\n"]).collect();
            assert_eq!(decoded(&encoded), canonical);
            for line in encoded.split("\r\n") {
                assert!(line.len() <= LINE_BYTES && line.is_ascii(), "{line:?}");
                assert!(!line.ends_with([' ', '\t']), "{line:?}");
                assert!(!line.starts_with('.') && !line.starts_with("From "), "{line:?}");
            }
        }
    }
}
