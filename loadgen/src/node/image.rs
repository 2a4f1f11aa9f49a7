//! The image: range by range or whole, and resumed where it broke off; then metadata and the signal, for boots that
//! have no agent.

use std::time::Duration;

use bootstorm_proto::http::server::Method;

use super::transfer::{Purpose, Request, request};
use super::{Ending, Node, Security, Stage};
use crate::agent;
use crate::fetch::Response;
use crate::limits::RANGE_BYTES;
use crate::reason::Reason;
use crate::script::{Location, Url};
use crate::verify::{Image, Sink, Verifier};

/// An image on its way.
pub(super) struct Download {
    url: Url,
    /// Bytes that have come.
    next: u64,
    /// Bytes there are; known from the manifest, or from the first answer.
    total: Option<u64>,
    pub(super) verifier: Option<Box<Verifier>>,
}

impl Download {
    pub(super) fn new(url: Url, total: Option<u64>, verifier: Option<Box<Verifier>>) -> Download {
        Download { url, next: 0, total, verifier }
    }

    /// The next range; `None` when all has come.
    fn range(&self) -> Option<(u64, Option<u64>)> {
        let end = self.next + RANGE_BYTES;
        match self.total {
            Some(total) if self.next >= total => None,
            Some(total) => Some((self.next, Some(end.min(total)))),
            None => Some((self.next, Some(end))),
        }
    }
}

impl Node {
    /// Begins with the image that every node of the run fetches.
    pub(super) fn start_image(&mut self, now: Duration) -> Result<(), Reason> {
        self.enter(now, Stage::Image);
        let source = self.settings.image.as_ref().ok_or(Reason::Answer)?;
        let verifier = match self.verifies {
            true => {
                let sink = Sink::open(&self.settings.sink, self.start.mac)?;
                Some(Box::new(Verifier::Image(Image::new(source, sink)?)))
            }
            false => None,
        };
        self.download = Some(Box::new(Download::new(source.url.clone(), None, verifier)));
        self.download_next(now)
    }

    /// Asks for the next part, or ends the stage.
    pub(super) fn download_next(&mut self, now: Duration) -> Result<(), Reason> {
        let download = self.download.as_ref().ok_or(Reason::Answer)?;
        let Some(range) = download.range() else { return self.downloaded(now) };
        let range = Some(range).filter(|_| !self.settings.image_whole);
        let request = self.request(&download.url, Method::Get, range, Purpose::Part)?;
        self.send(now, request)
    }

    /// A part has come whole.
    pub(super) fn part_came(&mut self, now: Duration, response: Response) -> Result<(), Reason> {
        let download = self.download.as_mut().ok_or(Reason::Answer)?;
        download.verifier = response.verifier;
        match (response.status, response.part) {
            // All of it, because all was asked for or because the server knows no ranges.
            (200, _) if download.next == 0 => {
                if download.total.is_some_and(|total| total != response.body_bytes) {
                    return Err(Reason::Range);
                }
                download.total = Some(response.body_bytes);
            }
            (206, Some((first, _, total))) if first == download.next && response.body_bytes > 0 => {
                if let (Some(known), Some(told)) = (download.total, total)
                    && known != told
                {
                    return Err(Reason::Range);
                }
                download.total = download.total.or(total);
                // Whoever does not say how much there is cannot be asked for the rest.
                download.total.ok_or(Reason::Range)?;
            }
            _ => return Err(Reason::Range),
        }
        download.next += response.body_bytes;
        self.download_next(now)
    }

    /// A part broke off: what has come is kept, and the rest asked for.
    pub(super) fn part_broke(&mut self, broken: &mut Request, response: Response) -> Result<(), Reason> {
        self.bytes += response.body_bytes;
        let download = self.download.as_mut().ok_or(Reason::Answer)?;
        download.verifier = response.verifier;
        if response.body_bytes == 0 {
            return Ok(());
        }
        match (response.status, response.part) {
            (206, Some((first, _, total))) if first == download.next => {
                download.next += response.body_bytes;
                download.total = download.total.or(total);
            }
            // One that was asked for whole cannot be gone on with.
            _ => return Err(Reason::Closed),
        }
        let range = download.range().ok_or(Reason::Closed)?;
        let url = download.url.clone();
        // What made progress may be tried as often as before.
        *broken = self.request(&url, Method::Get, Some(range), Purpose::Part)?;
        Ok(())
    }

    /// All parts have come.
    fn downloaded(&mut self, now: Duration) -> Result<(), Reason> {
        if let Some(download) = self.download.take()
            && let Some(verifier) = download.verifier
        {
            verifier.finish()?;
        }
        if self.install.is_some() {
            return self.written(now);
        }
        match self.settings.metadata.clone() {
            Some(url) => {
                self.enter(now, Stage::Metadata);
                let url = self.own(url);
                self.fetch(now, &Location::Http(url), Purpose::Metadata)
            }
            None => self.phone_home(now),
        }
    }

    /// Tells that the machine is there, if it is to.
    pub(super) fn phone_home(&mut self, now: Duration) -> Result<(), Reason> {
        let Some(url) = self.settings.phone_home.clone() else {
            self.end(now, Ending::Done);
            return Ok(());
        };
        self.enter(now, Stage::PhoneHome);
        let url = self.own(url);
        let body = format!("instance_id={}", self.mac_text());
        let bytes = agent::post(url.server, &url.target, None, agent::FORM, body.as_bytes());
        self.send(now, request(Purpose::PhoneHome, url.server, Security::Plain, Method::Get, bytes))
    }

    /// The URL with the node's own address in it.
    fn own(&self, url: Url) -> Url {
        Url { target: url.target.replace("{mac}", &self.mac_text()), ..url }
    }

    fn mac_text(&self) -> String {
        self.start.mac.map(|byte| format!("{byte:02x}")).join("-")
    }
}
