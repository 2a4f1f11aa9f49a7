//! Every bound of this crate: unit, reason, and how it relates to its neighbours.

use core::time::Duration;

/// Seconds that a short lease goes on when its agent has said that it leaves: its last words still need the address.
pub const GIVEN_BACK_SECONDS: u64 = 30;
/// Offers open at a time. An offer is a promise of 30 s to a MAC address that anybody may invent (threat model T7).
/// So many are asked for by a hall of machines that comes back from a power cut; each takes about 250 octets.
pub const OFFERS_MAX: usize = 1 << 17;
/// Offers open to machines that nobody knows: the rest is for known ones without a fixed address.
pub const OFFERS_UNKNOWN_MAX: usize = OFFERS_MAX / 4 * 3;
/// How long an offered address is kept for the client: longer than any firmware waits before its Request.
pub const OFFER_LIFE: Duration = Duration::from_secs(30);
/// Leases in the table, ended ones included (they are remembered until their address is needed): about 130 octets each.
pub const LEASES_MAX: usize = 1 << 20;
/// Addresses that the unknown machines behind one relay's circuit or port (option 82) may hold (T7).
pub const UNKNOWN_LEASES_PER_CIRCUIT_MAX: u32 = 64;
/// Addresses looked at for a free one before the search is given up for this request.
pub const ADDRESS_SEARCH_MAX: usize = 65_536;
/// How long a range without a never used address is not searched again: that is the dearest thing a Discover can cause.
pub const EXHAUSTED_PAUSE: Duration = Duration::from_secs(1);
/// Seconds for which a declined address is not given out.
pub const QUARANTINE_SECONDS: u64 = 600;
/// Addresses in quarantine at a time; more would let one host empty a range by declining.
pub const QUARANTINE_MAX: usize = 1024;

/// Unknown machines in enrolment at a time.
pub const ENROLMENTS_MAX: usize = 16_384;
/// Seconds that an unredeemed claim lives (threat model T3).
pub const CLAIM_SECONDS_MAX: u64 = 30 * 60;
/// Silence after which an agent is taken for gone (T3).
pub const AGENT_SILENCE: Duration = Duration::from_secs(30);
/// Attempts of one operation (T3).
pub const ATTEMPTS_PER_OPERATION_MAX: u32 = 3;
/// How long a request for the plan may be held.
pub const PLAN_WAIT_MAX: Duration = Duration::from_secs(20);
/// Requests for a plan held open at a time; the gateway has fewer in flight.
pub const HELD_PLANS_MAX: usize = 8192;
/// Pause between two alarms about the same machine and matter.
pub const ALARM_PAUSE: Duration = Duration::from_secs(60);

/// Octets a second below which one more transfer only slows the others: a disk writes faster, and an image of 1 GiB would take
/// more than two minutes.
pub const TRANSFER_BYTES_PER_SECOND_MIN: u64 = 8 << 20;
/// Transfers that may be under way whatever was measured: the first ones are what is measured.
pub const TRANSFERS_MIN: u32 = 8;
/// Transfers under way, and places of one pool, at most: more machines than a rack serves.
pub const ADMISSIONS_MAX: usize = 16_384;
/// Shortest wait that a machine is told: asking more often than that costs more than it wins.
pub const ADMISSION_WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest: what is known about the rate is not worth more.
pub const ADMISSION_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long after it was to come back a machine loses its place.
pub const PLACE_GRACE: Duration = Duration::from_secs(15);
/// A transfer of which nothing was heard for so long is over: between two ranges an agent only writes.
pub const TRANSFER_SILENCE: Duration = Duration::from_secs(30);
/// Shortest time over which a rate is measured.
pub const ADMISSION_MEASURE: Duration = Duration::from_millis(500);
/// How long a rate that was reached counts, before half of it is forgotten.
pub const ADMISSION_HALF_LIFE: Duration = Duration::from_secs(60);

/// Observations kept until control has acknowledged them.
pub const SPOOL_OBSERVATIONS_MAX: usize = 131_072;
/// Octets of the kept observations.
pub const SPOOL_BYTES_MAX: usize = 128 << 20;
/// Observations of stages and leases stop being kept at this share (in percent) of the spool, so that results fit.
pub const SPOOL_MINOR_PERCENT_MAX: usize = 75;

/// Records handed to the journal and not yet durable. At this number requests that need one are refused or dropped.
pub const UNCOMMITTED_RECORDS_MAX: u64 = 4096;
/// The same for machines in enrolment that have been given a claim.
pub const UNCOMMITTED_RECORDS_REDEEMING_MAX: u64 = UNCOMMITTED_RECORDS_MAX / 8 * 7;
/// The same for others in enrolment.
pub const UNCOMMITTED_RECORDS_ENROLLED_MAX: u64 = UNCOMMITTED_RECORDS_MAX / 4 * 3;
/// Records not yet durable at which machines that nobody knows are left waiting, so that known ones are not (T7).
pub const UNCOMMITTED_RECORDS_UNKNOWN_MAX: u64 = UNCOMMITTED_RECORDS_MAX / 2;
/// Octets handed to the journal and not yet durable.
pub const UNCOMMITTED_BYTES_MAX: usize = 32 << 20;

/// DHCP requests that wait for room in the journal, one for each client: three times the largest storm that is measured.
pub const WAITING_MAX: usize = 1 << 15;
/// Octets of them: half a kilobyte each, which is what firmware sends.
pub const WAITING_BYTES_MAX: usize = 16 << 20;
/// How long a request waits: UEFI waits 8 s after its second try, and what it sends then takes this one's place.
pub const WAITING_PATIENCE: Duration = Duration::from_secs(8);
/// Seconds within which the same Request again is answered from the lease that it has got, without writing anything: what is
/// sent again, and the next loader of the same boot.
pub const REPEATED_REQUEST_SECONDS: u64 = 10;

/// Records after which a batch goes to the journal between two decisions. One decision adds a handful at most.
pub const BATCH_RECORDS: usize = 256;

/// Of answers that are above the limit each so many-th goes out empty and marked as truncated, so that who really asks can come
/// again by another way.
pub const DNS_SLIP: u32 = 2;
/// Sources whose answers are counted at a time; more share their counts.
pub const DNS_SOURCES_MAX: usize = 16_384;
/// Aliases followed for one question; more are left to who asks.
pub const DNS_ALIASES_MAX: usize = 8;
/// Seconds that a cookie of ours is taken for (RFC 9018 §4.3).
pub const DNS_COOKIE_SECONDS_MAX: u32 = 3_600;
/// Seconds after which its sender gets a new one.
pub const DNS_COOKIE_SECONDS_FRESH: u32 = 1_800;
/// Seconds that a cookie may be from the future, for clocks that were set back.
pub const DNS_COOKIE_SECONDS_AHEAD: u32 = 300;

/// Seconds between two questions of a machine that has nothing to do.
pub const WAIT_SCRIPT_SECONDS: u64 = 10;
/// Octets of the site's CA certificate; a chain of certificates is far below.
pub const CA_PEM_BYTES_MAX: usize = 64 << 10;
/// Characters of a text that goes into a script.
pub const SCRIPT_TEXT_MAX: usize = 200;

const _: () =
    assert!(REPEATED_REQUEST_SECONDS < 60 / 2, "the shortest lease is renewed after half of 60 s, and extended then");
const _: () = assert!(WAITING_PATIENCE.as_secs() < OFFER_LIFE.as_secs(), "who waits must not lose its offer");
const _: () = assert!(UNCOMMITTED_RECORDS_MAX < bootstorm_journal::limits::QUEUE_REQUESTS_MAX as u64);
const _: () = assert!(UNCOMMITTED_BYTES_MAX < bootstorm_journal::limits::QUEUE_BYTES_MAX);
const _: () = assert!(BATCH_RECORDS * 2 <= bootstorm_journal::limits::BATCH_RECORDS_MAX);
const _: () = assert!(PLAN_WAIT_MAX.as_secs() < AGENT_SILENCE.as_secs(), "a held request must not look like silence");
const _: () = assert!(WAIT_SCRIPT_SECONDS < AGENT_SILENCE.as_secs());
const _: () = assert!(DNS_SOURCES_MAX.is_power_of_two());
const _: () = assert!(DNS_COOKIE_SECONDS_FRESH < DNS_COOKIE_SECONDS_MAX);
