//! The address of a listener that may be left out.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, de::Error};

/// Reads an address; the empty text means that there is none.
///
/// # Errors
/// The text is neither empty nor an address with a port.
pub(super) fn optional_address<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    let expected = || {
        D::Error::custom(format!("{text:?} is not an address such as \"127.0.0.1:8026\", or \"\""))
    };
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| expected()) }
}
