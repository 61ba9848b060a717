//! Recipient addresses: what is one, and when two are the same.

use crate::domain::exclusion::Cause;

/// Longest address that fits a forward path of 256 octets with its brackets (RFC 5321, 4.5.3.1.3).
const LONGEST: usize = 254;

/// Checks an address as it came in an upload.
///
/// # Errors
/// The cause of exclusion: empty, or not an address this daemon can send to. Local parts beyond ASCII need SMTPUTF8
/// (RFC 6531) all the way and count as invalid.
pub fn check(text: &str) -> Result<lettre::Address, Cause> {
    if text.trim().is_empty() {
        return Err(Cause::EmptyAddress);
    }
    let address: lettre::Address = text.trim().parse().map_err(|_| Cause::InvalidAddress)?;
    let dotted = address.domain().split('.').filter(|label| !label.is_empty()).count() >= 2;
    let literal = address.domain().starts_with('[');
    let sendable =
        text.len() <= LONGEST && address.user().is_ascii() && (dotted || literal) && !text.contains(|c: char| c.is_control());
    if sendable { Ok(address) } else { Err(Cause::InvalidAddress) }
}

/// What two spellings of the same address have in common: domains are case-insensitive, and so are, here, local parts.
pub fn identity(address: &lettre::Address) -> String {
    <lettre::Address as AsRef<str>>::as_ref(address).to_lowercase()
}

/// Whether `address` matches a mask: an address, or one in which `*` stands for anything.
pub fn matches(mask: &str, address: &str) -> bool {
    let (mask, address) = (mask.to_lowercase(), address.to_lowercase());
    let mut parts = mask.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = address.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["a@b.example", "first.last+tag@sub.example.org", "o'neil@example.com", "a@bücher.example", " a@b.example "]
        {
            assert!(check(good).is_ok(), "{good}");
        }
        for empty in ["", "  ", "\t"] {
            assert_eq!(check(empty), Err(Cause::EmptyAddress));
        }
        let long = format!("{}@example.com", "a".repeat(250));
        for bad in [
            "a",
            "a@",
            "@b.example",
            "a@b",
            "a b@c.example",
            "a@b..example",
            "a@@b.example",
            "ä@b.example",
            "a@b.example\r\nRCPT TO:<c@d.example>",
            &long,
        ] {
            assert_eq!(check(bad), Err(Cause::InvalidAddress), "{bad}");
        }
    }

    #[test]
    fn the_same_address_in_other_letters_is_the_same() {
        let of = |text: &str| check(text).map(|a| identity(&a));
        assert_eq!(of("Ann@Example.COM"), of("ann@example.com"));
        assert_ne!(of("ann@example.com"), of("bob@example.com"));
    }

    #[test]
    fn masks() {
        for (mask, address, expected) in [
            ("*", "a@b.example", true),
            ("*@b.example", "A@B.example", true),
            ("*@b.example", "a@c.example", false),
            ("a@b.example", "a@b.example", true),
            ("a@b.example", "aa@b.example", false),
            ("news*@*.example", "news-1@x.example", true),
            ("*@*.b.example", "a@b.example", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(mask, address), expected, "{mask} {address}");
        }
    }
}
