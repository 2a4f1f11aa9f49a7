//! The generators' part of the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bootstorm_proto::dns::query::Recursion;
use bootstorm_proto::http::server::Connection;
use clap::{Args, Subcommand, ValueEnum};

use super::nodes::units::{Rate, Seconds};
use crate::generate::saturate::Search;
use crate::generate::{Clock, Error, Outcome, answer, dhcp, dhcp6, dns, http, tftp};
use crate::limits;
use crate::report::{Files, Live, Run};

/// One protocol at a time.
#[derive(Subcommand)]
pub enum Generate {
    /// Asks for leases from many MAC addresses: whole DHCP exchanges, renewals, releases.
    #[command(after_help = DHCP_EXAMPLES)]
    Dhcp(DhcpArguments),
    /// Asks a DNS server about many names over many sockets, and checks the answers.
    #[command(after_help = DNS_EXAMPLES)]
    Dns(DnsArguments),
    /// Asks a web server for the same again and again, over many connections.
    #[command(after_help = HTTP_EXAMPLES)]
    Http(HttpArguments),
    /// Asks for addresses by DHCPv6 with many identifiers: whole exchanges, renewals, releases.
    #[command(after_help = DHCP6_EXAMPLES)]
    Dhcp6(Dhcp6Arguments),
    /// Asks for what a machine's first boot asks for, in cloud-init's, EC2's or MAAS' way.
    #[command(after_help = METADATA_EXAMPLES)]
    Metadata(MetadataArguments),
    /// Calls Bootstorm's native API: a mix of questions, and machines allocated and released.
    #[command(after_help = API_EXAMPLES)]
    Api(ApiArguments),
    /// Reads one file by TFTP with many clients.
    #[command(after_help = TFTP_EXAMPLES)]
    Tftp(TftpArguments),
    /// Calibrates the generators: a server that knows one answer. It is no DHCP, DNS, HTTP or TFTP server.
    #[command(hide = true, subcommand)]
    Answer(AnswerArguments),
}

const DHCP_EXAMPLES: &str = "\
Examples:
  loadgen dhcp --interface veth0 --clients 20000 --rate 5000/s --duration 30s
      5,000 exchanges begun every second, by 20,000 machines in turn
  loadgen dhcp --interface veth0 --clients 100000 --saturate
      finds the highest rate at which less than 1 % is lost
  loadgen dhcp --interface veth0 --clients 5000 --rate 1000/s --duration 60s --renew 0.8
      four turns in five of a machine that has a lease prolong it

A turn has failed when its exchange has not ended after --lost-after, or was refused; nothing is sent twice. The last line
is `dhcp: DONE/BEGUN`; it exits with 0 only when both are the same.";

const DNS_EXAMPLES: &str = "\
Examples:
  loadgen dns --server 192.0.2.1:53 --outstanding 200 --duration 10s
      20,000 names h0.example.test to h19999.example.test, 200 questions outstanding all the time
  loadgen dns --server 192.0.2.1:53 --names queries.txt --rate 50000/s --duration 30s
      what a file for dnsperf names, 50,000 questions a second
  loadgen dns --server 192.0.2.1:53 --zone lab.test --count 1000 --nxdomain 5% --random
      one question in twenty about a name that does not exist

Each answer's number, question and code are checked. The last line is `dns: DONE/BEGUN`.";

const HTTP_EXAMPLES: &str = "\
Examples:
  loadgen http --url http://192.0.2.1:5248/files/vmlinuz --connections 64 --duration 10s
      as fast as it is answered
  loadgen http --url http://192.0.2.1/ --connections 1000 --rate 20000/s --close
      20,000 connections a second, one request each; times count from when a request was due
  loadgen http --url http://192.0.2.1/image --connections 100 --bodies copy
      bodies copied, as a program that uses them would

The last line is `http: DONE/BEGUN`.";

const TFTP_EXAMPLES: &str = "\
Examples:
  loadgen tftp --server 192.0.2.1:69 --file boot.efi --clients 100 --duration 10s
      a hundred clients in lock-step, blocks of 1,468 bytes
  loadgen tftp --server 192.0.2.1:69 --file boot.efi --clients 100 --window 64 --gro
      windows of 64 blocks, received as a network card that joins them would hand them over

The last line is `tftp: DONE/BEGUN`.";

const DHCP6_EXAMPLES: &str = "\
Examples:
  loadgen dhcp6 --interface veth0 --clients 20000 --rate 2000/s --duration 30s
      2,000 exchanges begun every second, by 20,000 clients in turn
  loadgen dhcp6 --interface veth0 --clients 500 --rate 100/s --duid uuid --boot
      as boot firmware asks, for the URL of a boot file too

The interface needs a link-local address. The last line is `dhcp6: DONE/BEGUN`.";

const METADATA_EXAMPLES: &str = "\
Examples:
  loadgen metadata --url http://192.0.2.1:8000/ab12cd/ --style nocloud --header-file credential.txt --rate 500/s
      the four files of NoCloud below the URL, with the credential that the file holds as `NAME: VALUE`
  loadgen metadata --url http://169.254.169.254/ --style ec2 --connections 100
      as fast as it is answered

Plain HTTP only. The last line is `metadata: DONE/BEGUN`.";

const API_EXAMPLES: &str = "\
Examples:
  loadgen api --url http://127.0.0.1:5240 --token-file site/admin.token --rate 200/s --duration 30s
      the usual mix: machines=8,status=4,events=2,operations=2,allocate=1
  loadgen api --url http://127.0.0.1:5240 --token-file site/admin.token --calls machines=1 --connections 32
      nothing but the list of machines, as fast as it is answered

Each allocation is followed by a release of what it gave. Plain HTTP only, which control speaks on loopback. The last line
is `api: DONE/BEGUN`.";

/// `loadgen dhcp6`.
#[derive(Args)]
pub struct Dhcp6Arguments {
    /// Interface that faces the server.
    #[arg(long, value_name = "IF")]
    interface: String,
    /// Clients that take turns.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CLIENTS_MAX)))]
    clients: u32,
    /// Exchanges begun a second, as `500` or `500/s`.
    #[arg(long, value_name = "R/s", default_value = "1000/s")]
    rate: Rate,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value = "10s")]
    duration: Seconds,
    /// Share of the turns in which a client that has a lease prolongs it.
    #[arg(long, value_name = "FRACTION", default_value = "0")]
    renew: Share,
    /// Give each address back as soon as it is leased.
    #[arg(long, conflicts_with = "renew")]
    release: bool,
    /// Kind of the clients' identifiers.
    #[arg(long, value_enum, default_value = "ll")]
    duid: dhcp6::Identifier,
    /// Ask as boot firmware does (options 59 to 62).
    #[arg(long)]
    boot: bool,
    /// Time after which an exchange counts as lost.
    #[arg(long, value_name = "SECONDS", default_value = "2s")]
    lost_after: Seconds,
    /// Decides identifiers and transaction ids.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    files: Files,
}

/// Requests over HTTP as a load.
#[derive(Args)]
struct Requests {
    /// Connections.
    #[arg(long, value_name = "C", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// Requests a second by due time, as `500` or `500/s`; without, as fast as they are answered.
    #[arg(long, value_name = "R/s")]
    rate: Option<Rate>,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value = "10s")]
    duration: Seconds,
    /// Time after which a request counts as lost.
    #[arg(long, value_name = "SECONDS", default_value = "10s")]
    lost_after: Seconds,
    /// Decides which request comes next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    files: Files,
}

/// `loadgen metadata`.
#[derive(Args)]
pub struct MetadataArguments {
    /// Below what to ask.
    #[arg(long)]
    url: http::url::Url,
    /// Whose paths.
    #[arg(long, value_enum, default_value = "nocloud")]
    style: http::text::Style,
    /// File of lines `NAME: VALUE` to send with each request, such as the machine's credential.
    #[arg(long, value_name = "FILE")]
    header_file: Option<PathBuf>,
    #[command(flatten)]
    requests: Requests,
}

/// `loadgen api`.
#[derive(Args)]
pub struct ApiArguments {
    /// Where control serves its API.
    #[arg(long)]
    url: http::url::Url,
    /// File with the token.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// What to call how often: status, machines, images, subnets, events, operations, racks, allocate.
    #[arg(long, value_name = "NAME=WEIGHT,...", default_value = http::text::API_CALLS)]
    calls: String,
    #[command(flatten)]
    requests: Requests,
}

/// `loadgen dhcp`.
#[derive(Args)]
pub struct DhcpArguments {
    /// Interface that faces the server.
    #[arg(long, value_name = "IF")]
    interface: String,
    /// Machines that take turns.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CLIENTS_MAX)))]
    clients: u32,
    /// Exchanges begun a second, as `500` or `500/s`; with --saturate where the search begins.
    #[arg(long, value_name = "R/s", default_value = "1000/s")]
    rate: Rate,
    /// For how long; with --saturate of each step.
    #[arg(long, value_name = "SECONDS", default_value = "10s")]
    duration: Seconds,
    /// Share of the turns in which a machine that has a lease prolongs it.
    #[arg(long, value_name = "FRACTION", default_value = "0")]
    renew: Share,
    /// Give each address back as soon as it is leased.
    #[arg(long, conflicts_with = "renew")]
    release: bool,
    /// Find the highest rate at which less than 1 % is lost.
    #[arg(long)]
    saturate: bool,
    /// Time after which an exchange counts as lost.
    #[arg(long, value_name = "SECONDS", default_value = "1s")]
    lost_after: Seconds,
    /// Decides MAC addresses and transaction ids.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    files: Files,
}

/// `loadgen dns`.
#[derive(Args)]
pub struct DnsArguments {
    /// The server.
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: SocketAddr,
    /// `synthetic`, or a file of lines `NAME TYPE`.
    #[arg(long, value_name = "FILE|synthetic", default_value = "synthetic")]
    names: PathBuf,
    /// Zone of synthetic names, and of those that do not exist.
    #[arg(long, default_value = "example.test")]
    zone: String,
    /// How many synthetic names.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    count: u32,
    /// Questions a second by due time, as `500` or `500/s`.
    #[arg(long, value_name = "R/s", conflicts_with = "outstanding")]
    rate: Option<Rate>,
    /// Without a rate: questions outstanding all the time.
    #[arg(long, value_name = "Q", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    outstanding: u32,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value = "10s")]
    duration: Seconds,
    /// Share of the questions about names that do not exist.
    #[arg(long, value_name = "FRACTION", default_value = "0")]
    nxdomain: Share,
    /// Take names by lottery instead of in turn.
    #[arg(long)]
    random: bool,
    /// Ask the server to find out what it does not know.
    #[arg(long)]
    recursion: bool,
    /// Sockets.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    sockets: u32,
    /// Time after which a question counts as lost.
    #[arg(long, value_name = "SECONDS", default_value = "2s")]
    lost_after: Seconds,
    /// Decides names, where a lottery does.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    files: Files,
}

/// `loadgen http`.
#[derive(Args)]
pub struct HttpArguments {
    /// What to ask for.
    #[arg(long)]
    url: http::url::Url,
    /// Connections.
    #[arg(long, value_name = "C", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// Requests a second by due time, as `500` or `500/s`; without, as fast as they are answered.
    #[arg(long, value_name = "R/s")]
    rate: Option<Rate>,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value = "10s")]
    duration: Seconds,
    /// Ask again on the same connection (the default).
    #[arg(long, conflicts_with = "close")]
    keepalive: bool,
    /// One connection for each request.
    #[arg(long)]
    close: bool,
    /// What to do with bodies.
    #[arg(long, value_enum, default_value = "trunc")]
    bodies: http::Bodies,
    /// Time after which a request counts as lost.
    #[arg(long, value_name = "SECONDS", default_value = "10s")]
    lost_after: Seconds,
    #[command(flatten)]
    files: Files,
}

/// `loadgen tftp`.
#[derive(Args)]
pub struct TftpArguments {
    /// The server.
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: SocketAddr,
    /// The file's name.
    #[arg(long)]
    file: String,
    /// Clients, each with one transfer at a time.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    clients: u32,
    /// Blocks of a window (RFC 7440).
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Bytes of a block (RFC 2348).
    #[arg(long, value_name = "B", default_value_t = 1_468, value_parser = clap::value_parser!(u16).range(8..=65_464))]
    blksize: u16,
    /// Let the kernel join the datagrams of a burst (UDP_GRO).
    #[arg(long)]
    gro: bool,
    /// Transfers a second by due time; without, the next as soon as one has ended.
    #[arg(long, value_name = "R/s")]
    rate: Option<Rate>,
    /// For how long transfers are begun.
    #[arg(long, value_name = "SECONDS", default_value = "10s")]
    duration: Seconds,
    /// Time before a packet is sent again.
    #[arg(long, value_name = "SECONDS", default_value = "1s")]
    timeout: Seconds,
    #[command(flatten)]
    files: Files,
}

/// `loadgen answer`.
#[derive(Subcommand)]
pub enum AnswerArguments {
    /// Offers and acknowledges whatever is asked for. Calibration only.
    Dhcp {
        /// Interface to answer on.
        #[arg(long, value_name = "IF")]
        interface: String,
    },
    /// Answers every question with one address, or that the name does not exist if it begins with `nx-`. Calibration only.
    Dns {
        /// Where to listen.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
    },
    /// Answers every request with one body. Calibration only.
    Http {
        /// Where to listen.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// Bytes of the body: what an empty socket buffer takes at once.
        #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(..=(8 << 10)))]
        bytes: u32,
    },
    /// Sends one file out of memory, whatever it is called. Calibration only.
    Tftp {
        /// Where to listen.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// Bytes of the file.
        #[arg(long, default_value_t = 16 << 20, value_parser = clap::value_parser!(u32).range(..=(1 << 30)))]
        bytes: u32,
    },
}

/// A share of a whole, as `0.05` or `5%`.
#[derive(Clone, Copy)]
pub struct Share(f64);

impl FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Share, String> {
        let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
        let share = number.parse().ok().map(|number: f64| number / unit);
        share.filter(|share| (0.0..=1.0).contains(share)).map(Share).ok_or("expected such as `0.05` or `5%`".to_owned())
    }
}

/// Below this share of losses a rate counts as kept.
const LOSS_MAX: f64 = 0.01;

/// Runs it; whether all that was begun came to a good end.
pub fn run(generate: &Generate) -> Result<bool, String> {
    match generate {
        Generate::Dhcp(arguments) => run_dhcp(arguments),
        Generate::Dns(arguments) => run_dns(arguments),
        Generate::Http(arguments) => run_http(arguments),
        Generate::Tftp(arguments) => run_tftp(arguments),
        Generate::Dhcp6(arguments) => run_dhcp6(arguments),
        Generate::Metadata(arguments) => run_metadata(arguments),
        Generate::Api(arguments) => run_api(arguments),
        Generate::Answer(arguments) => run_answer(arguments).map(|()| true).map_err(|error| error.to_string()),
    }
}

fn run_dhcp(arguments: &DhcpArguments) -> Result<bool, String> {
    let settings = dhcp::Settings {
        interface: arguments.interface.clone(),
        clients: arguments.clients,
        rate_per_second: arguments.rate.0,
        duration: arguments.duration.0,
        renew: arguments.renew.0,
        release: arguments.release,
        lost_after: arguments.lost_after.0,
        seed: arguments.seed,
    };
    let run = |rate: f64| {
        Run::new("dhcp", None, settings.seed)
            .with("interface", Some(&settings.interface))
            .with("clients", Some(settings.clients))
            .with("rate", Some(rate))
            .with("duration", Some(settings.duration.as_secs()))
            .with("renew", (settings.renew > 0.0).then_some(settings.renew))
            .with("release", settings.release.then_some(true))
            .with("lost-after", Some(settings.lost_after.as_secs()))
    };
    let mut link = dhcp::Link::open(&settings.interface, settings.renew > 0.0).map_err(|error| error.to_string())?;
    if !arguments.saturate {
        let outcome = watched("dhcp", |clock| dhcp::play(&settings, &mut link, clock))?;
        return finish(outcome, run(arguments.rate.0), &arguments.files);
    }
    let mut clock = Clock::new(Live::hidden()).map_err(|error| error.to_string())?;
    let mut step = |rate: f64, seed: u64| {
        if clock.is_stopped() {
            return Ok(None);
        }
        let settings = dhcp::Settings { rate_per_second: rate, seed, ..settings.clone() };
        dhcp::play(&settings, &mut link, &mut clock).map(Some).map_err(|error| error.to_string())
    };
    let (rate, outcome) = saturate(arguments.rate.0, arguments.seed, &mut step)?;
    println!("saturate: {rate:.0}/s with less than {:.0} % lost", LOSS_MAX * 100.0);
    finish(outcome, run(rate), &arguments.files)
}

/// Searches for the highest rate that is kept; that rate, and what came of it. Each step has machines of its own, so that the
/// leases of one are not in the way of the next; a step that gives nothing ends the search.
fn saturate(
    first: f64,
    seed: u64,
    step: &mut impl FnMut(f64, u64) -> Result<Option<Outcome>, String>,
) -> Result<(f64, Outcome), String> {
    let mut search = Search::new(first);
    let mut best = None;
    let mut steps = 0;
    while let Some(rate) = search.next_rate() {
        let Some(outcome) = step(rate, seed + steps)? else { break };
        steps += 1;
        let is_kept = outcome.lost() < LOSS_MAX;
        println!(
            "step {rate:>10.0}/s  {:>6.2} % lost, {:.0}/s done, starts at most {:.1} ms late",
            outcome.lost() * 100.0,
            outcome.done as f64 / outcome.wall.as_secs_f64(),
            outcome.late.as_secs_f64() * 1e3,
        );
        search.handle(is_kept);
        if is_kept {
            best = Some(outcome);
        }
    }
    search
        .best()
        .zip(best)
        .ok_or_else(|| format!("no rate from {first:.0}/s downwards is kept with less than 1 % lost"))
}

fn run_dns(arguments: &DnsArguments) -> Result<bool, String> {
    let names = if arguments.names.as_os_str() == "synthetic" {
        dns::Names::Synthetic { count: arguments.count, zone: arguments.zone.clone() }
    } else {
        dns::Names::File(arguments.names.clone())
    };
    let load = match arguments.rate {
        Some(Rate(rate)) => dns::Load::Rate(rate),
        None => dns::Load::Outstanding(arguments.outstanding),
    };
    let settings = dns::Settings {
        server: arguments.server,
        names,
        load,
        duration: arguments.duration.0,
        nonexistent: arguments.nxdomain.0,
        zone: arguments.zone.clone(),
        random: arguments.random,
        recursion: if arguments.recursion { Recursion::Desired } else { Recursion::NotDesired },
        sockets: arguments.sockets,
        lost_after: arguments.lost_after.0,
        seed: arguments.seed,
    };
    let run = Run::new("dns", None, settings.seed)
        .with("server", Some(settings.server))
        .with("names", Some(arguments.names.display()))
        .with("rate", arguments.rate.map(|Rate(rate)| rate))
        .with("outstanding", arguments.rate.is_none().then_some(arguments.outstanding))
        .with("nxdomain", Some(settings.nonexistent))
        .with("sockets", Some(settings.sockets));
    let outcome = watched("dns", |clock| dns::play(&settings, clock))?;
    finish(outcome, run, &arguments.files)
}

fn run_http(arguments: &HttpArguments) -> Result<bool, String> {
    let (keep, connection) = match arguments.close {
        true => (http::Keep::Close, Connection::Close),
        false => (http::Keep::Alive, Connection::KeepAlive),
    };
    let url = &arguments.url;
    let octets = http::text::get(url, &url.target, &[], connection)?;
    let settings = http::Settings {
        server: url.server,
        requests: vec![http::Request { octets, stage: http::RESPONSE, weight: 1, follow: None }],
        stages: http::STAGES,
        connections: arguments.connections,
        rate_per_second: arguments.rate.map(|Rate(rate)| rate),
        duration: arguments.duration.0,
        keep,
        bodies: arguments.bodies,
        lost_after: arguments.lost_after.0,
        seed: 1,
    };
    let run = Run::new("http", None, settings.seed)
        .with("url", Some(format!("http://{}{}", url.host, url.target)))
        .with("connections", Some(settings.connections))
        .with("rate", settings.rate_per_second)
        .with("close", arguments.close.then_some(true))
        .with("bodies", arguments.bodies.to_possible_value().map(|value| value.get_name().to_owned()));
    let outcome = watched("http", |clock| http::play(&settings, clock))?;
    finish(outcome, run, &arguments.files)
}

fn run_tftp(arguments: &TftpArguments) -> Result<bool, String> {
    let settings = tftp::Settings {
        server: arguments.server,
        file: arguments.file.clone(),
        clients: arguments.clients,
        window_blocks: arguments.window,
        block_bytes: arguments.blksize,
        coalescing: if arguments.gro { tftp::Coalescing::On } else { tftp::Coalescing::Off },
        rate_per_second: arguments.rate.map(|Rate(rate)| rate),
        duration: arguments.duration.0,
        timeout: arguments.timeout.0,
    };
    let run = Run::new("tftp", None, 0)
        .with("server", Some(settings.server))
        .with("file", Some(&settings.file))
        .with("clients", Some(settings.clients))
        .with("window", Some(settings.window_blocks))
        .with("blksize", Some(settings.block_bytes))
        .with("gro", arguments.gro.then_some(true))
        .with("rate", settings.rate_per_second);
    let outcome = watched("tftp", |clock| tftp::play(&settings, clock))?;
    finish(outcome, run, &arguments.files)
}

fn run_dhcp6(arguments: &Dhcp6Arguments) -> Result<bool, String> {
    let settings = dhcp6::Settings {
        interface: arguments.interface.clone(),
        clients: arguments.clients,
        rate_per_second: arguments.rate.0,
        duration: arguments.duration.0,
        renew: arguments.renew.0,
        release: arguments.release,
        identifier: arguments.duid,
        boot: arguments.boot,
        lost_after: arguments.lost_after.0,
        seed: arguments.seed,
    };
    let run = Run::new("dhcp6", None, settings.seed)
        .with("interface", Some(&settings.interface))
        .with("clients", Some(settings.clients))
        .with("rate", Some(settings.rate_per_second))
        .with("renew", (settings.renew > 0.0).then_some(settings.renew))
        .with("release", settings.release.then_some(true))
        .with("boot", settings.boot.then_some(true));
    let outcome = watched("dhcp6", |clock| dhcp6::play(&settings, clock))?;
    finish(outcome, run, &arguments.files)
}

fn run_metadata(arguments: &MetadataArguments) -> Result<bool, String> {
    let text = arguments.header_file.as_deref().map(read).transpose()?.unwrap_or_default();
    let headers = http::text::headers(&text)?;
    let requests = http::text::metadata(&arguments.url, arguments.style, &headers)?;
    run_requests("metadata", &arguments.url, requests, http::text::METADATA_STAGES, &arguments.requests)
}

fn run_api(arguments: &ApiArguments) -> Result<bool, String> {
    let requests = http::text::api(&arguments.url, &read(&arguments.token_file)?, &arguments.calls)?;
    run_requests("api", &arguments.url, requests, http::text::API_STAGES, &arguments.requests)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("reading `{}`: {error}", path.display()))
}

fn run_requests(
    scenario: &str,
    url: &http::url::Url,
    requests: Vec<http::Request>,
    stages: &'static [&'static str],
    arguments: &Requests,
) -> Result<bool, String> {
    let settings = http::Settings {
        server: url.server,
        requests,
        stages,
        connections: arguments.connections,
        rate_per_second: arguments.rate.map(|Rate(rate)| rate),
        duration: arguments.duration.0,
        keep: http::Keep::Alive,
        bodies: http::Bodies::Copy,
        lost_after: arguments.lost_after.0,
        seed: arguments.seed,
    };
    let run = Run::new(scenario, None, settings.seed)
        .with("url", Some(format!("http://{}{}", url.host, url.target)))
        .with("connections", Some(settings.connections))
        .with("rate", settings.rate_per_second);
    let outcome = watched(scenario, |clock| http::play(&settings, clock))?;
    finish(outcome, run, &arguments.files)
}

/// Prints the report and writes it where it was asked for; whether all that was begun came to a good end.
fn finish(outcome: Outcome, mut run: Run, files: &Files) -> Result<bool, String> {
    run.expected = Some(outcome.started);
    run.finish(outcome.wall, outcome.late);
    let report = outcome.recorder.into_report(run);
    files.publish(&report).map_err(|error| error.to_string())?;
    Ok(report.is_complete())
}

/// Plays one protocol and shows how it stands.
fn watched(scenario: &str, play: impl FnOnce(&mut Clock) -> Result<Outcome, Error>) -> Result<Outcome, String> {
    let mut clock = Clock::new(Live::new(scenario)).map_err(|error| error.to_string())?;
    let outcome = play(&mut clock).map_err(|error| error.to_string());
    clock.finish();
    outcome
}

fn run_answer(arguments: &AnswerArguments) -> Result<(), Error> {
    let clock = Clock::new(Live::hidden())?;
    match arguments {
        AnswerArguments::Dhcp { interface } => answer::dhcp::serve(interface, &clock),
        AnswerArguments::Dns { listen } => answer::dns::serve(*listen, &clock),
        AnswerArguments::Http { listen, bytes } => answer::http::serve(*listen, *bytes as usize, &clock),
        AnswerArguments::Tftp { listen, bytes } => answer::tftp::serve(*listen, *bytes as usize, &clock),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Arguments;
    use super::*;
    use clap::Parser;

    #[test]
    fn the_examples_of_single_protocols_parse() {
        let all = [
            DHCP_EXAMPLES,
            DNS_EXAMPLES,
            HTTP_EXAMPLES,
            TFTP_EXAMPLES,
            DHCP6_EXAMPLES,
            METADATA_EXAMPLES,
            API_EXAMPLES,
        ]
        .join("\n");
        let examples: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("  loadgen ")).collect();
        assert_eq!(examples.len(), 17);
        for example in examples {
            let words = std::iter::once("loadgen").chain(example.split_whitespace());
            assert!(Arguments::try_parse_from(words).is_ok(), "{example}");
        }
    }

    #[test]
    fn shares_are_fractions_or_per_cent() {
        assert_eq!("5%".parse::<Share>().unwrap().0, "0.05".parse::<Share>().unwrap().0);
        assert!("5".parse::<Share>().is_err() && "101%".parse::<Share>().is_err() && "x".parse::<Share>().is_err());
    }

    /// A server that keeps up to 5,000 a second and loses the half of more.
    #[test]
    fn a_search_reports_the_rate_it_kept() {
        let mut step = |rate: f64, _| {
            let started = rate as u64;
            let done = if rate <= 5_000.0 { started } else { started / 2 };
            let recorder = crate::report::Recorder::new(dhcp::STAGES);
            let wall = std::time::Duration::from_secs(1);
            Ok(Some(Outcome { recorder, started, done, wall, late: std::time::Duration::ZERO }))
        };
        let (rate, outcome) = saturate(1_000.0, 1, &mut step).unwrap();
        assert!((4_750.0..=5_000.0).contains(&rate) && outcome.done == rate as u64, "{rate}");
        assert!(saturate(1_000.0, 1, &mut |_, _| Ok(None)).is_err(), "stopped before the first step");
    }
}
