//! Addresses in the form that goes over SMTP: ASCII, international domains as A-labels.

use lettre::Address;

use crate::domain::audience::{AddressKey, digest_of};

/// Why nothing can be sent to an address. The text never repeats the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("is empty")]
    Empty,
    #[error("is not an e-mail address (RFC 5321, 4.1.2)")]
    Invalid,
    #[error("has non-ASCII letters before the @, which needs SMTPUTF8 (RFC 6531): not supported")]
    LocalPart,
    #[error("has quotes before the @ that cannot be left out (RFC 5321, 4.1.2): not supported")]
    Quoted,
    #[error("has a domain that is not a valid international domain name (RFC 5890)")]
    Domain,
    #[error("is longer than RFC 5321, 4.5.3.1 allows: 64 bytes before the @, 254 in all")]
    TooLong,
}

/// The form of an address in the envelope and in headers.
///
/// The local part is kept, without quotes that mean nothing. `"ann"@x` and `ann@x` are the same
/// mailbox, so they must be one address in the denylist. The domain becomes lower case, with
/// A-labels (RFC 5890). Spaces around the address are removed.
///
/// # Errors
///
/// The text is not an address, is too long, holds a control character such as a tab, or needs
/// quotes or SMTPUTF8 (RFC 6531).
pub fn to_ascii(address: &str) -> Result<String, AddressError> {
    // RFC 5321 has no control characters anywhere, not even quoted.
    if address.chars().any(char::is_control) {
        return Err(AddressError::Invalid);
    }
    let address = address.trim();
    if address.is_empty() {
        return Err(AddressError::Empty);
    }
    let (local, domain) = address.rsplit_once('@').ok_or(AddressError::Invalid)?;
    if is_simple(local, domain) {
        return Ok(address.to_owned());
    }
    if local.starts_with('"') {
        return parse(&unquoted(local)?, domain);
    }
    parse(local, domain)
}

/// The local part without its quotes.
///
/// # Errors
/// The quotes do not end at the `@`, or the text needs them.
fn unquoted(local: &str) -> Result<String, AddressError> {
    let quoted = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let mut text = String::new();
    let mut chars = quoted.ok_or(AddressError::Invalid)?.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().ok_or(AddressError::Invalid)?),
            '"' => return Err(AddressError::Invalid),
            c => text.push(c),
        }
    }
    let is_atom = |word: &str| {
        let is_text = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
        !word.is_empty() && word.chars().all(is_text)
    };
    if text.split('.').all(is_atom) { Ok(text) } else { Err(AddressError::Quoted) }
}

/// The key of an address in the denylist and in the message index.
///
/// # Errors
/// As [`to_ascii`].
pub fn address_key(address: &str) -> Result<AddressKey, AddressError> {
    Ok(AddressKey::of(digest_of(&to_ascii(address)?)))
}

/// Whether a quick check finds the address valid, so that no parser is needed. Most addresses pass.
///
/// Both sides are words with single dots between them. A word of the local part has ASCII letters,
/// digits, `_`, `+` and `-`. A word of the domain has lower-case ASCII letters and digits. The
/// top-level domain does not begin with a digit.
fn is_simple(local: &str, domain: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'))
    };
    let is_word = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-'))
    };
    (local.len() <= 64 && domain.len() <= 63)
        && local.split('.').all(is_word)
        && domain.split('.').all(is_label)
        && domain
            .rsplit('.')
            .next()
            .is_some_and(|last| last.starts_with(|c: char| c.is_ascii_lowercase()))
}

fn parse(local: &str, domain: &str) -> Result<String, AddressError> {
    if !local.is_ascii() {
        return Err(AddressError::LocalPart);
    }
    let domain = if domain.is_ascii() {
        domain.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii_strict(domain).map_err(|_| AddressError::Domain)?
    };
    if local.len() > 64 || local.len() + 1 + domain.len() > 254 {
        return Err(AddressError::TooLong);
    }
    let address = Address::new(local, &domain).map_err(|_| AddressError::Invalid)?;
    // lettre takes bare IP addresses; RFC 5321, 4.1.3 wants them in brackets.
    if address.domain().parse::<std::net::IpAddr>().is_ok() {
        return Err(AddressError::Invalid);
    }
    Ok(address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn international_domains_become_a_labels() {
        assert_eq!(to_ascii("Jane@Müller.Example").as_deref(), Ok("Jane@xn--mller-kva.example"));
        assert_eq!(to_ascii("jane@例え.テスト").as_deref(), Ok("jane@xn--r8jz45g.xn--zckzah"));
        assert_eq!(to_ascii("a+b.c=d@Sub.Example.ORG").as_deref(), Ok("a+b.c=d@sub.example.org"));
    }

    #[test]
    fn quotes_that_mean_nothing_are_left_out() {
        for same in
            ["jane.doe@example.org", "\"jane.doe\"@example.org", "\"j\\ane.doe\"@Example.org"]
        {
            assert_eq!(to_ascii(same).as_deref(), Ok("jane.doe@example.org"), "{same}");
        }
    }

    #[test]
    fn an_address_that_smtp_cannot_carry_is_refused() {
        let long_local = format!("{}@example.org", "a".repeat(65));
        let long = format!("a@{}.org", "b.".repeat(126));
        for (address, error) in [
            ("", AddressError::Empty),
            (" ", AddressError::Empty),
            ("jane", AddressError::Invalid),
            ("@example.org", AddressError::Invalid),
            ("jane@", AddressError::Invalid),
            ("jane@exa mple.org", AddressError::Invalid),
            ("jane doe@example.org", AddressError::Invalid),
            ("\"jane doe\"@example.org", AddressError::Quoted),
            ("\"jane@doe\"@example.org", AddressError::Quoted),
            ("\"\"@example.org", AddressError::Quoted),
            ("\"jane..doe\"@example.org", AddressError::Quoted),
            ("\"jane\\\"\"@example.org", AddressError::Quoted),
            ("\"jane\"doe\"@example.org", AddressError::Invalid),
            ("\"jane@example.org", AddressError::Invalid),
            ("jane\"@example.org", AddressError::Invalid),
            ("jane@example.org.", AddressError::Invalid),
            ("jane(home)@example.org", AddressError::Invalid),
            ("jane\0@example.org", AddressError::Invalid),
            ("jane@example.org\r\nRCPT TO:<x@y.z>", AddressError::Invalid),
            ("jane\r\n@example.org", AddressError::Invalid),
            ("<jane@example.org>", AddressError::Invalid),
            ("jane@example.org>", AddressError::Invalid),
            ("a@b@example.org", AddressError::Invalid),
            ("jane..doe@example.org", AddressError::Invalid),
            ("jane@-example.org", AddressError::Invalid),
            ("jane@127.0.0.1", AddressError::Invalid),
            ("jürgen@example.org", AddressError::LocalPart),
            ("jane@\u{ad}.example", AddressError::Domain),
            (long_local.as_str(), AddressError::TooLong),
            (long.as_str(), AddressError::TooLong),
        ] {
            assert_eq!(to_ascii(address), Err(error), "{address}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_simple_address_is_what_the_parser_says(
            local in "[aZ0_+.-]{0,66}",
            domain in "([az0]{0,9}[.-]?){0,9}",
        ) {
            if is_simple(&local, &domain) {
                assert_eq!(parse(&local, &domain), Ok(format!("{local}@{domain}")));
            }
        }
    }
}
