//! TODO head

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

/// What is known of the preparations met so far, by their number; `None` does not count.
pub type KnownPreparations = HashMap<u32, Option<PreparationStanding>>;

#[derive(Clone)]
pub struct AddressChecks {
    pub addresses: AddressStore,
    pub ledgers: LedgerStore,
}

impl AddressChecks {
    /// Which of `asked` have enough messages already, without those of the delivery itself.
    pub(crate) async fn fatigued(
        &self,
        own: &DeliveryId,
        rule: &FatigueRule,
        asked: &[(AddressKey, FatigueMoment<'_>)],
        known: &mut KnownPreparations,
    ) -> Result<Vec<bool>, StoreError> {
        let addresses: Vec<AddressKey> = asked.iter().map(|(address, _)| *address).collect();
        let messages = self.addresses.messages_to(&addresses).await?;
        let met: BTreeSet<u32> =
            messages.iter().flatten().map(|message| message.preparation).collect();
        let unknown: Vec<u32> =
            met.into_iter().filter(|number| !known.contains_key(number)).collect();
        let mut standings = self.addresses.preparation_standings(&unknown).await?;
        known.extend(unknown.into_iter().map(|number| (number, standings.remove(&number))));

        // what became of a message is asked only where there are so many that it matters
        let (mut recipients, mut terms) = (Vec::new(), Vec::new());
        for (i, ((_, moment), messages)) in asked.iter().zip(&messages).enumerate() {
            let candidate = |message: &IndexedMessage| {
                let standing =
                    known.get(&message.preparation)?.as_ref().filter(|s| s.delivery != *own)?;
                let (at, position, wave) = standing.find(message.recipient)?;
                let weight = weight(rule, *moment, &standing.delivery, wave);
                (weight != FatigueWeight::None).then_some(((at, position), (i, weight, standing)))
            };
            let (places, those): (Vec<_>, Vec<_>) = messages.iter().filter_map(candidate).unzip();
            if places.len() >= rule.messages as usize {
                recipients.extend(places);
                terms.extend(those);
            }
        }
        let mut counted = vec![0; asked.len()];
        for ((status, checked), (i, weight, standing)) in
            self.ledgers.statuses(&recipients).await?.into_iter().zip(terms)
        {
            counted[i] += u32::from(message_counts(
                weight,
                standing.state,
                status,
                checked || !standing.has_fatigue_rule,
            ));
        }
        Ok(counted.into_iter().map(|n| n >= rule.messages).collect())
    }
}
