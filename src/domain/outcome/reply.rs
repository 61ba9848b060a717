//! An SMTP reply, parsed strictly (RFC 5321, 4.2).

use std::fmt;

/// An SMTP reply (RFC 5321, 4.2) with its enhanced status code (RFC 2034, RFC 3463).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// Class, subject and detail. `None` if the reply has none of the class of `code`.
    pub enhanced: Option<(u8, u16, u16)>,
    /// The lines, joined with spaces, without codes and control characters.
    pub text: String,
}

/// A reply that RFC 5321, 4.2 does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("reply line without a three-digit code")]
    NoCode,
    #[error("reply lines with different codes")]
    MixedCodes,
    #[error("reply without a last line, or with lines after it")]
    Unfinished,
}

impl Reply {
    /// Parses one complete reply: lines such as `250-text`, and a last line `250 text` or `250`.
    ///
    /// # Errors
    /// The text is anything else, or there are lines after the last one.
    pub fn parse(reply: &str) -> Result<Self, ReplyError> {
        let mut code = None;
        let mut enhanced = None;
        let mut text = String::new();
        let mut finished = false;
        for line in reply.trim_end_matches(['\r', '\n']).split('\n') {
            let (line_code, last, rest) = split_line(line.trim_end_matches('\r'))?;
            if finished {
                return Err(ReplyError::Unfinished);
            }
            if *code.get_or_insert(line_code) != line_code {
                return Err(ReplyError::MixedCodes);
            }
            finished = last;
            let rest = match split_enhanced(line_code, rest) {
                Some((found, rest)) if *enhanced.get_or_insert(found) == found => rest,
                _ => rest,
            };
            push_clean(&mut text, rest);
        }
        match code {
            Some(code) if finished => Ok(Self { code, enhanced, text }),
            _ => Err(ReplyError::Unfinished),
        }
    }

    /// Whether the code is 2xx or 3xx.
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// Whether a later attempt may succeed: 4xx, and also "too many recipients", which some servers
    /// send as 5xx.
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
            || (self.code >= 500
                && (matches!(self.enhanced, Some((_, 5, 3)))
                    || self.text.to_ascii_lowercase().contains("too many recipients")))
    }
}

impl fmt::Display for Reply {
    /// Writes one line. [`Reply::parse`] can read it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((class, subject, detail)) = self.enhanced {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        if !self.text.is_empty() {
            write!(f, " {}", self.text)?;
        }
        Ok(())
    }
}

/// Code, whether this is the last line, and text.
fn split_line(line: &str) -> Result<(u16, bool, &str), ReplyError> {
    let bytes = line.as_bytes();
    let digits = match bytes {
        [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => [a, b, c],
        _ => return Err(ReplyError::NoCode),
    };
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(**digit - b'0'));
    match bytes.get(3) {
        None => Ok((code, true, "")),
        Some(b' ') => Ok((code, true, &line[4..])),
        Some(b'-') => Ok((code, false, &line[4..])),
        Some(_) => Err(ReplyError::NoCode),
    }
}

/// The enhanced code at the start of `text`, and the rest. `None` if there is none of the class of
/// `code`.
fn split_enhanced(code: u16, text: &str) -> Option<((u8, u16, u16), &str)> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut parts = word.split('.').map(|part| {
        ((1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<u16>().ok())?
    });
    let (class, subject, detail) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || class != code / 100 || !matches!(class, 2 | 4 | 5) {
        return None;
    }
    Some(((u8::try_from(class).ok()?, subject, detail), rest))
}

/// Appends a line, with spaces in place of control characters.
fn push_clean(text: &mut String, line: &str) {
    let line = line.trim();
    if !text.is_empty() && !line.is_empty() {
        text.push(' ');
    }
    text.extend(line.chars().map(|c| if c.is_control() { ' ' } else { c }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_several_lines_becomes_one() {
        let reply = Reply::parse("550-5.1.1 No such\r\n550-5.1.1  user\r\n550 5.1.1 here\r\n")
            .expect("a reply");
        assert_eq!(reply.enhanced, Some((5, 1, 1)));
        assert_eq!(reply.to_string(), "550 5.1.1 No such user here");
        assert_eq!(Reply::parse(&reply.to_string()), Ok(reply));
        assert_eq!(Reply::parse("250").expect("bare").to_string(), "250");
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_text() {
        let reply = Reply::parse("550 4.2.1 odd").expect("a reply");
        assert_eq!(reply.enhanced, None);
        assert_eq!(reply.text, "4.2.1 odd");
        let reply = Reply::parse("250 2.0.0.1 odd").expect("a reply");
        assert_eq!(reply.enhanced, None);
    }

    #[test]
    fn control_characters_do_not_reach_the_log() {
        let reply = Reply::parse("550 a\u{1b}[2Jb\rc").expect("a reply");
        assert_eq!(reply.text, "a [2Jb c");
    }

    #[test]
    fn other_text_is_refused() {
        for (text, error) in [
            ("", ReplyError::NoCode),
            ("25", ReplyError::NoCode),
            ("2500 x", ReplyError::NoCode),
            ("650 x", ReplyError::NoCode),
            ("hello", ReplyError::NoCode),
            ("\u{e9}50 x", ReplyError::NoCode),
            ("250-x", ReplyError::Unfinished),
            ("250 x\r\n250 y", ReplyError::Unfinished),
            ("250-x\r\n251 y", ReplyError::MixedCodes),
        ] {
            assert_eq!(Reply::parse(text), Err(error), "{text:?}");
        }
    }
}
