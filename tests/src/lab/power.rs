//! A power controller in front of the guests, for the `webhook` power driver.
//!
//! `POST /GUEST/on`, `POST /GUEST/off`, `GET /GUEST/status`; the last answers
//! `{"power_state":"on","status":"running"}` or `{"power_state":"off","status":"stopped"}`, so that MAAS's usual
//! expressions match as well. With a token, requests without `Authorization: Bearer TOKEN` are refused.
//!
//! One thread serves one connection after the other and starts the guests, which therefore live as long as it does.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use super::guest::Guest;
use super::{Error, limits};

/// A guest that the power server and a test share.
pub type SharedGuest = Arc<Mutex<Guest>>;

/// What was asked of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Switch on.
    On,
    /// Cut the power.
    Off,
    /// Say the state.
    Status,
}

/// A request that the controller carried out.
#[derive(Clone, Debug)]
pub struct Request {
    /// When.
    pub at: Instant,
    /// Which guest.
    pub guest: String,
    /// What.
    pub action: Action,
}

/// The running controller. Dropping it ends its thread, and with it every guest that it switched on.
#[derive(Debug)]
pub struct PowerServer {
    address: SocketAddr,
    token: Option<String>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    guests: Mutex<BTreeMap<String, SharedGuest>>,
    requests: Mutex<Vec<Request>>,
    ending: AtomicBool,
}

impl PowerServer {
    /// Listens on `address`, any free port.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub fn start(address: Ipv4Addr, token: Option<String>) -> Result<Self, Error> {
        let failed = |source| Error::File { path: address.to_string().into(), source };
        let listener = TcpListener::bind((address, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared =
            Arc::new(Shared { guests: Mutex::default(), requests: Mutex::default(), ending: AtomicBool::new(false) });
        let thread = std::thread::Builder::new().name("power".to_owned()).spawn({
            let (shared, token) = (Arc::clone(&shared), token.clone());
            move || serve(&listener, &shared, token.as_deref())
        });
        Ok(Self { address, token, shared, thread: Some(thread.map_err(failed)?) })
    }

    /// Puts a guest behind the controller, under its name.
    pub fn add(&self, guest: Guest) -> SharedGuest {
        let name = guest.hardware.name.clone();
        let guest = Arc::new(Mutex::new(guest));
        locked(&self.shared.guests).insert(name, Arc::clone(&guest));
        guest
    }

    /// The address of one of a guest's actions: `on`, `off` or `status`.
    pub fn url(&self, guest: &str, action: &str) -> String {
        format!("http://{}/{guest}/{action}", self.address)
    }

    /// The token that requests need, if any.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Every request so far, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.shared.requests).clone()
    }

    /// Asks for an action as a person at the switch would: by the same door as everybody.
    ///
    /// # Errors
    /// When the controller refuses, with its answer.
    pub fn ask(&self, guest: &str, action: Action) -> Result<String, Error> {
        let (method, word) = match action {
            Action::On => ("POST", "on"),
            Action::Off => ("POST", "off"),
            Action::Status => ("GET", "status"),
        };
        let token = self.token.as_ref().map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let talk = || {
            let mut stream = TcpStream::connect(self.address)?;
            write!(
                stream,
                "{method} /{guest}/{word} HTTP/1.1\r\nHost: {}\r\n{token}Content-Length: 0\r\n\r\n",
                self.address
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = talk().map_err(|source| Error::File { path: self.url(guest, word).into(), source })?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(Error::Refused { request: self.url(guest, word), answer }),
        }
    }
}

impl Drop for PowerServer {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        // Wakes the thread from accept.
        let _woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Locks, whatever became of the thread that held it before: its data is whole after every statement here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn serve(listener: &TcpListener, shared: &Shared, token: Option<&str>) {
    for stream in listener.incoming() {
        if shared.ending.load(Ordering::SeqCst) {
            break;
        }
        let Ok(mut stream) = stream else { continue };
        let (status, body) = match read_head(&mut stream) {
            Some(head) => answer(&head, shared, token),
            None => ("400 Bad Request", r#"{"error":"not a request"}"#.to_owned()),
        };
        let _client_gone = write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    for guest in locked(&shared.guests).values() {
        locked(guest).power_off();
    }
}

/// Reads up to the empty line, and then the announced body, so that closing does not reset the connection.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(limits::POWER_REQUEST)).ok()?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        let read = stream.read(&mut buffer).ok()?;
        if read == 0 || bytes.len() > limits::POWER_REQUEST_BYTES {
            return None;
        }
        bytes.extend_from_slice(&buffer[..read]);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let announced = header(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0_usize);
    let mut missing = announced.min(limits::POWER_REQUEST_BYTES).saturating_sub(bytes.len() - end - 4);
    while missing > 0 {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        missing = missing.saturating_sub(read);
    }
    Some(head)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn answer(head: &str, shared: &Shared, token: Option<&str>) -> (&'static str, String) {
    let refuse = |status, why: &str| (status, serde_json::json!({ "error": why }).to_string());
    if let Some(token) = token
        && header(head, "authorization") != Some(format!("Bearer {token}").as_str())
    {
        return refuse("401 Unauthorized", "a token is needed");
    }
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some((name, word)) = path.trim_start_matches('/').split_once('/') else {
        return refuse("404 Not Found", "the path is /GUEST/on, /GUEST/off or /GUEST/status");
    };
    let Some(guest) = locked(&shared.guests).get(name).cloned() else {
        return refuse("404 Not Found", "no such guest");
    };
    let action = match (method, word) {
        ("POST" | "PUT", "on") => Action::On,
        ("POST" | "PUT", "off") => Action::Off,
        ("GET" | "POST", "status") => Action::Status,
        _ => return refuse("405 Method Not Allowed", "POST on, POST off, GET status"),
    };
    let mut guest = locked(&guest);
    let done = match action {
        Action::On => guest.power_on(),
        Action::Off => {
            guest.power_off();
            Ok(())
        }
        Action::Status => Ok(()),
    };
    if let Err(error) = done {
        return refuse("500 Internal Server Error", &error.to_string());
    }
    locked(&shared.requests).push(Request { at: Instant::now(), guest: name.to_owned(), action });
    let (state, status) = if guest.is_on() { ("on", "running") } else { ("off", "stopped") };
    ("200 OK", serde_json::json!({ "power_state": state, "status": status }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_the_token_a_known_guest_and_a_known_action() {
        let server = PowerServer::start(Ipv4Addr::LOCALHOST, Some("secret".to_owned())).unwrap();
        let refused = server.ask("nobody", Action::On).unwrap_err().to_string();
        assert!(refused.contains("404"), "{refused}");

        let head = "POST /nobody/on HTTP/1.1\r\nHost: x";
        assert_eq!(answer(head, &server.shared, Some("secret")).0, "401 Unauthorized");
        let head = "POST /nobody/on HTTP/1.1\r\nauthorization:  Bearer secret";
        assert_eq!(answer(head, &server.shared, Some("secret")).0, "404 Not Found");
        assert_eq!(answer("GET / HTTP/1.1", &server.shared, None).0, "404 Not Found");
        assert!(server.requests().is_empty());
    }
}
