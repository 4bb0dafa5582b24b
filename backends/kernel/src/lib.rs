//! The only code of fairlead that touches the kernel.
//!
//! ```text
//!    backends, resolver, health checks        decide what should be: plans, rules, which flows are stale
//!  ------------- this crate ------------------------------------------------------------------------------
//!    nft                 conntrack        address, route   sysctl, process         netns
//!    batches, dumps,     UDP flows:       links, routes,   settings, module        tests and lab:
//!    notices             list, delete     neighbours       parameter, OOM score    threads in namespaces
//!       |                   |                |                 |                       |
//!       +-------------- netlink (datagrams) --------------+  files in /proc, /sys    setns, unshare
//!  ------------------------------------------ system calls -----------------------------------------------
//!    kernel
//! ```
//!
//! [`ipset`] stands beside [`nft`] and [`conntrack`], on the same netlink; [`ask`] beside all of it, on raw sockets;
//! [`local`] makes the socket in the file system by which a program is asked; [`memory`] gathers the heap in large pages and gives back what is unused.
//!
//! What it does not do: it knows no plan, no service and no Kubernetes; it decides nothing, keeps no state of what it
//! wrote, starts no threads and logs nothing. Every call blocks its thread, a large transaction for a tenth of a
//! second and more, so callers own a thread for it. All `unsafe` code of the program is here: the
//! sockets, the namespaces, and `uname`.
//!
//! The messages are written by hand. Libraries were tried: those over the `nft` program cost 1.5 s and 240 MB where the
//! kernel needs 0.1 s, the others lack expressions, error offsets or the guard against lengths that wrap.

pub mod address;
pub mod ask;
pub mod conntrack;
pub mod file;
pub mod ipset;
pub mod ipvs;
pub mod link;
pub mod local;
pub mod memory;
mod module;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod process;
pub mod restore;
pub mod route;
pub mod sysctl;
pub mod xtables;
