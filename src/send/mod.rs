//! TODO head

pub mod chunk;
pub mod confirm;
pub mod define;
pub mod journey;
pub mod limits;
pub mod operate;
pub mod prepare;
pub mod recover;
pub mod release;
pub mod step_jobs;
pub use journey::{ConfirmSteps, DefineSteps, Journey, OperateSteps, RecoverSteps, ReleaseSteps};
pub use step_jobs::StepJobs;
