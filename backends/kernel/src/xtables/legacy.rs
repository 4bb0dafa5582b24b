//! Reading and replacing a table of the legacy variant: the socket options that `iptables-legacy` uses.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::{c_int, socklen_t};

use super::blob::entry::Entry;
use super::blob::{Broken, Hooks, build};
use super::{Edit, Ip, Lock, TableView, XtablesError, words};
use crate::memory;
use crate::module;

/// Socket options of `linux/netfilter_ipv4/ip_tables.h`; those for IPv6 have the same numbers but for the revisions.
const SET_REPLACE: c_int = 64;
const SET_ADD_COUNTERS: c_int = 65;
const GET_INFO: c_int = 64;
const GET_ENTRIES: c_int = 65;
/// The length of a table's name.
const NAME: usize = 32;
const GETINFO_LEN: usize = 84;
const GET_ENTRIES_HEADER: usize = 40;
const COUNTERS_HEADER: usize = 40;
/// `struct xt_counters`
const COUNTER: usize = 16;
/// How often a table is read again because somebody without the lock changed it.
const ATTEMPTS: u32 = 5;

/// What the kernel tells about a table in no time: it differs after nearly every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableInfo {
    hooks: Hooks,
    /// How many entries it has: rules, two for each chain, and one.
    pub entries: u32,
    /// The bytes of all entries.
    pub size: u32,
}

/// A connection to the tables of one family in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Xtables {
    fd: OwnedFd,
    ip: Ip,
}

impl Xtables {
    /// Opens the connection.
    ///
    /// # Errors
    /// If the process lacks `CAP_NET_RAW`, or the kernel the family.
    pub fn open(ip: Ip) -> Result<Self, XtablesError> {
        if cfg!(not(target_pointer_width = "64")) {
            let error = io::Error::from_raw_os_error(libc::EPROTONOSUPPORT);
            return Err(refused(ip, "the tables", "speaking of them in 32 bits")(error));
        }
        let domain = if ip == Ip::V4 { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: no pointers are passed; the result is checked before use.
        let fd = unsafe { libc::socket(domain, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
        if fd < 0 {
            return Err(refused(ip, "the tables", "socket")(io::Error::last_os_error()));
        }
        // SAFETY: `fd` was just returned by `socket` and nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, ip })
    }

    /// Loads the module that knows of tables, which the kernel does not do on demand. True if it is there now.
    #[must_use]
    pub fn load(&self) -> bool {
        module::load(if self.ip == Ip::V4 { "ip_tables" } else { "ip6_tables" })
    }

    /// How large a table is. Makes the table if there is none yet.
    ///
    /// # Errors
    /// [`XtablesError::is_unsupported`] or [`XtablesError::is_missing`] if the kernel has no such table.
    pub fn info(&self, table: &str) -> Result<TableInfo, XtablesError> {
        let mut buffer = name(table).to_vec();
        buffer.resize(GETINFO_LEN, 0);
        self.get(GET_INFO, &mut buffer).map_err(refused(self.ip, table, "reading its size"))?;
        let number = |at: usize| {
            let bytes = buffer.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
            u32::from_ne_bytes(bytes)
        };
        let five = |at: usize| std::array::from_fn(|hook| number(at + 4 * hook));
        let hooks = Hooks { valid: number(NAME), first: five(NAME + 4), policy: five(NAME + 24) };
        Ok(TableInfo { hooks, entries: number(NAME + 44), size: number(NAME + 48) })
    }

    /// Reads a table and hands it to `look`.
    ///
    /// # Errors
    /// As [`Xtables::info`]; [`XtablesError::is_outrun`] if others kept changing it.
    pub fn read<T>(&self, table: &str, look: impl FnOnce(&TableView<'_>) -> T) -> Result<(TableInfo, T), XtablesError> {
        let (info, bytes) = self.entries(table)?;
        let view = self.view(table, info, &bytes)?;
        Ok((info, look(&view)))
    }

    /// Changes a table: reads it, asks `change` what shall be different, and replaces it at once as a whole. What packets
    /// have counted stays with every rule that stays. Takes the lock meanwhile.
    ///
    /// # Errors
    /// [`XtablesError::Locked`]; [`XtablesError::is_missing`] if the kernel lacks a match or target.
    pub fn change(
        &self,
        table: &str,
        patience: Duration,
        mut change: impl FnMut(&TableView<'_>) -> Edit,
    ) -> Result<TableInfo, XtablesError> {
        let _lock = Lock::take(patience)?;
        let mut attempt = 1;
        loop {
            match self.change_once(table, &mut change) {
                Err(error) if error.is_outrun() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
                Ok(()) => return self.info(table),
            }
        }
    }

    fn change_once(&self, table: &str, change: &mut impl FnMut(&TableView<'_>) -> Edit) -> Result<(), XtablesError> {
        let (info, bytes) = self.entries(table)?;
        let view = self.view(table, info, &bytes)?;
        let edit = change(&view);
        if edit.is_empty() {
            return Ok(());
        }
        let mut built = build::build(&view, &edit).map_err(|broken| self.malformed(table, broken))?;
        drop(view);
        drop(bytes);
        let counters = self.replace(table, info, &mut built).map_err(|error| self.named(table, &built.bytes, error))?;
        self.add_counters(table, &built.before, &counters)
    }

    /// The kernel does not say which match or target it lacks, so each is asked for.
    fn named(&self, table: &str, bytes: &[u8], error: XtablesError) -> XtablesError {
        if !error.is_missing() {
            return error;
        }
        let (mut all, mut at) = (BTreeSet::new(), build::HEADER);
        while let Ok(entry) = Entry::at(self.ip, bytes, at) {
            all.extend(entry.extensions());
            at = entry.next();
        }
        let unknown = all.into_iter().filter(|(target, name, revision)| !self.knows(*target, name, *revision));
        let lacking: Vec<String> = unknown.map(|(target, name, revision)| words(target, name, revision)).collect();
        if lacking.is_empty() {
            return error;
        }
        XtablesError::Lacking { table: table.to_owned(), program: program(self.ip), lacking }
    }

    fn view<'b>(&self, table: &str, info: TableInfo, bytes: &'b [u8]) -> Result<TableView<'b>, XtablesError> {
        TableView::read(self.ip, &bytes[GET_ENTRIES_HEADER..], info.hooks)
            .map_err(|broken| self.malformed(table, broken))
    }

    fn malformed(&self, table: &str, (at, what): Broken) -> XtablesError {
        XtablesError::Malformed { table: table.to_owned(), program: program(self.ip), at, what }
    }

    /// The size of a table, and [`GET_ENTRIES_HEADER`] bytes before its entries.
    fn entries(&self, table: &str) -> Result<(TableInfo, Vec<u8>), XtablesError> {
        let mut attempt = 1;
        loop {
            let info = self.info(table)?;
            let mut buffer = memory::buffer(GET_ENTRIES_HEADER + info.size as usize);
            buffer.resize(GET_ENTRIES_HEADER + info.size as usize, 0);
            buffer[..NAME].copy_from_slice(&name(table));
            buffer[NAME..NAME + 4].copy_from_slice(&info.size.to_ne_bytes());
            match self.get(GET_ENTRIES, &mut buffer) {
                // The size has changed between the two.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(refused(self.ip, table, "reading its rules")(error)),
                Ok(()) => return Ok((info, buffer)),
            }
        }
    }

    /// Gives what the replaced table had counted.
    fn replace(&self, table: &str, was: TableInfo, built: &mut build::Built) -> Result<Vec<u8>, XtablesError> {
        let mut counters = vec![0_u8; was.entries as usize * COUNTER];
        let len = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut header = name(table).to_vec();
        let hooks = &built.hooks;
        let sizes = [hooks.valid, len(built.before.len()), len(built.bytes.len() - build::HEADER)];
        for number in sizes.into_iter().chain(hooks.first).chain(hooks.policy).chain([was.entries]) {
            header.extend_from_slice(&number.to_ne_bytes());
        }
        header.extend_from_slice(&(counters.as_mut_ptr() as u64).to_ne_bytes());
        built.bytes[..build::HEADER].copy_from_slice(&header);
        // The kernel writes to `counters` through the address in the header: `was.entries` counters, for which there is
        // room, and it refuses if the table has another number of them.
        self.set(SET_REPLACE, &built.bytes).map_err(refused(self.ip, table, "replacing it"))?;
        Ok(counters)
    }

    fn add_counters(&self, table: &str, before: &[Option<u32>], counters: &[u8]) -> Result<(), XtablesError> {
        let count = u32::try_from(before.len()).unwrap_or(u32::MAX);
        let mut buffer = Vec::with_capacity(COUNTERS_HEADER + before.len() * COUNTER);
        buffer.extend_from_slice(&name(table));
        buffer.extend_from_slice(&count.to_ne_bytes());
        buffer.resize(COUNTERS_HEADER, 0);
        for number in before {
            let old = number.and_then(|number| counters.get(number as usize * COUNTER..)?.first_chunk::<COUNTER>());
            buffer.extend_from_slice(old.unwrap_or(&[0; COUNTER]));
        }
        self.set(SET_ADD_COUNTERS, &buffer).map_err(refused(self.ip, table, "keeping what was counted"))
    }

    /// Whether the kernel has this match or target; loads its module if there is one.
    #[must_use]
    pub fn knows(&self, target: bool, name: &str, revision: u8) -> bool {
        /// `struct xt_get_revision`: a name of 29 bytes, then the revision.
        const REVISION_AT: usize = 29;
        let option = match self.ip {
            Ip::V4 => 66,
            Ip::V6 => 68,
        } + c_int::from(target);
        let mut buffer = name.as_bytes().to_vec();
        buffer.resize(REVISION_AT, 0);
        buffer.push(revision);
        self.get(option, &mut buffer).is_ok()
    }

    fn level(&self) -> c_int {
        match self.ip {
            Ip::V4 => libc::IPPROTO_IP,
            Ip::V6 => libc::IPPROTO_IPV6,
        }
    }

    fn get(&self, option: c_int, buffer: &mut [u8]) -> io::Result<()> {
        let mut len = length(buffer)?;
        let pointer = buffer.as_mut_ptr().cast::<c_void>();
        // SAFETY: `pointer` is writable for `len` bytes, which the kernel is told, and both live through the call.
        let result = unsafe { libc::getsockopt(self.fd.as_raw_fd(), self.level(), option, pointer, &raw mut len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn set(&self, option: c_int, buffer: &[u8]) -> io::Result<()> {
        let len = length(buffer)?;
        let pointer = buffer.as_ptr().cast::<c_void>();
        // SAFETY: `pointer` is readable for `len` bytes, which the kernel is told, and lives through the call. A pointer
        // inside the buffer leads to memory that the caller keeps, as large as the number beside it says.
        let result = unsafe { libc::setsockopt(self.fd.as_raw_fd(), self.level(), option, pointer, len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The number by which rules name a set of ipset; `None` if there is no such set. It stays as long as the set does.
///
/// # Errors
/// [`XtablesError::is_unsupported`] if the kernel has no ipset.
pub fn set_index(set: &str) -> Result<Option<u16>, XtablesError> {
    /// `SO_IP_SET` of `linux/netfilter/ipset/ip_set.h`, and what it is asked for here.
    const SO_IP_SET: c_int = 83;
    const GET_BY_NAME: u32 = 6;
    const VERSION: u32 = 6;
    const NO_SUCH_SET: u16 = u16::MAX;
    const INDEX_AT: usize = 8;
    let mut buffer = [GET_BY_NAME.to_ne_bytes(), VERSION.to_ne_bytes()].concat();
    buffer.extend_from_slice(&name(set));
    let tables = Xtables::open(Ip::V4)?;
    tables.get(SO_IP_SET, &mut buffer).map_err(refused(Ip::V4, set, "asking for the number of a set"))?;
    let index = buffer[INDEX_AT..].first_chunk().map_or(NO_SUCH_SET, |bytes| u16::from_ne_bytes(*bytes));
    Ok((index != NO_SUCH_SET).then_some(index))
}

fn length(buffer: &[u8]) -> io::Result<socklen_t> {
    // The kernel takes the length as a signed number.
    let len = i32::try_from(buffer.len()).map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
    Ok(len.unsigned_abs())
}

fn name(table: &str) -> [u8; NAME] {
    let mut name = [0; NAME];
    let len = table.len().min(NAME - 1);
    name[..len].copy_from_slice(&table.as_bytes()[..len]);
    name
}

const fn program(ip: Ip) -> &'static str {
    match ip {
        Ip::V4 => "iptables",
        Ip::V6 => "ip6tables",
    }
}

fn refused(ip: Ip, table: &str, call: &'static str) -> impl FnOnce(io::Error) -> XtablesError {
    let table = table.to_owned();
    move |source| XtablesError::Refused { table, program: program(ip), call, source }
}
