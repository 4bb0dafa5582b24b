use std::io::{self, IoSlice};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::{c_int, c_void, socklen_t};

/// Below this, the kernel has been seen to cut dump messages short after a larger read on the same socket.
const RECEIVE_MIN: usize = 64 << 10;
/// Room for queued replies and notifications; a burst beyond it shows as `ENOBUFS`.
const RECEIVE_QUEUE: usize = 8 << 20;
const NETLINK_ADD_MEMBERSHIP: c_int = 1;
const NETLINK_CAP_ACK: c_int = 10;
const NETLINK_EXT_ACK: c_int = 11;
const NETLINK_GET_STRICT_CHK: c_int = 12;

/// Whether [`Socket::recv`] waits for a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until one arrives or the timeout passes ([`Socket::set_receive_timeout`]).
    Block,
    /// Not at all: an empty queue is [`io::ErrorKind::WouldBlock`].
    No,
}

/// A blocking netlink socket of the network namespace in which its opener ran.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    send_queue: usize,
}

impl Socket {
    /// Opens and binds a socket, asks for short error replies that point into the request, and enlarges its receive
    /// queue.
    ///
    /// # Errors
    /// What `socket`, `bind` or `getsockopt` say. `EPROTONOSUPPORT` means that the kernel lacks the netlink family.
    pub fn open(protocol: i32) -> io::Result<Self> {
        // SAFETY: no pointers are passed; the result is checked before use.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by `socket` and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut socket = Self { fd, send_queue: 0 };
        let address = kernel_address();
        // SAFETY: `address` is a `sockaddr_nl` that outlives the call, and the length is its size.
        let bound = unsafe { libc::bind(socket.raw(), (&raw const address).cast(), address_len()) };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        // Kernels without these answer in the long form, without offsets; the reader of replies copes with both.
        let _ = socket.set(libc::SOL_NETLINK, NETLINK_EXT_ACK, &1);
        let _ = socket.set(libc::SOL_NETLINK, NETLINK_CAP_ACK, &1);
        socket.resize(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_QUEUE)?;
        socket.send_queue = socket.get(libc::SOL_SOCKET, libc::SO_SNDBUF)?;
        Ok(socket)
    }

    /// Sends one datagram to the kernel, enlarging the send queue where needed.
    ///
    /// # Errors
    /// What `sendmsg` says. `EMSGSIZE`: the datagram is larger than the process may make the send queue; it lacks
    /// `CAP_NET_ADMIN`.
    pub fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.send_parts(&[IoSlice::new(datagram)])
    }

    /// Sends one datagram that lies in several pieces.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub fn send_parts(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.make_room(len)?;
        let address = kernel_address();
        // SAFETY: `msghdr` is plain data for which all zeroes is a valid value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = (&raw const address).cast_mut().cast();
        header.msg_namelen = address_len();
        header.msg_iov = parts.as_ptr().cast_mut().cast();
        header.msg_iovlen = parts.len() as _;
        loop {
            // SAFETY: `header` points at `address` and `parts`, which outlive the call; `IoSlice` has the layout of
            // `iovec`; the kernel only reads what they point at.
            let sent = unsafe { libc::sendmsg(self.raw(), &raw const header, 0) };
            match sent {
                0.. => return Ok(()),
                _ => retry_if_interrupted()?,
            }
        }
    }

    /// Receives one whole datagram into `buffer`, replacing its content. Datagrams that did not come from the kernel
    /// are thrown away.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none; `ENOBUFS` if the kernel had to drop some.
    pub fn recv(&self, buffer: &mut Vec<u8>, wait: Wait) -> io::Result<()> {
        loop {
            buffer.clear();
            let waiting = self.receive(&mut [], wait, libc::MSG_PEEK | libc::MSG_TRUNC)?.0;
            buffer.reserve(waiting.max(RECEIVE_MIN));
            if self.fill(buffer, Wait::No)?.is_some() {
                return Ok(());
            }
        }
    }

    /// Receives one datagram that is short, as acknowledgements are, with one call of the system where [`Socket::recv`] has to
    /// ask for the length before.
    ///
    /// # Errors
    /// As [`Socket::recv`]; [`io::ErrorKind::InvalidData`] if it was not short, and then it is lost.
    pub fn recv_short(&self, buffer: &mut Vec<u8>, wait: Wait) -> io::Result<()> {
        loop {
            buffer.clear();
            buffer.reserve(RECEIVE_MIN);
            match self.fill(buffer, wait)? {
                None => {}
                Some(len) if len == buffer.len() => return Ok(()),
                Some(_) => {
                    let what = "an acknowledgement of this length is none";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
    }

    /// Receives a datagram into an empty buffer, as far as there is room, and says how long it is; `None` if it did not come from
    /// the kernel.
    fn fill(&self, buffer: &mut Vec<u8>, wait: Wait) -> io::Result<Option<usize>> {
        let space = buffer.spare_capacity_mut();
        let room = space.len();
        let (len, sender) = self.receive(space, wait, libc::MSG_TRUNC)?;
        if sender != 0 {
            return Ok(None);
        }
        // SAFETY: the kernel wrote so many bytes at the start of the spare capacity, which is no smaller; the buffer is empty.
        unsafe { buffer.set_len(len.min(room)) };
        Ok(Some(len))
    }

    /// This socket's address: what the kernel writes into the `port` of notifications about changes made through it.
    ///
    /// # Errors
    /// What `getsockname` says.
    pub fn port_id(&self) -> io::Result<u32> {
        let mut address = kernel_address();
        let mut len = address_len();
        // SAFETY: both pointers are to live locals, and `len` is the size of `address`.
        let result = unsafe { libc::getsockname(self.raw(), (&raw mut address).cast(), &raw mut len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(address.nl_pid) }
    }

    /// Subscribes to the notifications of a multicast group.
    ///
    /// # Errors
    /// What `setsockopt` says; `EINVAL` means that the kernel does not know the group.
    pub fn join(&self, group: u32) -> io::Result<()> {
        self.set(libc::SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group)
    }

    /// Asks the kernel to read the headers and attributes of dump requests, and so to filter what it lists.
    ///
    /// # Errors
    /// `ENOPROTOOPT` from kernels before 4.20.
    pub fn check_strictly(&self) -> io::Result<()> {
        self.set(libc::SOL_NETLINK, NETLINK_GET_STRICT_CHK, &1)
    }

    /// Bounds how long [`Socket::recv`] waits; `None` is for ever.
    ///
    /// # Errors
    /// What `setsockopt` says.
    pub fn set_receive_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.unwrap_or_default();
        let value = libc::timeval { tv_sec: timeout.as_secs() as _, tv_usec: timeout.subsec_micros() as _ };
        self.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &value)
    }

    /// Lets the kernel drop datagrams whose first message came from `port`, before they take room in the queue. 0 drops
    /// none again.
    ///
    /// # Errors
    /// What `setsockopt` says.
    pub fn drop_messages_of(&self, port: u32) -> io::Result<()> {
        const PORT_OFFSET: u32 = 12;
        const WHOLE: u32 = u32::MAX;
        let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        // The filter reads numbers in network order; the kernel writes the port in the host's.
        let mut program = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, PORT_OFFSET),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, port.to_be()),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, if port == 0 { WHOLE } else { 0 }),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, WHOLE),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    fn raw(&self) -> c_int {
        self.fd.as_raw_fd()
    }

    fn receive(&self, space: &mut [MaybeUninit<u8>], wait: Wait, flags: c_int) -> io::Result<(usize, u32)> {
        let flags = if wait == Wait::No { flags | libc::MSG_DONTWAIT } else { flags };
        let mut address = kernel_address();
        loop {
            let mut len = address_len();
            // SAFETY: the buffer is writable for `space.len()` bytes, and `address` and `len` are live locals.
            let received = unsafe {
                libc::recvfrom(
                    self.raw(),
                    space.as_mut_ptr().cast::<c_void>(),
                    space.len(),
                    flags,
                    (&raw mut address).cast(),
                    &raw mut len,
                )
            };
            match usize::try_from(received) {
                Ok(received) => return Ok((received, address.nl_pid)),
                Err(_) => retry_if_interrupted()?,
            }
        }
    }

    /// The kernel refuses a datagram larger than the send queue less some bookkeeping.
    fn make_room(&mut self, len: usize) -> io::Result<()> {
        let wanted = len.saturating_add(4096);
        if wanted <= self.send_queue {
            return Ok(());
        }
        self.resize(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, wanted)?;
        self.send_queue = self.get(libc::SOL_SOCKET, libc::SO_SNDBUF)?;
        Ok(())
    }

    /// The forced form ignores `net.core.{r,w}mem_max` but needs `CAP_NET_ADMIN`.
    fn resize(&self, forced: c_int, plain: c_int, bytes: usize) -> io::Result<()> {
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        self.set(libc::SOL_SOCKET, forced, &bytes).or_else(|_| self.set(libc::SOL_SOCKET, plain, &bytes))
    }

    fn set<T>(&self, level: c_int, name: c_int, value: &T) -> io::Result<()> {
        let value: *const T = value;
        // SAFETY: `value` points at a live `T`, and the length is its size; the kernel only reads it.
        let result = unsafe { libc::setsockopt(self.raw(), level, name, value.cast(), size_of::<T>() as socklen_t) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn get(&self, level: c_int, name: c_int) -> io::Result<usize> {
        let mut value: c_int = 0;
        let mut len = size_of::<c_int>() as socklen_t;
        // SAFETY: both pointers are to live locals, and `len` is the size of `value`.
        let result = unsafe { libc::getsockopt(self.raw(), level, name, (&raw mut value).cast(), &raw mut len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(value).unwrap_or(0)) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn retry_if_interrupted() -> io::Result<()> {
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

fn kernel_address() -> libc::sockaddr_nl {
    // SAFETY: `sockaddr_nl` is plain data for which all zeroes is a valid value.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address
}

fn address_len() -> socklen_t {
    size_of::<libc::sockaddr_nl>() as socklen_t
}
