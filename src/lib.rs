//! fairlead replaces kube-proxy and flanneld on a Kubernetes node. This page is the architecture.
//!
//! # The path of one EndpointSlice change
//!
//! ```text
//!  API server or directory of manifests
//!     │ watch            trims the object while decoding, sends object::Event
//!     ▼
//!  world::World::apply   parses it into a compact model, marks the Services concerned
//!     │
//!  reconcile::Reconciler decides when: all first lists complete, nothing under way, min sync period over
//!     ▼
//!  world::World::plan    resolves the marked Services again (resolve::service, pure) into a new fairlead_plan::Plan that
//!     │                  shares everything else with the old one
//!     ▼
//!  program::Programmer   carries a small change out at once; a thread does what takes long, and a plan that waits for it is
//!     │                  replaced by a newer one
//!     ▼
//!  Backend::sync(was, now)      backends/nft: render both states of each changed service to elements (pure), subtract
//!     ▼                         (diff, pure), write one netlink transaction; backends/iptables: render to chains, compare,
//!     │                         write those that differ
//!  backends/kernel       the only code that touches the kernel
//!     │
//!     ▼ outcome
//!  Reconciler::settled   metrics, health, load-balancer checks, Events, stale UDP flows (flows, conntrack)
//! ```
//!
//! Beside it stands [`guard`]: a thread that hears the kernel's announcements. What is about our tables and was not written
//! by our own socket makes the loop doubt: the next sync reads the kernel, compares and repairs. What the kernel does not
//! announce, as changes of legacy tables of iptables, is looked at twice a second. [`modes`] chooses the backend and takes away
//! what other modes have left once the plan is carried out.
//!
//! With `--nodeport-addresses=localhost` another stands beside it: [`loopback`], a proxy for node ports on 127.0.0.1 and ::1,
//! which the kernel cannot forward from. It follows each plan that the kernel carries out.
//!
//! With `--overlay-backend` the [`overlay`] stands beside all of it: a thread that hears of Nodes from the same source and
//! of links, addresses, neighbours and routes from the kernel, and keeps the way to the pods of other nodes. It shares
//! nothing with the service path but the source, so that neither waits for the other.
//!
//! [`explain`] follows one packet through what the kernel holds: each backend reads its tables back into the very types that its
//! interpreter walks. What the plan says beside that is asked of the running program through [`local`], a socket in the file
//! system, which answers from what the loop has told it.
//!
//! With `--service-counters` [`counters`] hears from the kernel which connections begin, and adds them up by service port.
//!
//! [`page`] shows the same to a browser on this node, beside the answers of [`health`].
//!
//! [`config`] turns flags, or the file of `--config`, into settings that are complete and valid; a file becomes the flags that mean
//! the same. When it changes the program begins anew in the same process: a start keeps what is right in the kernel.
//!
//! # Arrows
//!
//! ```text
//!  kube, k8s-openapi ─> src ─> backends/{nft,iptables,ipvs} ─> backends/plan      knows no Kubernetes, no I/O
//!                                                          ─> backends/kernel    knows no plan
//!                                            backends/ipvs ─> backends/ipvs-rs   knows nothing of fairlead
//!  tests/* ─> everything; nothing that ships depends on tests
//! ```
//!
//! Cargo enforces them, and a test reads the manifests. `unsafe` is forbidden everywhere but in `backends/kernel`.
//!
//! # Invariants
//!
//! 1. Decisions are made once, in `resolve`, as values. A backend could not say what type a Service has.
//! 2. The difference is always taken between two whole plans, so nothing can be lost: after a failure, or on any doubt, the
//!    next sync assumes nothing (`was = None`), reads what the kernel holds and writes what differs.
//! 3. Nothing is programmed before all first lists are complete, and nothing is deleted because a list is not.
//! 4. A change costs what changed. Plans share structure ([`fairlead_plan::Services`]), the pools of a service keep the
//!    slots of endpoints that stay, nothing is listed and no process is started on the path of a change.
//! 5. One owner for each state: the loop's task. The backend alone is lent: to the thread for what takes long, else it is used in
//!    place, never by both. Other locks are only where servers read figures.
//! 6. We own the tables `fairlead`, in the other modes chains and sets called `KUBE-`, and of the overlay what [`overlay`] lists, and
//!    touch nothing else.
//! 7. Bad input is one sentence, one count, and disturbs nothing else.
//!
//! # Where this differs from the first design, and why
//!
//! - *Affinity* is a map, two small maps and a chain for each service that has it, not constant rules: `nft` 1.0.6 aborts when it
//!   loads an IPv6 rule that updates a map with a key longer than 16 bytes, so a shared map keyed by client and frontend
//!   would make our own listing unloadable. In return all frontends of a service share one memory, as in kube-proxy, and an
//!   endpoint that is gone is forgotten by the kernel itself on the client's next connection.
//! - *Chains around the overlay are called `FAIRLEAD-`*, not as flannel calls its own: where fairlead leaves the overlay to a
//!   flanneld on the same node, its start and its cleanup could not tell whose they are.
//! - *Maps have no size.* A fixed size halves the time of a bulk load but is a hard limit that can only be changed by rebuilding
//!   the map under traffic; growth without a limit is worth 0.1 s at a cold start with 100,000 endpoints.
//! - *Small changes are written by the loop itself*, not by the programmer's thread: to wake a thread took 15 to 110 of the 300
//!   microseconds that a change took. The HTTP servers have a thread, so that nobody who asks about health waits for the kernel.
//! - *Nobody listens during a start.* While a socket listens, the kernel describes every element that is written, which is a third
//!   of the time of a cold start. Whether somebody else wrote meanwhile is seen by the generation of the ruleset.
//! - *A start compares numbers.* Of what the kernel should hold 64 bits for each element are kept and its answer is read element by
//!   element; both in full would be a fifth of the program's memory, for one moment.
//! - *Rules for pool sizes* up to 15 exist from the start, in one chain for each kind of pool; larger sizes have a chain each, which
//!   is counted and comes and goes with its last user, so that the way to a plan does not matter.
//! - *One element for a frontend*, not one for each origin, where all of them lead to the same place: a change of a pool's size is
//!   three elements, and what a change costs after a pause is the memory that it touches.
//! - *iptables without its programs.* With 10,000 services `iptables-restore` of the legacy variant spends 0.6 s in a change and
//!   15 s in a start with kube-proxy's shape, most of it in its own lists, and that of the nf_tables variant does not end within a
//!   minute. The kernel's own interfaces also give back what was written byte for byte, so that comparing is exact.
//! - *One chain for a service in iptables*, not one for each endpoint as well: `KUBE-SEP-` chains exist where they do more than
//!   translate, for endpoints on this node (hairpin) and for affinity. A replaced table costs the kernel 3 us for each rule.
//! - *Chains that kube-proxy does not have are named as if they were its own*, so that it removes them when a node goes back to
//!   it: a chain that stays and leads to others would make its first `iptables-restore` fail.
//! - *kube's watcher is not used*, only its client: it fails a whole page for one bad object, needs full metadata, and waits
//!   for ever for a streamed list that an older server never ends.
//!
//! # Why each dependency is here
//!
//! | crate | for |
//! |---|---|
//! | `kube`, `k8s-openapi` | the client of the API: kubeconfig, service accounts, rotating tokens, TLS |
//! | `tokio`, `futures`, `tower`, `hyper`, `hyper-util`, `http-body-util` | what kube stands on; also our HTTP servers |
//! | `serde`, `serde_json`, `serde-saphyr` | objects as JSON and YAML |
//! | `socket2` | listeners that bind one port separately for IPv4 and IPv6 |
//! | `prometheus` | metrics; without protobuf |
//! | `clap`, `clap_complete`, `clap_mangen` | the command line, and from it completions for shells and manual pages |
//! | `tracing`, `tracing-subscriber` | logs |
//! | `ipnet` | prefixes |
//! | `hashbrown` | tables of numbers whose keys are elsewhere, which the standard library's cannot be |
//! | `regex` | interfaces by expression, as flannel's `--iface-regex` |
//! | `thiserror`, `anyhow` | errors of libraries, errors of the program |
//! | `sha2` | names of chains of iptables, which kube-proxy makes of SHA-256 |
//! | `libc` | system calls, in `backends/kernel` alone |
//! | `netlink-packet-core`, `netlink-packet-generic` | the wire types below `ipvs-rs`, shared with the rust-netlink family of crates |
//! | `nftables` | the types of `nft -j`: what `fairlead render` prints and what tests read |
//! | `insta`, `proptest` | tests |
//!
//! Not used to write to the kernel: the crate `rtnetlink`, whose 52,000 lines of packet types would be the slow part of the
//! build, brings an async runtime where a thread blocks, and pipelines requests of which a refusal is hard to place; the
//! 1,800 lines of [`fairlead_kernel::route`] write 30,000 objects in 60 datagrams; the crate `nftables` runs the `nft` program (1.5 s and 240 MB for 100,000 elements where the
//! kernel needs 0.1 s, and nft 1.0.6 cannot create our maps from JSON); the crate `ipset` cannot add the sets that ipvs mode
//! needs and links a GPL library; the registry's crates for IPVS panic on unknown attributes or lack persistence, so
//! `backends/ipvs-rs` is one of our own.
//!
//! # Style
//!
//! Public things first, then in the order of calls. Comments say why. Names are spelled out and are the field's own. Tests are
//! named by sentences. Files aim at 250 lines and stop at 400, functions at 50.
#![forbid(unsafe_code)]

pub mod colour;
pub mod config;
pub mod conntrack;
pub mod counters;
pub mod explain;
pub mod flows;
pub mod guard;
pub mod health;
pub mod local;
pub mod loopback;
pub mod metrics;
pub mod modes;
pub mod object;
pub mod outward;
pub mod overlay;
pub mod page;
pub mod program;
pub mod reconcile;
pub mod render;
pub mod resolve;
pub mod run;
pub mod services;
pub mod status;
pub mod sysctls;
pub mod watch;
pub mod world;
