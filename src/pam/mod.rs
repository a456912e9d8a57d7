//! The edge to libpam: C on the other side, no panic and no unchecked pointer on this one.

pub mod entry;
mod handle;
pub mod sys;
