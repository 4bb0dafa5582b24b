//! get and list, with pages.

use std::sync::Arc;

use serde_json::json;

use super::{
    request::{Query, Target},
    selector::Selector,
    state::Shared,
    status::Failure,
    store::{Key, Objects, Store, Stored},
};

/// The text of one object.
pub(super) fn get(shared: &Shared, target: &Target) -> Result<Vec<u8>, Failure> {
    let found = shared.store().get(target.resource, &target.namespace, &target.name).cloned();
    let object = found.ok_or_else(|| Failure::no_object(target.resource, &target.name))?;
    let mut text = Vec::with_capacity(object.body.len() + 64);
    object.write(target.resource, &mut text);
    Ok(text)
}

/// The text of a list, or of a page of one.
pub(super) fn list(shared: &Shared, target: &Target, query: &Query) -> Result<Vec<u8>, Failure> {
    let selector = Selector::parse(&target.namespace, query.get("labelSelector"), query.get("fieldSelector"))?;
    let (version, objects, after) = view(&shared.store(), target, query)?;
    // A list at "any" version comes from the watch cache, which does not do pages.
    let any = query.get("resourceVersion") == "0" && query.get("continue").is_empty();
    let limit = query.number("limit").filter(|&limit| limit > 0 && !any).map_or(usize::MAX, |limit| limit as usize);
    let start = match &after {
        Some(key) => (std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded),
        None => (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded),
    };
    let mut rest = objects.range::<Key, _>(start).filter(|(_, object)| selector.matches(object));
    let page: Vec<(&Key, &Arc<Stored>)> = rest.by_ref().take(limit).collect();
    let remaining = rest.count();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (true, Some((key, _))) = (remaining > 0, page.last()) {
        metadata["continue"] = json!(continue_token(version, key));
        if selector.is_empty() {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    Ok(render(target, &metadata.to_string(), &page))
}

fn render(target: &Target, metadata: &str, page: &[(&Key, &Arc<Stored>)]) -> Vec<u8> {
    let size: usize = page.iter().map(|(_, object)| object.body.len() + 1).sum();
    let mut text = Vec::with_capacity(size + 256);
    let (kind, version) = (target.resource.kind, target.resource.api_version());
    text.extend_from_slice(
        format!(r#"{{"kind":"{kind}List","apiVersion":"{version}","metadata":{metadata},"items":["#).as_bytes(),
    );
    for (at, (_, object)) in page.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&object.body);
    }
    text.extend_from_slice(b"]}");
    text
}

/// The version listed, the objects at it, and the key after which the page begins.
fn view(store: &Store, target: &Target, query: &Query) -> Result<(u64, Objects, Option<Key>), Failure> {
    let current = store.version();
    let token = query.get("continue");
    if !token.is_empty() {
        let (version, key) =
            parse_token(token).ok_or_else(|| Failure::bad_request("continue key is not valid: unreadable token"))?;
        // Version 0 marks the token that an expired list gave out: go on with what is there now.
        let version = if version == 0 { current } else { version };
        let objects = store
            .objects_at(target.resource, version)
            .ok_or_else(|| Failure::continue_expired(continue_token(0, &key)))?;
        return Ok((version, objects, Some(key)));
    }
    let exact = query.get("resourceVersionMatch") == "Exact";
    match query.get("resourceVersion") {
        "" | "0" => Ok((current, store.objects(target.resource).clone(), None)),
        text => {
            let asked = text
                .parse()
                .map_err(|_| Failure::bad_request(format!("resourceVersion: Invalid value: \"{text}\"")))?;
            if asked > current {
                return Err(Failure::too_large(asked, current));
            }
            let version = if exact { asked } else { current };
            let objects = store.objects_at(target.resource, version);
            Ok((version, objects.ok_or_else(|| Failure::expired(asked, store.oldest()))?, None))
        }
    }
}

fn continue_token(version: u64, key: &Key) -> String {
    format!("{version}.{}.{}", key.0, key.1).bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_token(token: &str) -> Option<(u64, Key)> {
    let hex = |at: usize| u8::from_str_radix(token.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..token.len()).step_by(2).map(hex).collect();
    let text = String::from_utf8(bytes?).ok()?;
    let (version, key) = text.split_once('.')?;
    let (namespace, name) = key.split_once('.')?;
    Some((version.parse().ok()?, (namespace.into(), name.into())))
}
