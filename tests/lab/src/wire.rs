//! What probes and servers say to each other: a line or datagram of any length, answered by the name of the server, the
//! address that it saw, and the same payload.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

/// On these ports every node and pod answers, in both families, by TCP and UDP, and by SCTP where the kernel has it.
pub const PORTS: [u16; 3] = [8080, 8081, 8082];

/// A probe without an answer for so long has met silence.
///
/// Local round trips take microseconds, but an ICMP error that comes back while `connect(2)` is still at work is only
/// noted (`tcp_v4_err` in Linux), as always happens between namespaces of one machine: such a refusal shows when the SYN
/// is sent for the second time, after 1 second (RFC 6298).
pub const SILENCE: Duration = Duration::from_millis(1_500);

/// Room for the largest datagram.
pub(crate) const DATAGRAM: usize = 65_536;

/// Who answered, and whom it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) endpoint: String,
    pub(crate) source: SocketAddr,
}

/// A request with a payload of this many bytes.
pub(crate) fn request(payload: usize) -> Vec<u8> {
    let mut line = vec![b'x'; payload];
    line.push(b'\n');
    line
}

/// The answer of a server to one request.
pub(crate) fn answer(name: &str, peer: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut line = format!("{name} {peer} ").into_bytes();
    line.extend_from_slice(request);
    line
}

/// Reads an answer and checks that the payload came back whole.
pub(crate) fn parse(answer: &[u8], request: &[u8]) -> io::Result<Answer> {
    let parsed = || {
        let head = answer.strip_suffix(request)?;
        let mut words = str::from_utf8(head).ok()?.split(' ');
        Some(Answer { endpoint: words.next()?.to_owned(), source: words.next()?.parse().ok()? })
    };
    let strange = || {
        let start = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        io::Error::new(io::ErrorKind::InvalidData, format!("a strange answer of {} bytes: {start:?}", answer.len()))
    };
    parsed().ok_or_else(strange)
}

/// Writes everything.
pub(crate) async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads one line with its end; an empty one means that the other side has closed.
pub(crate) async fn read_line(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut chunk) {
            Ok(0) => return Ok(line),
            Ok(read) => line.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if line.last() == Some(&b'\n') {
            return Ok(line);
        }
    }
}
