//! What a principal of a unit reaches by each route.

use super::routes::Route;

/// The beginning of all routes that are about one delivery.
const ONE_DELIVERY: &str = "/api/v1/deliveries/{id}";
/// The routes whose handlers leave out everything that belongs to other units.
const FILTERED: &[&str] = &[
    "/api/v1/deliveries",
    "/api/v1/exclusion-causes",
    "/api/v1/jobs/{id}/outcome",
    "/api/v1/profiles/{email}/messages",
];

/// What a principal of a unit reaches by a route. A new route that is named nowhere here belongs
/// to principals without a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitScope {
    /// The route is about one delivery. Outside of the unit it answers 404, as if there were no
    /// such delivery.
    OneDelivery,
    /// The handler leaves out what belongs to other units.
    Filtered,
    /// The route is about all units: 403.
    WholeInstallation,
}

impl Route {
    /// What a principal of a unit reaches by this route.
    pub fn unit_scope(&self) -> UnitScope {
        if self.path.starts_with(ONE_DELIVERY) {
            UnitScope::OneDelivery
        } else if FILTERED.contains(&self.path) {
            UnitScope::Filtered
        } else {
            UnitScope::WholeInstallation
        }
    }
}
