//! One JSON line there, one JSON line back, then the connection ends. Every line carries the protocol's version.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{JsonPath, Kept, Refused, RefusedKind, Restored, Status};

/// The version of the protocol. A peer of another version gets a refusal that names both.
pub const VERSION: u32 = 1;
/// The longest request line, newline included.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// The longest reply line, newline included.
pub const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a client can ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// Whether anybody is there.
    Ping,
    /// See [`super::Service::status`].
    Status,
    /// See [`super::Service::recovered`].
    Recovered,
    /// See [`super::Service::restore`].
    Restore {
        /// Relative to the project.
        file: JsonPath,
        /// The version to publish again.
        version: u64,
    },
    /// See [`super::Service::unmount`].
    Unmount {
        /// Discard the open sessions.
        force: bool,
        /// Take the mount away although programs have working directories in it, if they have nothing open there.
        #[serde(default)]
        leave_directories: bool,
    },
}

/// The answer to each [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To `ping`.
    Pong,
    /// To `status`.
    Status(Box<Status>),
    /// To `recovered`.
    Recovered(Vec<Kept>),
    /// To `restore`.
    Restored(Restored),
    /// To `unmount`.
    Unmounted,
    /// To any.
    Refused(Refused),
}

#[derive(Deserialize)]
struct Version {
    protocol: u32,
}

#[derive(Serialize, Deserialize)]
struct RequestLine {
    protocol: u32,
    #[serde(flatten)]
    request: Request,
}

#[derive(Serialize, Deserialize)]
struct ReplyLine {
    protocol: u32,
    reply: Reply,
}

/// A line that could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The version comes first: a newer peer's line need not be understood otherwise.
    #[error("the line speaks protocol {theirs}, this side speaks {VERSION}: use the same concord on both sides")]
    Version {
        /// What the line says.
        theirs: u32,
    },
    /// Not JSON, or not one of ours.
    #[error("the line is not understood: {0}")]
    Garbage(#[from] serde_json::Error),
}

/// `request` as a line.
pub fn request_line(request: Request) -> Result<Vec<u8>, LineError> {
    line(&RequestLine {
        protocol: VERSION,
        request,
    })
}

/// `reply` as a line.
pub fn reply_line(reply: Reply) -> Result<Vec<u8>, LineError> {
    line(&ReplyLine {
        protocol: VERSION,
        reply,
    })
}

fn line<T: Serialize>(message: &T) -> Result<Vec<u8>, LineError> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// The request in a line.
pub fn parse_request(line: &[u8]) -> Result<Request, LineError> {
    Ok(parse::<RequestLine>(line)?.request)
}

/// The reply in a line.
pub fn parse_reply(line: &[u8]) -> Result<Reply, LineError> {
    Ok(parse::<ReplyLine>(line)?.reply)
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, LineError> {
    let version: Version = serde_json::from_slice(line)?;
    if version.protocol != VERSION {
        return Err(LineError::Version {
            theirs: version.protocol,
        });
    }
    Ok(serde_json::from_slice(line)?)
}

impl From<LineError> for Refused {
    fn from(error: LineError) -> Self {
        Refused::new(RefusedKind::BadRequest, error.to_string())
    }
}

/// Whether an answer, or the end, has come within `time_max`.
pub fn is_readable(stream: &UnixStream, time_max: Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let time_max = Timespec::try_from(time_max).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&time_max)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads up to and without the newline.
///
/// # Errors
/// `InvalidData` when no newline comes within `bytes_max`, `TimedOut` when it does not come until `deadline` (which a
/// peer that sends a byte now and then cannot move), `UnexpectedEof` when the peer stops before it.
pub fn read_line(stream: &mut UnixStream, bytes_max: usize, deadline: Option<Instant>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        stream.set_read_timeout(remaining(deadline)?)?;
        let count = match stream.read(&mut chunk) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer closed before the line ended",
                ));
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(as_timeout(error)),
        };
        let end = chunk[..count].iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&chunk[..end.unwrap_or(count)]);
        if line.len() >= bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the line is longer than {bytes_max} bytes"),
            ));
        }
        if end.is_some() {
            return Ok(line);
        }
    }
}

/// Writes all of `line` before `deadline`.
pub fn write_line(stream: &mut UnixStream, mut line: &[u8], deadline: Option<Instant>) -> io::Result<()> {
    while !line.is_empty() {
        stream.set_write_timeout(remaining(deadline)?)?;
        match stream.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => line = &line[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(as_timeout(error)),
        }
    }
    Ok(())
}

fn remaining(deadline: Option<Instant>) -> io::Result<Option<Duration>> {
    let Some(deadline) = deadline else { return Ok(None) };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(timed_out())
    } else {
        Ok(Some(left))
    }
}

/// SO_RCVTIMEO reports EAGAIN (socket(7)).
fn as_timeout(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        timed_out()
    } else {
        error
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer took too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_look_as_documented() {
        let restore = Request::Restore {
            file: "a.md".into(),
            version: 3,
        };
        assert_eq!(
            String::from_utf8(request_line(restore.clone()).unwrap()).unwrap(),
            "{\"protocol\":1,\"command\":\"restore\",\"file\":\"a.md\",\"version\":3}\n"
        );
        assert_eq!(parse_request(&request_line(restore.clone()).unwrap()).unwrap(), restore);
        let refused = Reply::Refused(Refused::new(RefusedKind::NotFound, "no version 3"));
        assert_eq!(
            String::from_utf8(reply_line(refused.clone()).unwrap()).unwrap(),
            "{\"protocol\":1,\"reply\":{\"refused\":{\"kind\":\"not-found\",\"why\":\"no version 3\"}}}\n"
        );
        assert_eq!(parse_reply(&reply_line(refused.clone()).unwrap()).unwrap(), refused);
    }

    #[test]
    fn another_version_is_named_even_when_its_line_is_not_understood() {
        let error = parse_request(br#"{"protocol":2,"order":"new words"}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("speaks protocol 2, this side speaks 1"), "{error}");
    }

    #[test]
    fn an_unknown_command_is_answered_with_the_known_ones() {
        let error = parse_request(br#"{"protocol":1,"command":"explode"}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("explode") && error.contains("restore") && error.contains("status"),
            "{error}"
        );
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        proptest::proptest!(|(bytes: Vec<u8>)| {
            let _ = parse_request(&bytes);
            let _ = parse_reply(&bytes);
        });
        assert!(parse_request("[".repeat(60_000).as_bytes()).is_err());
    }

    #[test]
    fn a_peer_that_sends_a_byte_now_and_then_cannot_move_the_deadline() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let dripper = std::thread::spawn(move || {
            while theirs.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let start = Instant::now();
        let error = read_line(&mut ours, 1000, Some(start + Duration::from_millis(150))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(ours);
        dripper.join().unwrap();
    }
}
