//! The installed system, as the agent sees it before it starts: its file systems, seed, ready signal and boot entry.

pub mod efi;
pub mod grub;
pub mod kernel;
pub mod mounted;
pub mod ready_unit;
pub mod seed;
pub mod storage;
