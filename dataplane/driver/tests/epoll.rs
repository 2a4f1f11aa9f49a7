//! Every operation of the driver, over loopback, by the epoll backend.

use bootstorm_driver::Choice;

const CHOICE: Choice = Choice::Epoll;

#[path = "loopback/mod.rs"]
mod loopback;
