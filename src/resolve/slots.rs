use std::net::SocketAddr;

use fairlead_plan::Endpoint;

/// Orders a pool so that as little as possible changes against the pool before.
///
/// An endpoint that stays keeps its slot. A new one takes the slot of one that went. If more went than came, the last
/// ones move into the holes; if more came, the rest goes to the end. From nothing the order is the sorted one.
///
/// `wanted` is sorted by address and has no address twice.
pub(super) fn keep(old: &[Endpoint], wanted: Vec<Endpoint>) -> Vec<Endpoint> {
    if old.is_empty() || wanted.is_empty() {
        return exact(wanted);
    }
    let mut stays = vec![false; wanted.len()];
    let mut slots: Vec<Option<Endpoint>> = Vec::with_capacity(old.len().max(wanted.len()));
    for endpoint in old {
        let found = position(&wanted, endpoint.addr()).filter(|index| !stays[*index]);
        if let Some(index) = found {
            stays[index] = true;
        }
        slots.push(found.map(|index| wanted[index]));
    }
    let mut new = wanted.iter().zip(&stays).filter(|(_, stays)| !**stays).map(|(endpoint, _)| *endpoint);
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = new.next();
    }
    slots.extend(new.map(Some));
    exact(close_holes(slots))
}

/// Without room for more: pools are kept for as long as the Service lives, and there may be ten thousand.
fn exact(mut pool: Vec<Endpoint>) -> Vec<Endpoint> {
    pool.shrink_to_fit();
    pool
}

fn position(sorted: &[Endpoint], addr: SocketAddr) -> Option<usize> {
    sorted.binary_search_by(|endpoint| endpoint.addr().cmp(&addr)).ok()
}

/// Moves the last endpoint into the first hole until there is none.
fn close_holes(mut slots: Vec<Option<Endpoint>>) -> Vec<Endpoint> {
    let mut closed = Vec::with_capacity(slots.len());
    let mut next = 0;
    while next < slots.len() {
        if let Some(endpoint) = slots[next] {
            closed.push(endpoint);
            next += 1;
        } else {
            slots.swap_remove(next);
        }
    }
    closed
}
