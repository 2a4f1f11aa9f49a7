//! Disks: which one, how it is written and erased, and its partition table.

pub mod block;
pub mod erase;
pub mod fetch;
pub mod gpt;
pub mod layout;
pub mod select;
pub mod write;
