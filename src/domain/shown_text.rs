//! Strangers' text in a log line or before the eyes of people: no control may hide in it.

/// The text for a log line: the first `most` characters of `text`, with every hidden control
/// escaped. If characters were left out, it ends with `…`.
pub fn one_line(text: &str, most: usize) -> String {
    let mut line = String::new();
    for c in text.chars().take(most) {
        if is_hidden_control(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    if text.chars().nth(most).is_some() {
        line.push('…');
    }
    line
}

/// True for a character that changes how the text around it is shown, or that ends a line.
///
/// These are the control characters, the line and paragraph separators, the byte order mark, and
/// the invisible operators and annotation marks of Unicode. The controls of the direction of
/// writing (UAX 9, 2) are among them, too: they can show `gpj.exe` as `exe.jpg`.
pub fn is_hidden_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
        )
}

/// True for a character that a name must not have: a control character, a line separator, or a
/// control that turns the direction of the text after it.
pub fn misleads(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_of_limited_length() {
        assert_eq!(one_line("crm/ann", 100), "crm/ann");
        assert_eq!(
            one_line("a\nWARN forged\r\0\u{1b}[31m", 100),
            r"a\nWARN forged\r\u{0}\u{1b}[31m"
        );
        assert_eq!(one_line("a\u{202e}gpj.exe\u{2028}", 100), r"a\u{202e}gpj.exe\u{2028}");
        assert_eq!(one_line("Jörg Müller", 4), "Jörg…");
        assert_eq!(one_line("👩\u{200d}💻", 9), "👩\u{200d}💻", "joiners are part of writing");
    }
}
