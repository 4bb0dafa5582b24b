use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::{Service, ServiceKey};

/// How many branches the map has, and how many parts a branch has. At 30,000 services a part holds seven.
const FAN: usize = 64;

type Part = BTreeMap<Arc<ServiceKey>, Arc<Service>>;
type Branch = Arc<[Arc<Part>]>;

/// All services of a plan: a map whose clones share what is equal.
///
/// The loop makes a new plan for each change and a backend looks for the difference between two plans. With one big
/// map both would cost time in proportion to the number of services; here a change copies and a comparison looks at
/// twice [`FAN`] pointers and one part, and a clone that is not changed copies one pointer. Iteration is in an order that is
/// stable but means nothing; use [`Services::sorted`] where people look.
#[derive(Debug, Clone, PartialEq)]
pub struct Services {
    branches: Arc<[Branch]>,
    len: usize,
}

/// A service in two plans.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// As the older plan has it, `None` if it does not.
    pub was: Option<&'a Arc<Service>>,
    /// As the newer plan has it, `None` if it is gone.
    pub now: Option<&'a Arc<Service>>,
}

impl Default for Services {
    fn default() -> Self {
        let empty = Arc::new(Part::new());
        let branch: Branch = std::iter::repeat_n(empty, FAN).collect();
        Self { branches: std::iter::repeat_n(branch, FAN).collect(), len: 0 }
    }
}

impl Services {
    /// The branch of a key, and the part in the branch.
    fn place(key: &ServiceKey) -> (usize, usize) {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % (FAN * FAN) as u64).unwrap_or_default();
        (place / FAN, place % FAN)
    }

    fn part(&self, (branch, part): (usize, usize)) -> &Part {
        &self.branches[branch][part]
    }

    fn part_mut(&mut self, (branch, part): (usize, usize)) -> &mut Part {
        let branch = &mut Arc::make_mut(&mut self.branches)[branch];
        Arc::make_mut(&mut Arc::make_mut(branch)[part])
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The service of that name.
    #[must_use]
    pub fn get(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.part(Self::place(key)).get(key)
    }

    /// Puts a service in and gives back the one that was there. An equal service keeps its old `Arc`, so that it does
    /// not count as changed.
    pub fn insert(&mut self, service: Arc<Service>) -> Option<Arc<Service>> {
        let place = Self::place(&service.key);
        if let Some(same) = self.part(place).get(&service.key).filter(|old| ***old == *service) {
            return Some(Arc::clone(same));
        }
        let old = self.part_mut(place).insert(Arc::clone(&service.key), service);
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes a service out.
    pub fn remove(&mut self, key: &ServiceKey) -> Option<Arc<Service>> {
        let place = Self::place(key);
        if !self.part(place).contains_key(key) {
            return None;
        }
        self.len -= 1;
        self.part_mut(place).remove(key)
    }

    /// All of them, in no meaningful order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> + '_ {
        let parts = self.branches.iter().flat_map(|branch| branch.iter());
        parts.filter(|part| !part.is_empty()).flat_map(|part| part.values())
    }

    /// All of them by name, for people and for files.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Arc<Service>> {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// What differs between two plans. Services that share their `Arc` are not looked at.
    pub fn changes<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = Change<'a>> {
        let branches = self.branches.iter().zip(now.branches.iter()).filter(|(was, now)| !Arc::ptr_eq(was, now));
        let parts = branches.flat_map(|(was, now)| was.iter().zip(now.iter()));
        parts.filter(|(was, now)| !Arc::ptr_eq(was, now)).flat_map(|(was, now)| {
            let gone = was.iter().filter(|(key, _)| !now.contains_key(*key));
            let gone = gone.map(|(_, service)| Change { was: Some(service), now: None });
            let rest = now.iter().filter_map(|(key, service)| {
                let old = was.get(key);
                let same = old.is_some_and(|old| Arc::ptr_eq(old, service) || old == service);
                (!same).then_some(Change { was: old, now: Some(service) })
            });
            gone.chain(rest)
        })
    }
}

impl FromIterator<Service> for Services {
    fn from_iter<T: IntoIterator<Item = Service>>(services: T) -> Self {
        let mut all = Self::default();
        for service in services {
            all.insert(Arc::new(service));
        }
        all
    }
}
