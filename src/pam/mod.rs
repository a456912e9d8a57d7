//! The edge to libpam: C on the other side, no panic and no unchecked pointer on this one.

#[cfg(feature = "cli")]
pub mod application;
pub mod entry;
mod handle;
pub mod sys;
