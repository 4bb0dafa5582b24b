//! The only code of fairlead that touches the kernel.
pub mod netlink;
pub mod netns;
pub mod nft;
