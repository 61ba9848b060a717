//! Dot stuffing: the form of a message after DATA (RFC 5321, 4.5.2).

/// Doubles dots at line starts, and appends the final dot.
///
/// A missing CRLF at the end is added. The message is copied only if a dot is doubled. Messages in
/// quoted-printable or base64 never need that.
pub fn stuff_dots(message: &mut Vec<u8>) {
    if message.starts_with(b".") || memchr::memmem::find(message, b"\n.").is_some() {
        *message = with_doubled_dots(message);
    }
    if !message.ends_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b".\r\n");
}

fn with_doubled_dots(message: &[u8]) -> Vec<u8> {
    let mut doubled = Vec::with_capacity(message.len() + message.len() / 16);
    let mut line_start = true;
    for byte in message {
        if line_start && *byte == b'.' {
            doubled.push(b'.');
        }
        doubled.push(*byte);
        line_start = *byte == b'\n';
    }
    doubled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_doubled_at_line_starts_only() {
        for (message, stuffed) in [
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            ("", "\r\n.\r\n"),
            (".\r\n..\r\na.b\r\n", "..\r\n...\r\na.b\r\n.\r\n"),
            ("\r\n.\r\n.", "\r\n..\r\n..\r\n.\r\n"),
            ("a\n.b", "a\n..b\r\n.\r\n"),
        ] {
            let mut found = message.as_bytes().to_vec();
            stuff_dots(&mut found);
            assert_eq!(found, stuffed.as_bytes(), "{message:?}");
        }
    }
}
