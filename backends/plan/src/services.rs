use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::{Service, ServiceKey};

/// How many branches a branch has.
const FAN: usize = 8;
/// How many branches are between the root and a part. At 30,000 services a part holds seven.
const LEVELS: usize = 4;

/// All services of a plan: a map whose clones share what is equal.
///
/// The loop makes a new plan for each change and a backend looks for the difference between two plans. With one big
/// map both would cost time in proportion to the number of services; here a change copies [`LEVELS`] times [`FAN`] pointers
/// and one part, a comparison looks at as many, and a clone that is not changed copies one pointer. Each pointer that is
/// copied counts one user more somewhere else in memory, which no cache holds after a pause; so there are many small levels.
/// Iteration is in an order that is stable but means nothing; use [`Services::sorted`] where people look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    root: Arc<Tree>,
    len: usize,
}

/// Where a service is follows from the hash of its key: its lowest digits say which branch is taken at each level.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tree {
    Branch([Arc<Self>; FAN]),
    Part(Part),
}

/// Services with the hashes of their keys, in order of both.
type Part = Vec<(u64, Arc<Service>)>;

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
        let empty = Arc::new(Tree::Part(Part::new()));
        let above = |below: Arc<Tree>, _| Arc::new(Tree::Branch(std::array::from_fn(|_| Arc::clone(&below))));
        Self { root: (0..LEVELS).fold(empty, above), len: 0 }
    }
}

fn hash_of(key: &ServiceKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The branch that is taken first, and what says the next ones.
#[expect(clippy::cast_possible_truncation, reason = "the remainder is below FAN")]
const fn turn(hash: u64) -> (usize, u64) {
    ((hash % FAN as u64) as usize, hash / FAN as u64)
}

/// Where a key is in a part, or would be.
fn search(part: &Part, hash: u64, key: &ServiceKey) -> Result<usize, usize> {
    part.binary_search_by(|(other, service)| other.cmp(&hash).then_with(|| (*service.key).cmp(key)))
}

impl Services {
    fn part(&self, hash: u64) -> &Part {
        let (mut tree, mut left) = (&*self.root, hash);
        loop {
            match tree {
                Tree::Branch(branches) => {
                    let (branch, next) = turn(left);
                    (tree, left) = (&branches[branch], next);
                }
                Tree::Part(part) => return part,
            }
        }
    }

    fn part_mut(&mut self, hash: u64) -> &mut Part {
        let (mut tree, mut left) = (Arc::make_mut(&mut self.root), hash);
        loop {
            match tree {
                Tree::Branch(branches) => {
                    let (branch, next) = turn(left);
                    (tree, left) = (Arc::make_mut(&mut branches[branch]), next);
                }
                Tree::Part(part) => return part,
            }
        }
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
        let hash = hash_of(key);
        let part = self.part(hash);
        search(part, hash, key).ok().map(|at| &part[at].1)
    }

    /// Puts a service in and gives back the one that was there. An equal service keeps its old `Arc`, so that it does
    /// not count as changed.
    pub fn insert(&mut self, service: Arc<Service>) -> Option<Arc<Service>> {
        let hash = hash_of(&service.key);
        let part = self.part(hash);
        match search(part, hash, &service.key) {
            Ok(at) if *part[at].1 == *service => Some(Arc::clone(&part[at].1)),
            Ok(at) => Some(std::mem::replace(&mut self.part_mut(hash)[at].1, service)),
            Err(at) => {
                let part = self.part_mut(hash);
                part.reserve_exact(1);
                part.insert(at, (hash, service));
                self.len += 1;
                None
            }
        }
    }

    /// Takes a service out.
    pub fn remove(&mut self, key: &ServiceKey) -> Option<Arc<Service>> {
        let hash = hash_of(key);
        let at = search(self.part(hash), hash, key).ok()?;
        self.len -= 1;
        Some(self.part_mut(hash).remove(at).1)
    }

    /// All of them, in no meaningful order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> + '_ {
        let mut waiting = vec![&*self.root];
        let parts = std::iter::from_fn(move || {
            loop {
                match waiting.pop()? {
                    Tree::Branch(branches) => waiting.extend(branches.iter().map(|tree| &**tree)),
                    Tree::Part(part) => return Some(part),
                }
            }
        });
        parts.flatten().map(|(_, service)| service)
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
        let mut waiting = vec![(&self.root, &now.root)];
        let parts = std::iter::from_fn(move || {
            loop {
                let (was, now) = waiting.pop()?;
                if Arc::ptr_eq(was, now) {
                    continue;
                }
                match (&**was, &**now) {
                    (Tree::Branch(was), Tree::Branch(now)) => waiting.extend(was.iter().zip(now)),
                    (Tree::Part(was), Tree::Part(now)) => return Some((was, now)),
                    (Tree::Branch(_), Tree::Part(_)) | (Tree::Part(_), Tree::Branch(_)) => {
                        unreachable!("all trees have the same levels")
                    }
                }
            }
        });
        parts.flat_map(|(was, now)| changes_of(was, now))
    }
}

fn changes_of<'a>(was: &'a Part, now: &'a Part) -> impl Iterator<Item = Change<'a>> {
    // Looked for first, because it reads pointers alone; a search reads names.
    let shares = |part: &Part, service: &Arc<Service>| part.iter().any(|(_, other)| Arc::ptr_eq(other, service));
    let find = |part: &'a Part, (hash, service): &(u64, Arc<Service>)| {
        search(part, *hash, &service.key).ok().map(|at| &part[at].1)
    };
    let gone = was.iter().filter(move |entry| !shares(now, &entry.1) && find(now, entry).is_none());
    let gone = gone.map(|(_, service)| Change { was: Some(service), now: None });
    let rest = now.iter().filter(move |entry| !shares(was, &entry.1)).filter_map(move |entry| {
        let (old, new) = (find(was, entry), &entry.1);
        (old != Some(new)).then_some(Change { was: old, now: Some(new) })
    });
    gone.chain(rest)
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
