//! `report --serve`: the page of runs that go on, over HTTP. Nothing is written, and nothing but the page is served.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use secateur_report::{HtmlReport, LiveRefresh, NothingToShow};
use tiny_http::{Header, Method, Request, Response, Server, StatusCode};

use crate::{Failure, screen};

/// Where the page is without an address.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:8329";
/// Seconds between two looks of the page at what is new.
const EVERY_S: u32 = 3;
/// A page is not made again before this many times the time that it took: the run needs the processor, too.
const REST: u32 = 20;

/// What `--serve` names: `ADDRESS:PORT`, or a port of this machine alone.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let named = text.strip_prefix("localhost:").unwrap_or(text);
    named.parse().map(local).or_else(|_| text.parse()).map_err(|_| {
        format!(
            "expected an address and a port such as {DEFAULT_ADDRESS}, or a port; runs are named in front of --serve"
        )
    })
}

/// Serves the page of the directories until the process is asked to end.
///
/// # Errors
/// A port that is in use or not allowed, directories with nothing to show: exit code 2.
pub(crate) fn serve(address: SocketAddr, directories: Vec<PathBuf>) -> Result<(), Failure> {
    let mut page = ServedPage::new(directories).map_err(|nothing| Failure::BadArguments(nothing.into()))?;
    let listener = TcpListener::bind(address).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another program listens there; name another port, or 0 for any that is free"
            }
            std::io::ErrorKind::PermissionDenied => "name a port from 1024 on",
            _ => "name an address of this machine, such as 127.0.0.1",
        };
        Failure::BadArguments(anyhow!(error).context(format!("the page cannot be served on {address}: {remedy}")))
    })?;
    let bound = listener.local_addr().context("the port that the page is served on")?;
    let server = Server::from_listener(listener, None).map_err(|error| anyhow!("cannot listen on {bound}: {error}"))?;
    if !bound.ip().is_loopback() {
        screen::note("everyone who reaches this machine on that port can read the page");
    }
    screen::result(format_args!("http://{bound}/"))?;
    screen::note("the page follows the run; Ctrl-C ends it");
    loop {
        let request = server.recv().context("waiting for a reader of the page")?;
        // Who asked may have gone away meanwhile.
        let _ = page.answer(request, bound.ip());
    }
}

/// The page as it was last made.
struct ServedPage {
    directories: Vec<PathBuf>,
    refresh: LiveRefresh,
    html: String,
    tag: String,
    made: Instant,
    took: Duration,
}

impl ServedPage {
    fn new(directories: Vec<PathBuf>) -> Result<Self, NothingToShow> {
        // Random numbers of the system: names in a run must not be able to guess it.
        let random = || RandomState::new().build_hasher().finish();
        let refresh = LiveRefresh { nonce: format!("{:016x}{:016x}", random(), random()), every_s: EVERY_S };
        let made = Instant::now();
        let html = HtmlReport::live(&directories, &refresh)?.html;
        Ok(Self { directories, refresh, tag: tag(&html), html, made, took: made.elapsed() })
    }

    /// Makes it again, unless that was done just now.
    fn renew(&mut self) -> Result<(), NothingToShow> {
        if self.made.elapsed() < self.took * REST {
            return Ok(());
        }
        self.made = Instant::now();
        self.html = HtmlReport::live(&self.directories, &self.refresh)?.html;
        self.took = self.made.elapsed();
        self.tag = tag(&self.html);
        Ok(())
    }

    fn answer(&mut self, request: Request, bound: IpAddr) -> std::io::Result<()> {
        let header = |name: &'static str| {
            let found = request.headers().iter().find(|header| header.field.equiv(name));
            found.map(|header| header.value.as_str().to_owned())
        };
        let path = request.url().split('?').next().unwrap_or_default();
        let (code, text) = match () {
            () if bound.is_loopback() && !header("Host").is_some_and(|host| is_this_machine(&host)) => {
                (403, "This page is for readers on this machine: open it under localhost or 127.0.0.1.\n")
            }
            () if !matches!(request.method(), Method::Get | Method::Head) => (405, "This page can only be read.\n"),
            () if path != "/" => (404, "There is one page here, which is /.\n"),
            () => match self.renew() {
                Err(_) => (503, "There is nothing of the run any more.\n"),
                Ok(()) if header("If-None-Match").is_some_and(|known| known == self.tag) => (304, ""),
                Ok(()) => (200, &*self.html),
            },
        };
        let kind = if code == 200 { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
        let policy = format!(
            "default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; \
             script-src 'nonce-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            self.refresh.nonce
        );
        let headers = [
            ("Content-Type", kind),
            ("Content-Security-Policy", &*policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-cache"),
            ("ETag", &*self.tag),
            ("Allow", "GET, HEAD"),
        ];
        let wanted = headers.into_iter().filter(|(name, _)| match *name {
            "ETag" => matches!(code, 200 | 304),
            "Allow" => code == 405,
            _ => true,
        });
        let headers: Vec<Header> = wanted.filter_map(|(name, value)| Header::from_bytes(name, value).ok()).collect();
        let body = text.as_bytes();
        let response = Response::new(StatusCode(code), headers, body, Some(body.len()), None);
        request.respond(response.with_chunked_threshold(usize::MAX))
    }
}

/// What tells two pages apart.
fn tag(html: &str) -> String {
    format!("\"{}\"", &blake3::hash(html.as_bytes()).to_hex()[..32])
}

/// Whether a browser was sent here by a name of this machine, and not by one of another's that leads here. The port is
/// that of a tunnel, or ours.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, expected) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("8000", "127.0.0.1:8000"),
            ("localhost:0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()), Ok(expected.to_owned()), "{text}");
        }
        for bad in ["", "runs/first", "127.0.0.1", "70000", "example.org:80", "-1"] {
            assert!(address(bad).is_err_and(|told| told.contains("in front of --serve")), "{bad}");
        }
    }

    #[test]
    fn names_that_lead_to_this_machine_are_told_from_its_own() {
        for own in ["localhost", "LOCALHOST:8329", "127.0.0.1:9", "127.0.0.2", "[::1]:80", "[::1]"] {
            assert!(is_this_machine(own), "{own}");
        }
        for other in ["", "example.org", "localhost.example.org:80", "10.0.0.1", "127.0.0.1.example.org", "localhost:x"]
        {
            assert!(!is_this_machine(other), "{other}");
        }
    }
}
