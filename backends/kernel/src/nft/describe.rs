//! Says in words what a message of a batch was about, so that an error can name it. Works on the bytes that were
//! sent: the batch keeps no second copy.

use std::fmt::Write;

use super::uapi::*;
use crate::netlink::{Attributes, HEADER_LEN, attributes, be_u32, text};
use crate::xtables;

/// Words for the message at the start of `message`; `offset` is where in it the kernel pointed.
pub(super) fn describe(message: &[u8], offset: Option<u32>) -> String {
    let kind = u16::from_ne_bytes([message[4], message[5]]);
    let family = match message[HEADER_LEN] {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => "?",
    };
    let command = command(kind).unwrap_or(NFT_MSG_NEWGEN);
    let len = u32::from_ne_bytes([message[0], message[1], message[2], message[3]]) as usize;
    let body = message.get(HEADER_LEN + NFGENMSG_LEN..len.min(message.len())).unwrap_or_default();
    let list = attributes(body);
    let name = |kind| list.clone().get(kind).and_then(text).unwrap_or("?");
    let verb = match command {
        NFT_MSG_NEWTABLE | NFT_MSG_NEWCHAIN | NFT_MSG_NEWRULE | NFT_MSG_NEWSET | NFT_MSG_NEWSETELEM => "add",
        NFT_MSG_DESTROYTABLE..=NFT_MSG_DESTROYSETELEM => "destroy",
        NFT_MSG_DELTABLE | NFT_MSG_DELCHAIN | NFT_MSG_DELRULE | NFT_MSG_DELSET | NFT_MSG_DELSETELEM => "delete",
        _ => "read",
    };
    let table = format!("table {family} {}", name(NFTA_TABLE_NAME));
    match command {
        NFT_MSG_NEWTABLE | NFT_MSG_GETTABLE | NFT_MSG_DELTABLE | NFT_MSG_DESTROYTABLE => format!("{verb} {table}"),
        NFT_MSG_NEWCHAIN | NFT_MSG_GETCHAIN | NFT_MSG_DELCHAIN | NFT_MSG_DESTROYCHAIN => {
            format!("{verb} chain {} of {table}", name(NFTA_CHAIN_NAME))
        }
        NFT_MSG_NEWRULE => {
            let with = extension(list.clone(), offset).map(|words| format!(" with {words}")).unwrap_or_default();
            format!("{verb} rule{with} to chain {} of {table}", name(NFTA_RULE_CHAIN))
        }
        NFT_MSG_GETRULE | NFT_MSG_DELRULE | NFT_MSG_DESTROYRULE => {
            format!("{verb} rules of chain {} of {table}", name(NFTA_RULE_CHAIN))
        }
        NFT_MSG_NEWSET | NFT_MSG_GETSET | NFT_MSG_DELSET | NFT_MSG_DESTROYSET => {
            format!("{verb} set {} of {table}", name(NFTA_SET_NAME))
        }
        NFT_MSG_NEWSETELEM | NFT_MSG_GETSETELEM | NFT_MSG_DELSETELEM | NFT_MSG_DESTROYSETELEM => {
            let what = element(list.clone(), offset).unwrap_or_else(|| "elements".to_owned());
            let preposition = if command == NFT_MSG_NEWSETELEM { "to" } else { "of" };
            format!("{verb} {what} {preposition} set {} of {table}", name(NFTA_SET_ELEM_LIST_SET))
        }
        _ => "run the transaction".to_owned(),
    }
}

/// Where in a message the items of a list are: behind its headers and that of the list.
const LIST_HEADER: usize = 4;

/// The match or target of `xtables` to which the kernel pointed.
fn extension(mut list: Attributes<'_>, offset: Option<u32>) -> Option<String> {
    let offset = offset? as usize;
    let expressions = list.find(|attribute| attribute.kind == NFTA_RULE_EXPRESSIONS)?;
    let start = HEADER_LEN + NFGENMSG_LEN + expressions.offset + LIST_HEADER;
    let found = expressions.nested().take_while(|item| start + item.offset <= offset).last()?;
    let target = match found.nested().get(NFTA_EXPR_NAME).and_then(text)? {
        "match" => false,
        "target" => true,
        _ => return None,
    };
    let data = attributes(found.nested().get(NFTA_EXPR_DATA)?);
    let revision = data.clone().get(NFTA_XT_REVISION).and_then(be_u32)?;
    let name = data.clone().get(NFTA_XT_NAME).and_then(text)?;
    Some(xtables::words(target, name, u8::try_from(revision).unwrap_or(u8::MAX)))
}

/// The element to which the kernel pointed, or the only one there is.
fn element(mut list: Attributes<'_>, offset: Option<u32>) -> Option<String> {
    let elements = list.find(|attribute| attribute.kind == NFTA_SET_ELEM_LIST_ELEMENTS)?;
    let start = HEADER_LEN + NFGENMSG_LEN + elements.offset + LIST_HEADER;
    let mut all = elements.nested();
    let found = match offset {
        Some(offset) => all.take_while(|element| start + element.offset <= offset as usize).last()?,
        None => all.next().filter(|_| all.next().is_none())?,
    };
    let bytes = |kind| found.nested().get(kind).and_then(|data| attributes(data).get(NFTA_DATA_VALUE));
    let mut words = format!("element {}", hex(bytes(NFTA_SET_ELEM_KEY)?));
    if let Some(end) = bytes(NFTA_SET_ELEM_KEY_END) {
        let _ = write!(words, "-{}", hex(end));
    }
    Some(words)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut words, byte| {
        let _ = write!(words, "{byte:02x}");
        words
    })
}
