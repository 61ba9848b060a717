//! The fatigue check: which addresses have got enough messages already.

use std::collections::{BTreeSet, HashMap};

use crate::{
    domain::{
        audience::{AddressKey, FatigueMoment, FatigueRule, FatigueWeight, message_counts, weight},
        delivery::DeliveryId,
    },
    store::{
        StoreError,
        addresses::{AddressStore, IndexedMessage, PreparationStanding},
        chunks::LedgerStore,
    },
};

/// Preparations that a caller has looked up, by number. `None`: the messages of the preparation do
/// not count.
pub type KnownPreparations = HashMap<u32, Option<PreparationStanding>>;

/// Looks up what was sent to an address. Cheap to clone.
#[derive(Clone)]
pub struct AddressChecks {
    pub addresses: AddressStore,
    pub ledgers: LedgerStore,
}

impl AddressChecks {
    /// Says for each address of `asked` whether the rule forbids one more message to it.
    ///
    /// Messages of the delivery `own` do not count. `known` keeps the preparations for later calls.
    ///
    /// # Errors
    /// If Redis does not answer, or if stored bytes are damaged.
    pub(crate) async fn fatigued(
        &self,
        own: &DeliveryId,
        rule: &FatigueRule,
        asked: &[(AddressKey, FatigueMoment<'_>)],
        known: &mut KnownPreparations,
    ) -> Result<Vec<bool>, StoreError> {
        let addresses: Vec<AddressKey> = asked.iter().map(|(address, _)| *address).collect();
        let messages = self.addresses.messages_to(&addresses).await?;
        self.learn_preparations(messages.iter().flatten(), known).await?;

        // the ledgers are read only for addresses with enough messages to reach the limit
        let (mut recipients, mut terms) = (Vec::new(), Vec::new());
        for (i, ((_, moment), messages)) in asked.iter().zip(&messages).enumerate() {
            let candidate = |message: &IndexedMessage| {
                let standing =
                    known.get(&message.preparation)?.as_ref().filter(|s| s.delivery != *own)?;
                let (at, position, wave) = standing.find(message.recipient)?;
                let weight = weight(rule, *moment, &standing.delivery, wave);
                (weight != FatigueWeight::None).then_some(((at, position), (i, weight, standing)))
            };
            let (places, weights): (Vec<_>, Vec<_>) = messages.iter().filter_map(candidate).unzip();
            if places.len() >= rule.messages as usize {
                recipients.extend(places);
                terms.extend(weights);
            }
        }
        let mut counted = vec![0; asked.len()];
        for ((status, checked), (i, weight, standing)) in
            self.ledgers.statuses(&recipients).await?.into_iter().zip(terms)
        {
            let was_checked = checked || !standing.has_fatigue_rule;
            counted[i] += u32::from(message_counts(weight, standing.state, status, was_checked));
        }
        Ok(counted.into_iter().map(|n| n >= rule.messages).collect())
    }

    /// Looks up the preparations of `messages` that are not in `known` yet.
    async fn learn_preparations(
        &self,
        messages: impl Iterator<Item = &IndexedMessage>,
        known: &mut KnownPreparations,
    ) -> Result<(), StoreError> {
        let met: BTreeSet<u32> = messages.map(|message| message.preparation).collect();
        let unknown: Vec<u32> =
            met.into_iter().filter(|number| !known.contains_key(number)).collect();
        let mut standings = self.addresses.preparation_standings(&unknown).await?;
        known.extend(unknown.into_iter().map(|number| (number, standings.remove(&number))));
        Ok(())
    }
}
