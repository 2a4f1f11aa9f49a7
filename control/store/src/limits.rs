//! Every bound of the store, with unit and reason.

/// Items of one page: a page of machines with their interfaces stays around a megabyte.
pub const PAGE_ITEMS_MAX: u32 = 1000;
/// Changes of one commit: longer lists are cut by their maker, so that no transaction holds the writer for long.
pub const CHANGES_MAX: usize = 4096;
/// Bytes of one sealed secret: user-data of 16 MiB is nobody's, 1 MiB is somebody's.
pub const SECRET_BYTES_MAX: usize = 1 << 20;
/// Bytes of the text of a setting, an error or a log entry; longer ones are refused or, for errors and logs, cut.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Connections that read.
pub const READERS_MAX: u32 = 4;
/// Seconds a writer waits for its turn behind others before it gives up.
pub const WRITER_WAIT_SECONDS: u64 = 30;

const _: () = assert!(PAGE_ITEMS_MAX > 0);
const _: () = assert!(READERS_MAX > 0);
