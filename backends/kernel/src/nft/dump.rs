use std::ops::ControlFlow;

use super::uapi::*;
use super::{Nfproto, Nft, NftError};
use crate::netlink::{Attributes, attributes, be_u32, be_u64, messages, text};

/// A table as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Differs for every table ever created: a table that was deleted and made again has another.
    pub handle: u64,
    /// `NFT_TABLE_F_*`: 1 dormant, 2 owned by a process.
    pub flags: u32,
    /// As given at creation, else empty.
    pub userdata: Vec<u8>,
}

/// A chain as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    /// Its name.
    pub name: String,
    /// Where packets enter it, for a base chain.
    pub hook: Option<Hook>,
    /// `filter`, `nat` or `route`, for a base chain.
    pub kind: Option<String>,
    /// 1 accept, 0 drop, for a base chain.
    pub policy: Option<u32>,
    /// As given at creation, else empty.
    pub userdata: Vec<u8>,
}

/// The place of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// `NF_INET_*`.
    pub num: u32,
    /// Lower runs earlier.
    pub priority: i32,
}

/// A rule as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its chain.
    pub chain: String,
    /// Its number within the table.
    pub handle: u64,
    /// The content of `NFTA_RULE_EXPRESSIONS`, comparable with [`Exprs`](super::Exprs).
    pub expressions: Vec<u8>,
    /// As given at creation, else empty.
    pub userdata: Vec<u8>,
}

/// A set or map as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetInfo {
    /// Its name.
    pub name: String,
    /// `NFT_SET_*`.
    pub flags: u32,
    /// nft's number for the key's type.
    pub key_type: u32,
    /// Bytes of the key.
    pub key_len: u32,
    /// nft's number for the value's type, for a map.
    pub data_type: Option<u32>,
    /// Bytes of the value, for a map.
    pub data_len: Option<u32>,
    /// How long elements live, in milliseconds.
    pub timeout: Option<u64>,
    /// Greatest number of elements.
    pub size: Option<u32>,
    /// As given at creation, else empty.
    pub userdata: Vec<u8>,
}

/// An element as the kernel has it; valid during the call that hands it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementInfo<'a> {
    /// The key, or the first key of an interval.
    pub key: &'a [u8],
    /// The last key of an interval over a concatenation.
    pub key_end: Option<&'a [u8]>,
    /// A map's value.
    pub data: Option<DataRef<'a>>,
    /// `NFT_SET_ELEM_*`: 1 interval end, 2 catch-all.
    pub flags: u32,
    /// It goes away by itself.
    pub has_expiration: bool,
    /// Milliseconds until it does.
    pub expires_ms: Option<u64>,
}

impl ElementInfo<'_> {
    /// In a plain interval set: this key is the first one after the interval.
    #[must_use]
    pub fn interval_end(&self) -> bool {
        self.flags & NFT_SET_ELEM_INTERVAL_END != 0
    }
}

/// A step of a dump that is handed out while it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dumped<T> {
    /// The first item follows. If somebody changes the ruleset meanwhile the dump begins anew, with this again: what
    /// was handed out before is void, for it may belong to two states.
    Begin,
    /// One of what was asked for.
    Item(T),
}

/// A map's value as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataRef<'a> {
    /// Plain bytes.
    Value(&'a [u8]),
    /// A verdict: 1 accept, 0 drop, -3 jump, -4 goto, -5 return.
    Verdict {
        /// The code.
        code: i32,
        /// The chain of a jump or goto.
        chain: Option<&'a str>,
    },
}

impl Nft {
    /// The generation of the ruleset: every transaction that takes effect in this network namespace, whoever sends it,
    /// makes it one higher. It never is 0.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn generation(&mut self) -> Result<u32, NftError> {
        let reply = self.get(NFT_MSG_GETGEN, Nfproto::Ipv4, &[], false)?;
        let mut generation = None;
        walk(&reply, NFT_MSG_NEWGEN, |list| {
            generation = list.get(NFTA_GEN_ID).and_then(be_u32);
            ControlFlow::Break(())
        });
        generation.ok_or(NftError::Interrupted)
    }

    /// One table; `None` if there is none of that name.
    ///
    /// # Errors
    /// As the kernel says; a missing table is no error.
    pub fn table(&mut self, family: Nfproto, table: &str) -> Result<Option<TableInfo>, NftError> {
        let reply = self.get(NFT_MSG_GETTABLE, family, &[(NFTA_TABLE_NAME, table)], false);
        let reply = match reply {
            Err(error) if error.is_missing() => return Ok(None),
            other => other?,
        };
        let mut found = None;
        walk(&reply, NFT_MSG_NEWTABLE, |list| {
            found = Some(TableInfo {
                handle: list.clone().get(NFTA_TABLE_HANDLE).and_then(be_u64).unwrap_or(0),
                flags: list.clone().get(NFTA_TABLE_FLAGS).and_then(be_u32).unwrap_or(0),
                userdata: list.get(NFTA_TABLE_USERDATA).unwrap_or_default().to_vec(),
            });
            ControlFlow::Continue(())
        });
        Ok(found)
    }

    /// The chains of a table, in the order of their creation; none if there is no such table.
    ///
    /// # Errors
    /// As the kernel says; [`NftError::Interrupted`] if others kept changing the ruleset.
    pub fn chains(&mut self, family: Nfproto, table: &str) -> Result<Vec<ChainInfo>, NftError> {
        let reply = self.get(NFT_MSG_GETCHAIN, family, &[(NFTA_CHAIN_TABLE, table)], true)?;
        let mut found = Vec::new();
        walk(&reply, NFT_MSG_NEWCHAIN, |list| {
            // Up to now no kernel filters chains by table.
            if list.clone().get(NFTA_CHAIN_TABLE).and_then(text) == Some(table) {
                found.push(chain(&list));
            }
            ControlFlow::Continue(())
        });
        Ok(found)
    }

    /// The rules of a table, each chain's in order; none if there is no such table. Takes the kernel time in proportion to
    /// the square of their number: see [`Nft::rules_of_chain`].
    ///
    /// # Errors
    /// As [`Nft::chains`].
    pub fn rules(&mut self, family: Nfproto, table: &str) -> Result<Vec<RuleInfo>, NftError> {
        self.some_rules(family, table, &[(NFTA_RULE_TABLE, table)])
    }

    /// The rules of one chain, in order; none if there is no such chain.
    ///
    /// # Errors
    /// As [`Nft::chains`].
    pub fn rules_of_chain(&mut self, family: Nfproto, table: &str, chain: &str) -> Result<Vec<RuleInfo>, NftError> {
        self.some_rules(family, table, &[(NFTA_RULE_TABLE, table), (NFTA_RULE_CHAIN, chain)])
    }

    fn some_rules(&mut self, family: Nfproto, table: &str, names: &[(u16, &str)]) -> Result<Vec<RuleInfo>, NftError> {
        let reply = self.get(NFT_MSG_GETRULE, family, names, true)?;
        let mut found = Vec::new();
        walk(&reply, NFT_MSG_NEWRULE, |list| {
            if list.clone().get(NFTA_RULE_TABLE).and_then(text) == Some(table) {
                found.push(RuleInfo {
                    chain: owned(&list, NFTA_RULE_CHAIN),
                    handle: list.clone().get(NFTA_RULE_HANDLE).and_then(be_u64).unwrap_or(0),
                    expressions: list.clone().get(NFTA_RULE_EXPRESSIONS).unwrap_or_default().to_vec(),
                    userdata: list.get(NFTA_RULE_USERDATA).unwrap_or_default().to_vec(),
                });
            }
            ControlFlow::Continue(())
        });
        Ok(found)
    }

    /// The sets and maps of a table, anonymous ones included; none if there is no such table.
    ///
    /// # Errors
    /// As [`Nft::chains`].
    pub fn sets(&mut self, family: Nfproto, table: &str) -> Result<Vec<SetInfo>, NftError> {
        let reply = match self.get(NFT_MSG_GETSET, family, &[(NFTA_SET_TABLE, table)], true) {
            Err(error) if error.is_missing() => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        walk(&reply, NFT_MSG_NEWSET, |list| {
            found.push(set(&list));
            ControlFlow::Continue(())
        });
        Ok(found)
    }

    /// Hands out every element of a set or map, in the kernel's own order. Nothing is handed out before the whole
    /// dump has arrived and is known to be of one state. A map that rules write to (`dynset`) may show an element
    /// twice.
    ///
    /// # Errors
    /// As [`Nft::chains`]; a missing table or set is an error ([`NftError::is_missing`]).
    pub fn elements(
        &mut self,
        family: Nfproto,
        table: &str,
        set: &str,
        each: &mut dyn FnMut(ElementInfo<'_>),
    ) -> Result<(), NftError> {
        let names = [(NFTA_SET_ELEM_LIST_TABLE, table), (NFTA_SET_ELEM_LIST_SET, set)];
        let reply = self.get(NFT_MSG_GETSETELEM, family, &names, true)?;
        each_element(&reply, each);
        Ok(())
    }

    /// Hands out every element as the kernel sends it: one by one they need no room, all of them, at 100,000 endpoints,
    /// 9 MB.
    ///
    /// # Errors
    /// As [`Nft::elements`]. Then what was handed out is void as well.
    pub fn stream_elements(
        &mut self,
        family: Nfproto,
        table: &str,
        set: &str,
        each: &mut dyn FnMut(Dumped<ElementInfo<'_>>),
    ) -> Result<(), NftError> {
        let names = [(NFTA_SET_ELEM_LIST_TABLE, table), (NFTA_SET_ELEM_LIST_SET, set)];
        self.hand_out(NFT_MSG_GETSETELEM, family, &names, true, &mut |piece| match piece {
            Dumped::Begin => each(Dumped::Begin),
            Dumped::Item(bytes) => each_element(bytes, &mut |element| each(Dumped::Item(element))),
        })
    }
}

fn each_element(reply: &[u8], each: &mut dyn FnMut(ElementInfo<'_>)) {
    walk(reply, NFT_MSG_NEWSETELEM, |list| {
        let elements = list.get(NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
        attributes(elements).filter_map(|item| element(&item.nested())).for_each(&mut *each);
        ControlFlow::Continue(())
    });
}

fn walk<'a>(reply: &'a [u8], wanted: u16, mut each: impl FnMut(Attributes<'a>) -> ControlFlow<()>) {
    for message in messages(reply) {
        if message.header.kind == kind(wanted)
            && each(attributes(message.payload.get(NFGENMSG_LEN..).unwrap_or_default())).is_break()
        {
            return;
        }
    }
}

fn owned(list: &Attributes<'_>, kind: u16) -> String {
    list.clone().get(kind).map(String::from_utf8_lossy).unwrap_or_default().trim_end_matches('\0').to_owned()
}

fn chain(list: &Attributes<'_>) -> ChainInfo {
    let number = |kind| list.clone().get(kind).and_then(be_u32);
    let hook = list.clone().get(NFTA_CHAIN_HOOK).and_then(|hook| {
        let hook = attributes(hook);
        Some(Hook {
            num: hook.clone().get(NFTA_HOOK_HOOKNUM).and_then(be_u32)?,
            priority: hook.get(NFTA_HOOK_PRIORITY).and_then(be_u32)?.cast_signed(),
        })
    });
    ChainInfo {
        name: owned(list, NFTA_CHAIN_NAME),
        hook,
        kind: list.clone().get(NFTA_CHAIN_TYPE).and_then(text).map(str::to_owned),
        policy: number(NFTA_CHAIN_POLICY),
        userdata: list.clone().get(NFTA_CHAIN_USERDATA).unwrap_or_default().to_vec(),
    }
}

fn set(list: &Attributes<'_>) -> SetInfo {
    let number = |kind| list.clone().get(kind).and_then(be_u32);
    let description = attributes(list.clone().get(NFTA_SET_DESC).unwrap_or_default());
    SetInfo {
        name: owned(list, NFTA_SET_NAME),
        flags: number(NFTA_SET_FLAGS).unwrap_or(0),
        key_type: number(NFTA_SET_KEY_TYPE).unwrap_or(0),
        key_len: number(NFTA_SET_KEY_LEN).unwrap_or(0),
        data_type: number(NFTA_SET_DATA_TYPE),
        data_len: number(NFTA_SET_DATA_LEN),
        timeout: list.clone().get(NFTA_SET_TIMEOUT).and_then(be_u64),
        size: description.get(NFTA_SET_DESC_SIZE).and_then(be_u32),
        userdata: list.clone().get(NFTA_SET_USERDATA).unwrap_or_default().to_vec(),
    }
}

/// Reads one element; `None` for a catch-all element, which has no key.
pub(super) fn element<'a>(list: &Attributes<'a>) -> Option<ElementInfo<'a>> {
    let mut info =
        ElementInfo { key: &[], key_end: None, data: None, flags: 0, has_expiration: false, expires_ms: None };
    let mut key = None;
    for attribute in list.clone() {
        match attribute.kind {
            NFTA_SET_ELEM_KEY => key = attribute.nested().get(NFTA_DATA_VALUE),
            NFTA_SET_ELEM_KEY_END => info.key_end = attribute.nested().get(NFTA_DATA_VALUE),
            NFTA_SET_ELEM_DATA => info.data = data(attribute.nested()),
            NFTA_SET_ELEM_FLAGS => info.flags = be_u32(attribute.payload).unwrap_or(0),
            NFTA_SET_ELEM_EXPIRATION => info.expires_ms = be_u64(attribute.payload),
            _ => {}
        }
    }
    info.has_expiration = info.expires_ms.is_some();
    info.key = key?;
    Some(info)
}

fn data(list: Attributes<'_>) -> Option<DataRef<'_>> {
    if let Some(value) = list.clone().get(NFTA_DATA_VALUE) {
        return Some(DataRef::Value(value));
    }
    let verdict = attributes(list.get(NFTA_DATA_VERDICT)?);
    let code = verdict.clone().get(NFTA_VERDICT_CODE).and_then(be_u32)?.cast_signed();
    Some(DataRef::Verdict { code, chain: verdict.get(NFTA_VERDICT_CHAIN).and_then(text) })
}
