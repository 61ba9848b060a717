//! Masks of addresses and domains.

/// Whether `address` matches `mask`, in which each `*` stands for any text. Case does not matter.
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
