use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use fairlead_plan::Protocol;

use crate::probe::{block_on, connect, source};
use crate::wire::{Answer, DATAGRAM, parse, request};
use crate::{Options, Outcome, Place};

/// How long a child may take to run its own program.
const HELD_BY_CHILDREN: Duration = Duration::from_secs(10);

/// One connection that stays open: a TCP connection, an SCTP association, or a UDP socket that keeps its port.
#[derive(Debug)]
pub struct Conversation {
    socket: Socket,
    options: Options,
}

#[derive(Debug)]
enum Socket {
    Stream(TcpStream),
    Udp(UdpSocket),
}

impl Conversation {
    /// Opens it from a place. Nothing is said yet; for UDP nothing is sent.
    ///
    /// # Errors
    /// If the connection cannot be made within the patience of the options.
    pub fn open(from: &Place, protocol: Protocol, to: SocketAddr, options: &Options) -> io::Result<Self> {
        let socket = from.run(|| match protocol {
            Protocol::Tcp | Protocol::Sctp => block_on(open_stream(protocol, to, options)).map(Socket::Stream),
            Protocol::Udp => open_udp(to, options).map(Socket::Udp),
        })?;
        Ok(Self { socket, options: options.clone() })
    }

    /// Asks once more who is there. Works from any thread: the socket knows its namespace.
    pub fn ask(&mut self) -> Outcome {
        self.exchange().into()
    }

    fn exchange(&mut self) -> io::Result<Answer> {
        let request = request(self.options.payload);
        let answer = match &mut self.socket {
            Socket::Stream(stream) => {
                stream.write_all(&request)?;
                read_line(stream)
            }
            Socket::Udp(socket) => match socket.send(&request) {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
                _ => receive(socket),
            },
        };
        let answer = answer.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })?;
        parse(&answer, &request)
    }
}

async fn open_stream(protocol: Protocol, to: SocketAddr, options: &Options) -> io::Result<TcpStream> {
    let connected = tokio::time::timeout(options.patience, connect(protocol, to, options)).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(options.patience))?;
    if protocol == Protocol::Tcp {
        stream.set_nodelay(true)?;
    }
    Ok(stream)
}

fn open_udp(to: SocketAddr, options: &Options) -> io::Result<UdpSocket> {
    let socket = bind(source(to, options))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(options.patience))?;
    Ok(socket)
}

/// A socket with this port. A process that another thread is about to start holds copies of this one's sockets until it runs its
/// own program, those too that were closed here meanwhile.
fn bind(source: SocketAddr) -> io::Result<UdpSocket> {
    let began = Instant::now();
    loop {
        match UdpSocket::bind(source) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < HELD_BY_CHILDREN => {
                thread::sleep(Duration::from_millis(1));
            }
            bound => return bound,
        }
    }
}

fn read_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    while line.last() != Some(&b'\n') {
        match uninterrupted(|| stream.read(&mut chunk))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => line.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(line)
}

fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; DATAGRAM];
    let length = uninterrupted(|| socket.recv(&mut answer))?;
    answer.truncate(length);
    Ok(answer)
}

/// A socket with a read timeout gives `EINTR` when the machine was stopped for a moment and goes on, even if no signal
/// is handled (signal(7)).
fn uninterrupted(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
