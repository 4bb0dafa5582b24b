//! Questions to other machines, to find out what becomes of packets on the way: ICMP echo ([`Echo`]), datagrams whose refusal is
//! heard ([`Datagram`]), and what arrives on an interface whoever it is addressed to ([`Frames`]).
//!
//! Echo and frames need `CAP_NET_RAW`. Nothing here knows why somebody asks.

mod datagram;
mod echo;
mod frames;

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

pub use datagram::Datagram;
pub use echo::{Answer, Echo, Heard, Question, checksum, sum};
pub use frames::Frames;

/// Room for what is waiting to be read, bytes: answers of some hundred machines.
const RECEIVE_QUEUE: libc::c_int = 1 << 20;

/// A raw socket. Sending to, receiving and time limits are the same as for UDP.
fn raw_socket(domain: i32, kind: i32, protocol: i32) -> io::Result<UdpSocket> {
    // SAFETY: no pointers are passed; the result is checked before use.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by `socket` and nobody else owns it.
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // A smaller queue loses answers of very many machines only.
    let _ = set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_QUEUE);
    Ok(socket)
}

fn set(socket: &UdpSocket, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    let (pointer, len) = ((&raw const value).cast(), size_of_val(&value) as libc::socklen_t);
    // SAFETY: the pointer is to `value`, which outlives the call, and the length is its size.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads one packet, until then at the longest; 0 bytes if none came.
fn read_until(socket: &UdpSocket, buffer: &mut [u8], until: Instant) -> io::Result<usize> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // A limit of zero would mean none.
        socket.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
        match socket.recv(buffer) {
            Ok(read) => return Ok(read),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if left.is_zero() {
                    return Ok(0);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
