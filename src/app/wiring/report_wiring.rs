//! The wiring of the room `report`.

use super::shared::SharedHandles;
use crate::report::{Archives, ExclusionLog, History, Previews, Reports, SendingLog, TrackingLogs};

impl SharedHandles {
    /// The reports: logs, history, previews and archives.
    pub(in crate::app) fn reports(&self) -> Reports {
        let (stores, deliveries) = (&self.parts.stores, &self.deliveries);
        let sending_log = SendingLog {
            deliveries: deliveries.clone(),
            audiences: stores.audiences.clone(),
            ledgers: stores.ledgers.clone(),
        };
        let exclusion_log =
            ExclusionLog { deliveries: deliveries.clone(), audiences: stores.audiences.clone() };
        let tracking_logs = TrackingLogs {
            deliveries: deliveries.clone(),
            audiences: stores.audiences.clone(),
            tracking: stores.tracking.clone(),
        };
        Reports {
            history: History {
                addresses: stores.addresses.clone(),
                deliveries: stores.deliveries.clone(),
            },
            previews: Previews {
                deliveries: deliveries.clone(),
                recipients: self.recipients.clone(),
                ledgers: stores.ledgers.clone(),
            },
            archives: Archives {
                deliveries: deliveries.clone(),
                audits: stores.audits.clone(),
                sending_log: sending_log.clone(),
                exclusion_log: exclusion_log.clone(),
                tracking_logs: tracking_logs.clone(),
            },
            sending_log,
            exclusion_log,
            tracking_logs,
        }
    }
}
