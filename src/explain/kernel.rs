//! What carries Services on this node: whichever of the modes has its rules in the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Context;
use fairlead_iptables::Variant;
use fairlead_plan::{Family, Followed, Packet, Protocol};

/// What the kernel holds of fairlead, read back whole.
#[derive(Debug)]
pub enum Kernel {
    /// Mode nft.
    Nft(fairlead_nft::Tracer),
    /// Mode iptables.
    Iptables(Variant, fairlead_iptables::Tracer),
    /// Mode ipvs.
    Ipvs(fairlead_ipvs::Tracer),
    /// No mode has anything there.
    Nothing,
}

impl Kernel {
    /// Reads it in the network namespace of the caller. Of two modes, as while one takes over from the other, the one is read
    /// that packets meet first.
    ///
    /// # Errors
    /// If the kernel cannot be read, or if somebody has put something into fairlead's tables that it never writes.
    pub fn read() -> anyhow::Result<Self> {
        let tracer = fairlead_nft::Tracer::held().context("reading the tables of mode nft")?;
        if Family::BOTH.into_iter().any(|family| tracer.is_there(family)) {
            return Ok(Self::Nft(tracer));
        }
        let held = fairlead_iptables::held_variant().context("looking for the chains of mode iptables")?;
        if let Some(variant) = held {
            let tracer = fairlead_iptables::Tracer::held(variant).context("reading the chains of mode iptables")?;
            return Ok(Self::Iptables(variant, tracer));
        }
        if fairlead_ipvs::is_here().context("looking for the link of mode ipvs")? {
            let tracer =
                fairlead_ipvs::Tracer::held().context("reading rules, sets and virtual services of mode ipvs")?;
            if Family::BOTH.into_iter().any(|family| tracer.is_there(family)) {
                return Ok(Self::Ipvs(tracer));
            }
        }
        Ok(Self::Nothing)
    }

    /// How it is called.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Nft(_) => "nft",
            Self::Iptables(Variant::Legacy, _) => "iptables, legacy variant",
            Self::Iptables(Variant::Nft, _) => "iptables, nf_tables variant",
            Self::Ipvs(_) => "ipvs",
            Self::Nothing => "nothing of fairlead",
        }
    }

    /// What its rules do with a packet; `None` if there are none.
    ///
    /// # Errors
    /// If the packet cannot be followed.
    pub fn follow(&self, packet: &Packet) -> anyhow::Result<Option<Followed>> {
        Ok(match self {
            Self::Nft(tracer) => Some(tracer.follow(packet)?),
            Self::Iptables(_, tracer) => Some(tracer.follow(packet)?),
            Self::Ipvs(tracer) => Some(tracer.follow(packet)?),
            Self::Nothing => None,
        })
    }

    /// The ports that Services have at an address, without node ports.
    #[must_use]
    pub fn ports(&self, addr: IpAddr) -> BTreeSet<(Protocol, u16)> {
        match self {
            Self::Nft(tracer) => tracer.ports(addr),
            Self::Iptables(_, tracer) => tracer.ports(addr),
            Self::Ipvs(tracer) => tracer.ports(addr),
            Self::Nothing => BTreeSet::new(),
        }
    }
}
