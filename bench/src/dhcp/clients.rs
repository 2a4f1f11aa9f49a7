//! The clients that load a DHCP server: Kea's perfdhcp and our load generator. Both begin exchanges by due time, each by a
//! client of its own, send nothing twice and count what is lost.

use std::path::PathBuf;
use std::time::Duration;

use bootstorm_tests::lab::Error;

use crate::cgroup::Group;
use crate::limits;
use crate::pairs::Options;
use crate::veth::{INTERFACE, Link, Pin, SERVER, Side};

/// Which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// perfdhcp, which speaks as a relay that knows the server. It handles all answers that have come before it begins three
    /// more exchanges at most, so with a server that answers at once it begins no more than it can finish; one that answers
    /// late lets it begin them all. What it began decides whether a rate was reached, as much as what it lost.
    Perfdhcp,
    /// `loadgen dhcp`, which speaks as the machines themselves, in frames of their own.
    Loadgen,
}

/// The clients' processor.
const PROCESSOR: usize = 1;

/// What came of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken {
    /// Exchanges begun.
    pub begun: u64,
    /// Exchanges that ended with an acknowledgement.
    pub done: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// CPU seconds of the client.
    pub cpu_seconds: f64,
}

impl Taken {
    /// Whether a load of so many exchanges a second was carried: less than 1 % lost, and the client itself not behind.
    pub fn carries(&self, rate: f64, duration: Duration) -> bool {
        let wanted = rate * duration.as_secs_f64();
        self.begun as f64 >= wanted * limits::DHCP_BEGUN_MIN && self.lost() < limits::DHCP_LOST_MAX
    }

    /// The share that was lost.
    pub fn lost(&self) -> f64 {
        self.begun.saturating_sub(self.done) as f64 / (self.begun as f64).max(1.0)
    }
}

impl Client {
    /// Loads the server of a link: `rate` exchanges a second, for `duration`, then waits `patience` for the last.
    ///
    /// # Errors
    /// When the client does not run or does not tell.
    pub fn load(
        self,
        link: &Link,
        options: &Options,
        rate: f64,
        duration: Duration,
        patience: Duration,
    ) -> Result<Taken, Error> {
        let group = Group::new("client")?;
        let program = match self {
            Self::Perfdhcp => PathBuf::from("perfdhcp"),
            Self::Loadgen => options.loadgen(),
        };
        let mut command = link.confined(Side::Client, &group, Pin::Processor(PROCESSOR), &program);
        // Twice as many clients as have their turn: each exchange is of one that is new.
        let clients = (rate * duration.as_secs_f64() * 2.0).ceil().max(1.0);
        match self {
            Self::Perfdhcp => {
                // On one processor a receiving thread would only take turns with the sending one.
                command.args(["-g", "single", "-4", "-l", INTERFACE, "-r", &format!("{rate:.0}")]);
                command.args(["-R", &format!("{clients:.0}")]);
                command.args(["-p", &duration.as_secs().to_string(), "-W", &patience.as_micros().to_string()]);
                command.arg(SERVER.to_string());
            }
            Self::Loadgen => {
                command.args(["dhcp", "--interface", INTERFACE, "--rate", &format!("{rate:.0}")]);
                command.args(["--clients", &format!("{clients:.0}"), "--duration", &duration.as_secs().to_string()]);
                command.args(["--lost-after", &patience.as_secs().to_string()]);
            }
        }
        let begin = std::time::Instant::now();
        // Either ends with a failure when anything was lost, which is a result.
        let output = command.output().map_err(|source| Error::Start { command: self.word().to_owned(), source })?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let counts = match self {
            Self::Perfdhcp => perfdhcp(&answer),
            Self::Loadgen => loadgen(&answer),
        };
        let (begun, done) = counts.ok_or_else(|| Error::Answer {
            command: self.word().to_owned(),
            missing: "how many exchanges began and ended".to_owned(),
            answer: format!("{answer}{}", String::from_utf8_lossy(&output.stderr)),
        })?;
        Ok(Taken { begun, done, seconds: begin.elapsed().as_secs_f64(), cpu_seconds: group.cpu_seconds()? })
    }

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Perfdhcp => "perfdhcp",
            Self::Loadgen => "loadgen dhcp",
        }
    }
}

/// Discovers sent and acknowledgements received, each under the headline of its half of the exchange.
fn perfdhcp(answer: &str) -> Option<(u64, u64)> {
    let count = |half: &str, key: &str| {
        let rest = answer.split_once(&format!("***Statistics for: {half}***"))?.1;
        rest.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    };
    Some((count("DISCOVER-OFFER", "sent packets:")?, count("REQUEST-ACK", "received packets:")?))
}

/// The last line is `dhcp: DONE/BEGUN`.
fn loadgen(answer: &str) -> Option<(u64, u64)> {
    let (done, begun) = answer.lines().last()?.strip_prefix("dhcp: ")?.split_once('/')?;
    Some((begun.parse().ok()?, done.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clients_are_read() {
        let answer = "Rate: 999.2 4-way exchanges/second, expected rate: 1000\n\n***Statistics for: DISCOVER-OFFER***\n\
                      sent packets: 2000\nreceived packets: 1999\ndrops: 1\n\n***Statistics for: REQUEST-ACK***\n\
                      sent packets: 1999\nreceived packets: 1990\n";
        assert_eq!(perfdhcp(answer), Some((2000, 1990)));
        assert_eq!(perfdhcp("Running: perfdhcp\n"), None);
        assert_eq!(loadgen("a table\ndhcp: 99/100\n"), Some((100, 99)));
    }

    #[test]
    fn a_rate_is_carried_when_little_is_lost_and_the_client_keeps_up() {
        let taken = |begun, done| Taken { begun, done, seconds: 2.0, cpu_seconds: 0.0 };
        let two = Duration::from_secs(2);
        assert!(taken(2000, 1990).carries(1000.0, two));
        assert!(!taken(2000, 1970).carries(1000.0, two), "1.5 % lost");
        assert!(!taken(1800, 1800).carries(1000.0, two), "the client was too slow");
    }
}
