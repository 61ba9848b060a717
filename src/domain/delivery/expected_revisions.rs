//! The precondition of a request: it may change a delivery only at certain revisions.

/// The revisions that a request expects, as `If-Match` names them (RFC 9110, 13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedRevisions {
    /// `*`: any revision of a delivery that exists.
    Any,
    /// One of these. Tags that name no revision are left out, because they never match.
    OneOf(Vec<u64>),
}

impl ExpectedRevisions {
    /// Reads the value of the header. `None` if it is no list of entity tags.
    ///
    /// Weak tags never match, because `If-Match` compares strongly.
    pub fn parse(value: &str) -> Option<Self> {
        if value.trim() == "*" {
            return Some(Self::Any);
        }
        let mut revisions = Vec::new();
        let mut rest = value.trim();
        loop {
            let (is_weak, tag) = rest.strip_prefix("W/").map_or((false, rest), |rest| (true, rest));
            let (opaque, after) = tag.strip_prefix('"')?.split_once('"')?;
            let revision =
                opaque.parse().ok().filter(|revision: &u64| revision.to_string() == opaque);
            revisions.extend(revision.filter(|_| !is_weak));
            rest = match after.trim_start().strip_prefix(',') {
                Some(more) => more.trim_start(),
                None if after.trim().is_empty() => return Some(Self::OneOf(revisions)),
                None => return None,
            };
        }
    }

    /// Whether a delivery with this revision is expected.
    pub fn hold(&self, revision: u64) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(revisions) => revisions.contains(&revision),
        }
    }

    /// The entity tag of a revision.
    pub fn tag(revision: u64) -> String {
        format!("\"{revision}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tags_is_read() {
        let of = |revisions: &[u64]| Some(ExpectedRevisions::OneOf(revisions.to_vec()));
        for (value, expected) in [
            ("*", Some(ExpectedRevisions::Any)),
            ("\"7\"", of(&[7])),
            (" \"7\" , \"12\"", of(&[7, 12])),
            ("\"+7\", \"007\", \"7 \"", of(&[])),
            ("W/\"7\"", of(&[])),
            ("W/\"7\", \"8\"", of(&[8])),
            ("\"abc\"", of(&[])),
            ("\"a,b\", \"3\"", of(&[3])),
            ("", None),
            ("7", None),
            ("\"7", None),
            ("\"7\" \"8\"", None),
            ("\"7\",", None),
            ("*, \"7\"", None),
        ] {
            assert_eq!(ExpectedRevisions::parse(value), expected, "{value}");
        }
    }

    #[test]
    fn the_tag_of_a_revision_matches_that_revision_only() {
        let expected = ExpectedRevisions::parse(&ExpectedRevisions::tag(7)).expect("a tag");
        assert!(expected.hold(7) && !expected.hold(6) && !expected.hold(8));
        assert!(ExpectedRevisions::Any.hold(0));
    }
}
