//! Transparency: the message as it goes over the wire (RFC 5321, 4.5.2).

/// Dots at line starts doubled, the final dot added (RFC 5321, 4.5.2); no CRLF more than needed. In place if no dot is to be
/// doubled, as in every message that is encoded in quoted-printable or base64.
pub fn stuff(message: &mut Vec<u8>) {
    if message.starts_with(b".") || memchr::memmem::find(message, b"\n.").is_some() {
        *message = doubled(message);
    }
    if !message.ends_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b".\r\n");
}

fn doubled(message: &[u8]) -> Vec<u8> {
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
            stuff(&mut found);
            assert_eq!(found, stuffed.as_bytes(), "{message:?}");
        }
    }
}
