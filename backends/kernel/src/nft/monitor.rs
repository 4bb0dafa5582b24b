use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::dump::element;
use super::error::RECEIVE;
use super::uapi::*;
use super::{Exprs, NftError};
use crate::netlink::{Attributes, Received, Socket, Wait, attributes, messages, text};

/// How long [`Monitor::next`] waits for news, so that its thread can be told to stop.
const PATIENCE: Duration = Duration::from_millis(500);
/// [`Monitor::next`] returns when it holds this many notices, even if more are queued.
const ENOUGH: usize = 4096;

/// News of changes to the ruleset of one network namespace, whoever made them.
///
/// Changes made through the port given at the start are dropped inside the kernel, so that a transaction of 100,000
/// elements of our own neither wakes the monitor nor overruns its queue.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    ignore: Arc<AtomicU32>,
    filtered: u32,
    buffer: Vec<u8>,
}

/// One change, or several alike in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Deleted rather than added.
    pub deleted: bool,
    /// What it is about.
    pub kind: NoticeKind,
    /// `NFPROTO_*` of the table.
    pub family: u8,
    /// The table.
    pub table: String,
    /// The chain (also of a rule) or the set (also of an element); empty for a table.
    pub name: String,
    /// Of the first element; empty for anything else.
    pub key: Vec<u8>,
    /// How many objects changed alike.
    pub count: usize,
    /// The socket that made the change, as [`Nft::port_id`](super::Nft::port_id) tells it.
    pub port_id: u32,
    /// The first element goes away by itself.
    pub has_expiration: bool,
    /// The chain that a rule jumps or goes to.
    pub leads_to: Option<String>,
}

/// The kind of object in a [`Notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// A table. Its deletion is announced after that of everything in it.
    Table,
    /// A chain.
    Chain,
    /// A rule.
    Rule,
    /// A set or map.
    Set,
    /// An element of a set or map.
    Element,
    /// Something that fairlead does not use: named counters, flow tables.
    Other,
}

impl Monitor {
    /// Starts listening. Changes made by the port in `ignore` are left out; it may be changed at any time, 0 ignores
    /// none.
    ///
    /// # Errors
    /// If the socket cannot be opened or the group not joined (that needs `CAP_NET_ADMIN`).
    pub fn open(ignore: Arc<AtomicU32>) -> Result<Self, NftError> {
        let socket = Socket::open(libc::NETLINK_NETFILTER).map_err(NftError::io("open"))?;
        socket.set_receive_timeout(Some(PATIENCE)).map_err(NftError::io("setsockopt"))?;
        let mut monitor = Self { socket, ignore, filtered: 0, buffer: Vec::new() };
        monitor.update_filter()?;
        monitor.socket.join(NFNLGRP_NFTABLES).map_err(NftError::io("join"))?;
        Ok(monitor)
    }

    /// Waits for changes; an empty list after half a second without any.
    ///
    /// # Errors
    /// [`NftError::Overrun`] if changes were lost: read the state back. The monitor goes on working.
    #[expect(clippy::should_implement_trait, reason = "it never ends and it fails, an iterator would hide both")]
    pub fn next(&mut self) -> Result<Vec<Notice>, NftError> {
        let mut notices = Vec::new();
        let mut wait = Wait::Block;
        while notices.len() < ENOUGH {
            self.update_filter()?;
            match self.socket.recv(&mut self.buffer, wait) {
                Ok(()) => self.read(&mut notices),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(NftError::io(RECEIVE)(error)),
            }
            wait = Wait::No;
        }
        Ok(notices)
    }

    fn read(&self, notices: &mut Vec<Notice>) {
        let ignore = self.ignore.load(Ordering::Relaxed);
        for message in messages(&self.buffer) {
            // A datagram holds the changes of one transaction, hence of one port.
            if ignore != 0 && message.header.port == ignore {
                return;
            }
            let Some(notice) = notice(&message) else { continue };
            match notices.last_mut().filter(|last| alike(last, &notice)) {
                Some(last) => last.count += 1,
                None => notices.push(notice),
            }
        }
    }

    fn update_filter(&mut self) -> Result<(), NftError> {
        let ignore = self.ignore.load(Ordering::Relaxed);
        if ignore == self.filtered {
            return Ok(());
        }
        self.socket.drop_messages_of(ignore).map_err(NftError::io("setsockopt"))?;
        self.filtered = ignore;
        Ok(())
    }
}

fn alike(a: &Notice, b: &Notice) -> bool {
    (a.deleted, a.kind, a.family, a.port_id) == (b.deleted, b.kind, b.family, b.port_id)
        && a.name == b.name
        && a.table == b.table
        && a.leads_to == b.leads_to
}

fn notice(message: &Received<'_>) -> Option<Notice> {
    use NoticeKind::*;
    let command = command(message.header.kind)?;
    // In all of these the table's name is attribute 1.
    let (kind, name) = match command {
        NFT_MSG_NEWGEN => return None,
        NFT_MSG_NEWTABLE | NFT_MSG_DELTABLE | NFT_MSG_DESTROYTABLE => (Table, None),
        NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN | NFT_MSG_DESTROYCHAIN => (Chain, Some(NFTA_CHAIN_NAME)),
        NFT_MSG_NEWRULE | NFT_MSG_DELRULE | NFT_MSG_DESTROYRULE => (Rule, Some(NFTA_RULE_CHAIN)),
        NFT_MSG_NEWSET | NFT_MSG_DELSET | NFT_MSG_DESTROYSET => (Set, Some(NFTA_SET_NAME)),
        NFT_MSG_NEWSETELEM | NFT_MSG_DELSETELEM | NFT_MSG_DESTROYSETELEM => (Element, Some(NFTA_SET_ELEM_LIST_SET)),
        _ => (Other, None),
    };
    let deleted = matches!(
        command,
        NFT_MSG_DELTABLE
            | NFT_MSG_DELCHAIN
            | NFT_MSG_DELRULE
            | NFT_MSG_DELSET
            | NFT_MSG_DELSETELEM
            | NFT_MSG_DELOBJ
            | NFT_MSG_DELFLOWTABLE
            | NFT_MSG_DESTROYTABLE..
    );
    let list = attributes(message.payload.get(NFGENMSG_LEN..)?);
    let string = |kind| list.clone().get(kind).and_then(text).unwrap_or_default().to_owned();
    let (key, has_expiration) = if kind == Element { first_element(&list) } else { Default::default() };
    Some(Notice {
        deleted,
        kind,
        family: *message.payload.first()?,
        table: string(NFTA_TABLE_NAME),
        name: name.map(string).unwrap_or_default(),
        key,
        count: 1,
        port_id: message.header.port,
        has_expiration,
        leads_to: list.clone().get(NFTA_RULE_EXPRESSIONS).filter(|_| kind == Rule).and_then(leads_to),
    })
}

fn leads_to(expressions: &[u8]) -> Option<String> {
    Exprs::leads_to(expressions).map(str::to_owned)
}

/// The kernel announces each element in a message of its own.
fn first_element(list: &Attributes<'_>) -> (Vec<u8>, bool) {
    let elements = attributes(list.clone().get(NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default());
    elements
        .filter_map(|item| element(&item.nested()).map(|element| (element.key.to_vec(), element.has_expiration)))
        .next()
        .unwrap_or_default()
}
