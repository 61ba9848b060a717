//! Headers and parts in ASCII: folding (RFC 5322), encoded words (RFC 2047), MIME (RFC 2045).

use data_encoding::BASE64;

use super::{body::Body, quoted_printable::LINE_BYTES, quoted_printable::lines};

const WORD_START: &str = "=?utf-8?B?";
const WORD_END: &str = "?=";

/// Appends `name: value` and CRLF, folded at spaces.
///
/// A value that is not plain ASCII becomes encoded words. `value` holds no control characters.
pub fn text_header(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push(':');
    let value = value.trim();
    if is_plain(value) {
        fold(out, name.len() + 1, value);
    } else {
        encoded_words(out, name.len() + 1, value);
    }
    out.push_str("\r\n");
}

/// Appends `name: display name <address>` and CRLF. `address` is ASCII.
pub fn mailbox_header(out: &mut String, name: &str, display: &str, address: &str) {
    let display = display.trim();
    if display.is_empty() {
        out.push_str(&format!("{name}: {address}\r\n"));
        return;
    }
    out.push_str(name);
    out.push(':');
    let mut column = name.len() + 1;
    if is_plain(display) && display.split(' ').all(is_atom) {
        column = fold(out, column, display);
    } else if is_plain(display) && column + display.len() + 8 < LINE_BYTES {
        let quoted = display.replace('\\', "\\\\").replace('"', "\\\"");
        out.push_str(&format!(" \"{quoted}\""));
        column += quoted.len() + 3;
    } else {
        column = encoded_words(out, column, display);
    }
    let fold = if column + address.len() + 3 > LINE_BYTES { "\r\n" } else { "" };
    out.push_str(&format!("{fold} <{address}>\r\n"));
}

/// Appends the headers of the one-click opt-out (RFC 2369, 3.2 and RFC 8058). `url` is ASCII.
///
/// Mail programs show a button for them.
pub fn opt_out_headers(out: &mut String, url: &str) {
    let fold = if "List-Unsubscribe: <>".len() + url.len() > LINE_BYTES { "\r\n" } else { "" };
    for piece in [
        "List-Unsubscribe:",
        fold,
        " <",
        url,
        ">\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
    ] {
        out.push_str(piece);
    }
}

/// Whether a value needs no encoding.
///
/// Plain values are ASCII, do not look like an encoded word, and have words that fit in a line.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|b| matches!(b, b' '..=b'~'))
        && !value.contains("=?")
        && value.split(' ').all(|word| word.len() < LINE_BYTES - 16)
}

/// Whether a word needs no quotes in a display name (RFC 5322, 3.2.3).
fn is_atom(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
}

/// Appends a plain value, folded at spaces. Returns the column at its end.
fn fold(out: &mut String, mut column: usize, value: &str) -> usize {
    let mut spaces = 1;
    for word in value.split(' ') {
        if word.is_empty() {
            spaces += 1;
            continue;
        }
        if column + spaces + word.len() > LINE_BYTES && column > 1 {
            out.push_str("\r\n");
            column = 0;
        }
        out.extend(std::iter::repeat_n(' ', spaces));
        out.push_str(word);
        column += spaces + word.len();
        spaces = 1;
    }
    column
}

/// Appends a value as encoded words (RFC 2047). Returns the column at its end.
fn encoded_words(out: &mut String, mut column: usize, mut value: &str) -> usize {
    while !value.is_empty() {
        let room = LINE_BYTES.saturating_sub(column + 1 + WORD_START.len() + WORD_END.len());
        let room = (room / 4 * 3).clamp(12, 45);
        let mut length = room.min(value.len());
        while !value.is_char_boundary(length) {
            length -= 1;
        }
        let (word, rest) = value.split_at(length);
        out.push(' ');
        out.push_str(WORD_START);
        BASE64.encode_append(word.as_bytes(), out);
        out.push_str(WORD_END);
        column += 1 + WORD_START.len() + BASE64.encode_len(length) + WORD_END.len();
        value = rest;
        if !value.is_empty() {
            out.push_str("\r\n");
            column = 0;
        }
    }
    column
}

/// Appends a part of type `text/subtype`: headers, a blank line, the body, CRLF.
pub fn text_part(out: &mut String, subtype: &str, body: &Body<'_>) {
    let base64 = body.is_shorter_in_base64();
    let encoding = if base64 { "base64" } else { "quoted-printable" };
    out.push_str("Content-Type: text/");
    out.push_str(subtype);
    out.push_str("; charset=utf-8\r\nContent-Transfer-Encoding: ");
    out.push_str(encoding);
    out.push_str("\r\n\r\n");
    if base64 {
        base64_body(out, &body.text());
    } else {
        body.quoted_printable(out);
    }
}

/// Appends the text in base64 (RFC 2045, 6.8). Its line ends become CRLF first: the canonical form.
fn base64_body(out: &mut String, text: &str) {
    let mut canonical = String::with_capacity(text.len() + text.len() / 32);
    for line in lines(text) {
        canonical.push_str(line);
        canonical.push_str("\r\n");
    }
    for chunk in canonical.as_bytes().chunks(LINE_BYTES / 4 * 3) {
        BASE64.encode_append(chunk, out);
        out.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> String {
        let mut out = String::new();
        text_header(&mut out, "Subject", value);
        out
    }

    #[test]
    fn subjects_are_folded_or_encoded() {
        assert_eq!(header("Hello  there"), "Subject: Hello  there\r\n");
        assert_eq!(header("Grüße"), "Subject: =?utf-8?B?R3LDvMOfZQ==?=\r\n");
        assert_eq!(header("a =?b"), "Subject: =?utf-8?B?YSA9P2I=?=\r\n");
        assert_eq!(header(""), "Subject:\r\n");
        for value in ["word ".repeat(60), "x".repeat(2000), "ü 例え🎉 ".repeat(60)] {
            let header = header(&value);
            assert!(header.lines().all(|line| line.len() <= 76), "{header}");
            assert!(header.lines().skip(1).all(|line| line.starts_with(' ') && line.len() > 1));
        }
    }

    #[test]
    fn a_display_name_is_atoms_a_quoted_string_or_encoded_words() {
        let check = |name: &str, expected: &str| {
            let mut out = String::new();
            mailbox_header(&mut out, "From", name, "a@b.example");
            assert_eq!(out, format!("From: {expected}\r\n"));
        };
        check("", "a@b.example");
        check("Jane Doe", "Jane Doe <a@b.example>");
        check("Doe, Jane", "\"Doe, Jane\" <a@b.example>");
        check("J \"x\" \\ D.", "\"J \\\"x\\\" \\\\ D.\" <a@b.example>");
        check("Jürgen", "=?utf-8?B?SsO8cmdlbg==?= <a@b.example>");
    }
}
