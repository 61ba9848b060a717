//! TODO head

mod application;
mod services;

pub use application::Application;
pub use services::{Parts, Services};
