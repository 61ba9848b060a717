//! The one integration binary.

mod mail;
