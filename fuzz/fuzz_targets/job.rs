//! The payload of a job is refused, or read as the value that was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use versand::queue::{ConfirmSend, Job};

fuzz_target!(|payload: &[u8]| {
    if let Ok(job) = Job::decode(payload) {
        assert_eq!(Job::decode(&job.encode()).ok(), Some(job));
    }
    if let Ok(confirm) = ConfirmSend::decode(payload) {
        let again = serde_json::to_vec(&confirm).unwrap();
        assert!(ConfirmSend::decode(&again).is_ok_and(|read| read == confirm));
    }
});
