//! The subset of HTTP/1.1 that clients of an API server need.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

#[derive(Debug)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    /// Keys are lower-case names. Repeated headers are joined with commas.
    pub(super) headers: BTreeMap<String, String>,
    /// The body of a POST; `None` for a GET.
    pub(super) posted: Option<Vec<u8>>,
}

impl Request {
    /// Returns a query parameter, if it is present and not empty.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        matches!(self.parameter(name), Some("true" | "1"))
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.headers.get("authorization")?.strip_prefix("Bearer ")
    }
}

/// Reads the next request of a connection; `None` when the client has closed it.
pub(super) fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method @ ("GET" | "POST")), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other(format!("only GET and POST are spoken here, not {line:?}")));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (decode(name), decode(value))).collect();
    let mut request = Request { path: path.to_owned(), query, headers: BTreeMap::new(), posted: None };
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim());
        if name == "content-length" {
            length = value.parse().map_err(io::Error::other)?;
        }
        let values = request.headers.entry(name).or_default();
        if !values.is_empty() {
            values.push(',');
        }
        values.push_str(value);
    }
    if method == "POST" {
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        request.posted = Some(body);
    }
    Ok(Some(request))
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits).into_owned();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn answer(stream: &mut TcpStream, status: u16, body: &str) -> io::Result<()> {
    answer_with(stream, status, "Content-Type: application/json", body)
}

pub(super) fn answer_with(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} Status\r\n{headers}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes())
}

/// Starts a chunked response.
pub(super) fn begin(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
}

pub(super) fn chunk(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
}

pub(super) fn half_a_chunk(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    let half = text.get(..text.len() / 2).unwrap_or_default();
    stream.write_all(format!("{:x}\r\n{half}", text.len()).as_bytes())
}

pub(super) fn end(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"0\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoded_selector_is_decoded() {
        assert_eq!(decode("%21a.io%2Fheadless%2C%21b+c%3D1"), "!a.io/headless,!b c=1");
    }
}
