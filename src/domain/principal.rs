//! The principal: who calls, what he may do, and which deliveries he may see.

use super::{
    delivery::{Delivery, ExpectedRevisions},
    role::Role,
};

/// A caller: a person or an upstream system, with roles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Principal {
    pub name: String,
    pub roles: Vec<Role>,
    /// The principal sees and changes only deliveries of this unit. `None`: all deliveries.
    pub unit: Option<String>,
    /// The revisions that the request of the principal expects (`If-Match`). `None`: any.
    pub expects: Option<ExpectedRevisions>,
}

impl Principal {
    /// A principal without a unit.
    pub fn new(name: impl Into<String>, roles: Vec<Role>) -> Self {
        Self { name: name.into(), roles, ..Self::default() }
    }

    /// Whether one of the roles covers `needed`.
    pub fn may(&self, needed: Role) -> bool {
        self.roles.iter().any(|role| role.covers(needed))
    }

    /// Whether the principal may read what needs the role `needed`. An auditor reads everything.
    pub fn may_read(&self, needed: Role) -> bool {
        self.may(needed) || self.roles.contains(&Role::Auditor)
    }

    /// Whether the delivery exists for the principal.
    pub fn sees(&self, delivery: &Delivery) -> bool {
        self.sees_unit(delivery.document.definition.unit.as_deref())
    }

    /// Whether deliveries of a unit exist for the principal. `None`: deliveries without a unit.
    pub fn sees_unit(&self, unit: Option<&str>) -> bool {
        self.unit.is_none() || self.unit.as_deref() == unit
    }

    /// The unit of a delivery that the principal defines. `asked` is the unit in the definition.
    /// `before` is the unit that the delivery has.
    ///
    /// The error is the reason why the principal may not name that unit.
    pub fn unit_for(
        &self,
        asked: Option<String>,
        before: Option<String>,
    ) -> Result<Option<String>, &'static str> {
        match (&self.unit, asked) {
            (None, asked) => Ok(asked.or(before)),
            (Some(own), Some(asked)) if *own != asked => {
                Err("only a principal without a unit may name another unit")
            }
            (own, _) => Ok(own.clone()),
        }
    }

    /// Whether the request expects a delivery with this revision.
    pub fn expects(&self, revision: u64) -> bool {
        self.expects.as_ref().is_none_or(|expected| expected.hold(revision))
    }

    /// The same principal, for a further change by the same request. If the request expected a
    /// revision, it expects `revision` now.
    #[must_use]
    pub fn going_on(&self, revision: u64) -> Self {
        let expects = self.expects.as_ref().map(|_| ExpectedRevisions::OneOf(vec![revision]));
        Self { expects, ..self.clone() }
    }

    /// The same principal, for a change of another delivery.
    #[must_use]
    pub fn expecting_nothing(&self) -> Self {
        Self { expects: None, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(unit: Option<&str>) -> Principal {
        Principal { unit: unit.map(str::to_owned), ..Principal::new("ann", vec![]) }
    }

    #[test]
    fn a_principal_sees_its_own_unit_and_without_one_all() {
        for unit in [None, Some("north"), Some("south")] {
            assert!(of(None).sees_unit(unit));
            assert_eq!(of(Some("north")).sees_unit(unit), unit == Some("north"));
        }
    }

    #[test]
    fn only_a_principal_without_a_unit_names_another_unit() {
        let owned = |unit: &str| Some(unit.to_owned());
        assert_eq!(of(None).unit_for(None, None), Ok(None));
        assert_eq!(of(None).unit_for(owned("north"), None), Ok(owned("north")));
        assert_eq!(of(None).unit_for(None, owned("north")), Ok(owned("north")));
        assert_eq!(of(None).unit_for(owned("south"), owned("north")), Ok(owned("south")));
        assert_eq!(of(Some("north")).unit_for(None, None), Ok(owned("north")));
        assert_eq!(of(Some("north")).unit_for(owned("north"), None), Ok(owned("north")));
        assert!(of(Some("north")).unit_for(owned("south"), None).is_err());
    }
}
