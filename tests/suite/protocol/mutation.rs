//! Mistakes in the specification on purpose: the tests must find them.

/// A mistake on purpose. The property test must find each one, and the model most of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// No mistake: the protocol as it is.
    Faithful,
    /// Claims are granted to any caller. Nobody checks owner and epoch.
    ClaimsWithoutLease,
    /// A claim is granted before it is written. The first trace of an attempt is its report.
    ClaimsUnwritten,
    /// Reports need the lease, whatever their claim number is. Late truth is lost.
    ReportsNeedLease,
    /// Claims are granted in any state of the delivery.
    ClaimsInAnyState,
    /// A batch that comes again after a pause gets no list of its granted claims.
    GrantsForgotten,
    /// A late deferral takes a recipient out of doubt, though perhaps nobody looks at its chunk
    /// again.
    LateDeferrals,
    /// A stop cancels recipients that wait for a second attempt, though the first one may have been
    /// accepted.
    DoubtCancelled,
    /// The next holder trusts the records of its predecessor, though Redis may have forgotten later
    /// writes.
    ForgottenTrusted,
    /// Second attempts that a roll-back may have undone count as not made. Recipients in doubt are
    /// sent to again, perhaps a third time.
    ForgottenResent,
    /// A late acceptance undoes a bounce.
    BounceUndone,
    /// A hit by a machine proves that a message was delivered.
    ProvedByMachine,
    /// Hits count even if their links belong to another plan.
    HitsOfAnyPlan,
    /// The hits of a recipient are logged without a limit.
    HitsWithoutLimit,
    /// A late exclusion takes out recipients whose earlier attempt may have been accepted.
    DoubtExcluded,
}

impl Mutation {
    /// The mistakes that the model can find.
    pub const MISTAKES: [Self; 10] = [
        Self::ClaimsWithoutLease,
        Self::ClaimsUnwritten,
        Self::ReportsNeedLease,
        Self::ClaimsInAnyState,
        Self::GrantsForgotten,
        Self::LateDeferrals,
        Self::DoubtCancelled,
        Self::ForgottenTrusted,
        Self::ForgottenResent,
        Self::BounceUndone,
    ];
    /// The mistakes that the model cannot find.
    pub const NOT_IN_THE_MODEL: [Self; 4] =
        [Self::ProvedByMachine, Self::HitsOfAnyPlan, Self::HitsWithoutLimit, Self::DoubtExcluded];
}
