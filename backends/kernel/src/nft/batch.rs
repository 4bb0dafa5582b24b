use super::uapi::*;
use super::{ChainSpec, Data, Element, Nfproto, NftError, SetSpec};
use crate::netlink::{APPEND, CREATE, HEADER_LEN, REQUEST, TooLong, align, close, open, put};

/// Elements are gathered into messages of about this size: larger ones gain nothing, and 64 KiB is the format's limit.
const ELEMENTS_MAX: usize = 32 << 10;

/// Bytes of the messages of a usual change; the allocator has pieces of up to this size at hand.
const USUAL: usize = 1000;

/// The changes of one transaction, in the order in which the kernel applies them.
///
/// Writing cannot fail: what does not fit netlink's lengths is remembered, and [`Nft::commit`](super::Nft::commit)
/// refuses the whole batch. `add_*` of something that exists alike succeeds; `del_*` of something that does not exist
/// fails.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Where the last message starts.
    pub(super) last: usize,
    pub(super) messages: u32,
    objects: u64,
    sets: u32,
    fault: Option<(usize, TooLong)>,
    open: Option<Open>,
}

/// The message of elements that can still grow.
#[derive(Debug)]
struct Open {
    command: u16,
    family: Nfproto,
    table: String,
    set: String,
    list: usize,
}

impl Batch {
    /// An empty batch, with room for what most changes write.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(USUAL), ..Self::default() }
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// The bytes that it will send, without the frame of the batch.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The messages, as they will be sent: equal batches have equal bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many objects it writes or deletes, each element counted; emptying a chain, set or table counts as one.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// Creates a table. `userdata` (kernel 5.10) of one that exists stays as it is.
    pub fn add_table(&mut self, family: Nfproto, table: &str, userdata: Option<&[u8]>) {
        self.message(NFT_MSG_NEWTABLE, CREATE, family, |m| {
            m.text(NFTA_TABLE_NAME, table);
            m.maybe(NFTA_TABLE_USERDATA, userdata);
        });
    }

    /// Deletes a table and all that is in it. It must exist.
    pub fn del_table(&mut self, family: Nfproto, table: &str) {
        self.message(NFT_MSG_DELTABLE, 0, family, |m| m.text(NFTA_TABLE_NAME, table));
    }

    /// Deletes a table if it exists (kernel 6.3).
    pub fn destroy_table(&mut self, family: Nfproto, table: &str) {
        self.message(NFT_MSG_DESTROYTABLE, 0, family, |m| m.text(NFTA_TABLE_NAME, table));
    }

    /// Creates a chain.
    pub fn add_chain(&mut self, family: Nfproto, table: &str, chain: &ChainSpec<'_>) {
        self.message(NFT_MSG_NEWCHAIN, CREATE, family, |m| {
            m.text(NFTA_CHAIN_TABLE, table);
            m.text(NFTA_CHAIN_NAME, chain.name);
            if let Some(hook) = &chain.hook {
                m.nest(NFTA_CHAIN_HOOK, |m| {
                    m.u32(NFTA_HOOK_HOOKNUM, hook.hook);
                    m.bytes(NFTA_HOOK_PRIORITY, &hook.priority.to_be_bytes());
                });
                m.u32(NFTA_CHAIN_POLICY, NF_ACCEPT);
                m.text(NFTA_CHAIN_TYPE, hook.kind);
            }
            m.maybe(NFTA_CHAIN_USERDATA, chain.userdata.as_deref());
        });
    }

    /// Deletes a chain. No rule and no element may point at it any more at this place of the batch.
    pub fn del_chain(&mut self, family: Nfproto, table: &str, chain: &str) {
        self.message(NFT_MSG_DELCHAIN, 0, family, |m| {
            m.text(NFTA_CHAIN_TABLE, table);
            m.text(NFTA_CHAIN_NAME, chain);
        });
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, family: Nfproto, table: &str, chain: &str) {
        self.message(NFT_MSG_DELRULE, 0, family, |m| {
            m.text(NFTA_RULE_TABLE, table);
            m.text(NFTA_RULE_CHAIN, chain);
        });
    }

    /// Deletes all rules of all chains of a table. Sets and elements stay.
    pub fn flush_table(&mut self, family: Nfproto, table: &str) {
        self.message(NFT_MSG_DELRULE, 0, family, |m| m.text(NFTA_RULE_TABLE, table));
    }

    /// Appends a rule to a chain. `expressions` is what [`Exprs`](super::Exprs) holds; `userdata` has at most 256
    /// bytes.
    pub fn add_rule(&mut self, family: Nfproto, table: &str, chain: &str, expressions: &[u8], userdata: Option<&[u8]>) {
        self.message(NFT_MSG_NEWRULE, CREATE | APPEND, family, |m| {
            m.text(NFTA_RULE_TABLE, table);
            m.text(NFTA_RULE_CHAIN, chain);
            m.nest(NFTA_RULE_EXPRESSIONS, |m| m.raw(expressions));
            m.maybe(NFTA_RULE_USERDATA, userdata);
        });
    }

    /// Adds a rule with matches and targets of xtables, which are told the protocol that the rule asks for. Goes before all
    /// others if it is to be `first`, else behind them.
    pub fn add_xtables_rule(
        &mut self,
        family: Nfproto,
        table: &str,
        chain: &str,
        expressions: &[u8],
        protocol: Option<u8>,
        first: bool,
    ) {
        self.message(NFT_MSG_NEWRULE, if first { CREATE } else { CREATE | APPEND }, family, |m| {
            m.text(NFTA_RULE_TABLE, table);
            m.text(NFTA_RULE_CHAIN, chain);
            m.nest(NFTA_RULE_EXPRESSIONS, |m| m.raw(expressions));
            if let Some(protocol) = protocol {
                m.nest(NFTA_RULE_COMPAT, |m| {
                    m.u32(NFTA_RULE_COMPAT_PROTO, protocol.into());
                    m.u32(NFTA_RULE_COMPAT_FLAGS, 0);
                });
            }
        });
    }

    /// Deletes one rule by the handle that a dump gave.
    pub fn del_rule(&mut self, family: Nfproto, table: &str, chain: &str, handle: u64) {
        self.message(NFT_MSG_DELRULE, 0, family, |m| {
            m.text(NFTA_RULE_TABLE, table);
            m.text(NFTA_RULE_CHAIN, chain);
            m.bytes(NFTA_RULE_HANDLE, &handle.to_be_bytes());
        });
    }

    /// Creates a set or map; returns the number by which rules of this same batch may name it.
    pub fn add_set(&mut self, family: Nfproto, table: &str, set: &SetSpec<'_>) -> u32 {
        self.sets += 1;
        let id = self.sets;
        self.message(NFT_MSG_NEWSET, CREATE, family, |m| {
            m.text(NFTA_SET_TABLE, table);
            m.text(NFTA_SET_NAME, set.name);
            m.u32(NFTA_SET_FLAGS, set.flags | if set.data.is_some() { NFT_SET_MAP } else { 0 });
            m.u32(NFTA_SET_KEY_TYPE, set.key_type);
            m.u32(NFTA_SET_KEY_LEN, set.key_len);
            if let Some((data_type, data_len)) = set.data {
                m.u32(NFTA_SET_DATA_TYPE, data_type);
                m.u32(NFTA_SET_DATA_LEN, data_len);
            }
            m.u32(NFTA_SET_ID, id);
            if set.size.is_some() || !set.field_lens.is_empty() {
                m.nest(NFTA_SET_DESC, |m| describe_set(m, set));
            }
            if let Some(timeout) = set.timeout_ms {
                m.bytes(NFTA_SET_TIMEOUT, &timeout.to_be_bytes());
            }
            m.maybe(NFTA_SET_USERDATA, set.userdata.as_deref());
        });
        id
    }

    /// Deletes a set or map with its elements. No rule may use it any more at this place of the batch.
    pub fn del_set(&mut self, family: Nfproto, table: &str, set: &str) {
        self.message(NFT_MSG_DELSET, 0, family, |m| {
            m.text(NFTA_SET_TABLE, table);
            m.text(NFTA_SET_NAME, set);
        });
    }

    /// Deletes all elements of a set or map.
    pub fn flush_set(&mut self, family: Nfproto, table: &str, set: &str) {
        self.message(NFT_MSG_DELSETELEM, 0, family, |m| {
            m.text(NFTA_SET_ELEM_LIST_TABLE, table);
            m.text(NFTA_SET_ELEM_LIST_SET, set);
        });
    }

    /// Adds an element. One that exists alike is accepted; the same key with another value fails with `EEXIST`: to
    /// change a value, delete and add in one batch.
    pub fn add_element(&mut self, family: Nfproto, table: &str, set: &str, element: &Element<'_>) {
        self.element(NFT_MSG_NEWSETELEM, CREATE, family, table, set, element);
    }

    /// Deletes an element, which must exist.
    pub fn del_element(&mut self, family: Nfproto, table: &str, set: &str, element: &Element<'_>) {
        self.element(NFT_MSG_DELSETELEM, 0, family, table, set, element);
    }

    /// Deletes an element if it exists (kernel 6.3).
    pub fn destroy_element(&mut self, family: Nfproto, table: &str, set: &str, element: &Element<'_>) {
        self.element(NFT_MSG_DESTROYSETELEM, 0, family, table, set, element);
    }

    /// Refuses a batch in which something did not fit.
    pub(super) fn check(&self) -> Result<(), NftError> {
        let Some((at, source)) = self.fault else { return Ok(()) };
        Err(NftError::TooLong { what: super::describe::describe(&self.bytes[at..], None), source })
    }

    fn element(&mut self, command: u16, flags: u16, family: Nfproto, table: &str, set: &str, element: &Element<'_>) {
        let same = self.open.as_ref().is_some_and(|open| {
            open.command == command && open.family == family && open.set == set && open.table == table
        });
        if !same || self.bytes.len() - self.last > ELEMENTS_MAX {
            self.open_elements(command, flags, family, table, set);
        } else {
            self.objects += 1;
        }
        let list = self.open.as_ref().map_or(0, |open| open.list);
        let mut writer = Writer { bytes: &mut self.bytes, fault: None };
        writer.nest(NFTA_LIST_ELEM, |m| write_element(m, element));
        let fault = writer.fault.or(close(&mut self.bytes, list).err());
        self.seal(fault);
    }

    fn open_elements(&mut self, command: u16, flags: u16, family: Nfproto, table: &str, set: &str) {
        let mut list = 0;
        self.message(command, flags, family, |m| {
            m.text(NFTA_SET_ELEM_LIST_TABLE, table);
            m.text(NFTA_SET_ELEM_LIST_SET, set);
            list = open(m.bytes, NFTA_SET_ELEM_LIST_ELEMENTS);
        });
        self.open = Some(Open { command, family, table: table.to_owned(), set: set.to_owned(), list });
    }

    fn message(&mut self, command: u16, flags: u16, family: Nfproto, fill: impl FnOnce(&mut Writer<'_>)) {
        self.open = None;
        self.last = self.bytes.len();
        self.messages += 1;
        self.objects += 1;
        let header = crate::netlink::header(0, kind(command), REQUEST | flags, self.messages);
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(&nfgenmsg(family as u8, 0));
        let mut writer = Writer { bytes: &mut self.bytes, fault: None };
        fill(&mut writer);
        let fault = writer.fault;
        self.seal(fault);
    }

    /// Writes the length of the last message and keeps the batch's first fault.
    fn seal(&mut self, fault: Option<TooLong>) {
        let len = self.bytes.len() - self.last;
        debug_assert_eq!(len, align(len), "attributes pad themselves");
        // One message holds at most a handful of 64 KiB attributes; one that holds more has a fault anyway.
        let len = u32::try_from(len).unwrap_or(HEADER_LEN as u32);
        self.bytes[self.last..self.last + 4].copy_from_slice(&len.to_ne_bytes());
        if self.fault.is_none() {
            self.fault = fault.map(|fault| (self.last, fault));
        }
    }
}

fn describe_set(m: &mut Writer<'_>, set: &SetSpec<'_>) {
    if let Some(size) = set.size {
        m.u32(NFTA_SET_DESC_SIZE, size);
    }
    if !set.field_lens.is_empty() {
        m.nest(NFTA_SET_DESC_CONCAT, |m| {
            for len in &set.field_lens {
                m.nest(NFTA_LIST_ELEM, |m| m.u32(NFTA_SET_FIELD_LEN, *len));
            }
        });
    }
}

fn write_element(m: &mut Writer<'_>, element: &Element<'_>) {
    if element.interval_end {
        m.u32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
    }
    m.nest(NFTA_SET_ELEM_KEY, |m| m.bytes(NFTA_DATA_VALUE, element.key));
    if let Some(end) = element.key_end {
        m.nest(NFTA_SET_ELEM_KEY_END, |m| m.bytes(NFTA_DATA_VALUE, end));
    }
    let Some(data) = element.data else { return };
    m.nest(NFTA_SET_ELEM_DATA, |m| match data {
        Data::Value(bytes) => m.bytes(NFTA_DATA_VALUE, bytes),
        Data::Goto(chain) => m.verdict(code::GOTO, Some(chain)),
        Data::Jump(chain) => m.verdict(code::JUMP, Some(chain)),
        Data::Drop => m.verdict(code::DROP, None),
        Data::Accept => m.verdict(code::ACCEPT, None),
    });
}

/// Appends attributes and keeps the first that did not fit.
pub(super) struct Writer<'a> {
    pub(super) bytes: &'a mut Vec<u8>,
    pub(super) fault: Option<TooLong>,
}

impl Writer<'_> {
    pub(super) fn bytes(&mut self, kind: u16, payload: &[u8]) {
        let result = put(self.bytes, kind, payload);
        self.fault = self.fault.or(result.err());
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(super) fn text(&mut self, kind: u16, value: &str) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        let result = close(self.bytes, at);
        self.fault = self.fault.or(result.err());
    }

    pub(super) fn maybe(&mut self, kind: u16, payload: Option<&[u8]>) {
        if let Some(payload) = payload {
            self.bytes(kind, payload);
        }
    }

    pub(super) fn raw(&mut self, attributes: &[u8]) {
        self.bytes.extend_from_slice(attributes);
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = open(self.bytes, kind);
        fill(self);
        let result = close(self.bytes, at);
        self.fault = self.fault.or(result.err());
    }

    pub(super) fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.nest(NFTA_DATA_VERDICT, |m| {
            m.bytes(NFTA_VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                m.text(NFTA_VERDICT_CHAIN, chain);
            }
        });
    }
}
