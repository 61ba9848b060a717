//! Transparency: the message as it goes over the wire (RFC 5321, 4.5.2).

/// Dots at line starts doubled, the final dot added (RFC 5321, 4.5.2); no CRLF more than needed.
pub fn stuff(message: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(message.len() + message.len() / 64 + 8);
    if message.first() == Some(&b'.') {
        stuffed.push(b'.');
    }
    let mut copied = 0;
    for line_end in memchr::memmem::find_iter(message, b"\n.") {
        stuffed.extend_from_slice(&message[copied..=line_end]);
        stuffed.push(b'.');
        copied = line_end + 1;
    }
    stuffed.extend_from_slice(&message[copied..]);
    if !message.ends_with(b"\r\n") {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
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
            assert_eq!(stuff(message.as_bytes()), stuffed.as_bytes(), "{message:?}");
        }
    }
}
