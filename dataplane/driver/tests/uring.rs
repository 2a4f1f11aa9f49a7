//! Every operation of the driver, over loopback, by the io_uring backend.

use bootstorm_driver::Choice;

const CHOICE: Choice = Choice::Uring;

#[path = "loopback/mod.rs"]
mod loopback;
