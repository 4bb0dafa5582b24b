//! The ways to the kernel, and what must be there before the first service.

use std::io;
use std::time::{Duration, Instant};

use fairlead_kernel::address::local_addresses;
use fairlead_kernel::ipset::{Ipset, SetBatch, SetSpec};
use fairlead_kernel::ipvs::GenericNetlink;
use fairlead_kernel::link::{LinkError, Links, has_ipv6};
use fairlead_kernel::{restore, sysctl};
use fairlead_plan::{Family, Node, Report};
use ipvs_rs::{Client, Message, Scheduler, Service, ServiceId, Transport};

use crate::error::Error;
use crate::layout::{self, LINK, Set};
use crate::mark::Marks;
use crate::writes::{Write, Writes};
use crate::{Settings, rules, stay, structure};

/// Whether IPVS knows a scheduler is tried out here (RFC 5737), as kube-proxy does.
const TRIAL: ([u8; 4], u16) = ([198, 51, 100, 0], 20_000);
const EEXIST: i32 = 17;
/// The index of `lo` (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// A set that is filled to change places with another.
pub const SPARE: &str = "KUBE-IPVS-SPARE";

/// `conntrack`: masquerade needs it. `expire_*`: connections and clients of an endpoint that is gone go elsewhere.
const SYSCTLS: [(&str, &str); 4] = [
    ("net/ipv4/vs/conntrack", "1"),
    ("net/ipv4/vs/expire_nodest_conn", "1"),
    ("net/ipv4/vs/expire_quiescent_template", "1"),
    ("net/ipv4/ip_forward", "1"),
];
/// As kube-proxy sets them.
const STRICT_ARP: [(&str, &str); 2] = [("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2")];

/// The socket of IPVS, and how long it made us wait.
#[derive(Debug)]
pub struct Netlink {
    socket: GenericNetlink,
    waited: Duration,
}

impl Transport for Netlink {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let began = Instant::now();
        let sent = self.socket.send(datagram);
        self.waited += began.elapsed();
        sent
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let began = Instant::now();
        let received = self.socket.receive(buffer);
        self.waited += began.elapsed();
        received
    }
}

/// What `iptables-save` prints of [`structure::TABLES`], by family.
pub type Saved = Vec<(Family, [String; structure::TABLES.len()])>;

/// All of them, in one network namespace.
#[derive(Debug)]
pub struct Doors {
    pub ipvs: Client<Netlink>,
    pub ipset: Ipset,
    pub links: Links,
    /// Time spent on sets, links and rules; that of IPVS counts its socket.
    waited: Duration,
}

impl Doors {
    /// Opens them and changes nothing.
    pub fn open() -> Result<Self, Error> {
        let socket = GenericNetlink::open().map_err(ipvs_rs::Error::Socket)?;
        let ipvs = Client::open(Netlink { socket, waited: Duration::ZERO })?;
        let ipset = Ipset::open()?;
        Ok(Self { ipvs, ipset, links: Links::open()?, waited: Duration::ZERO })
    }

    /// How long the kernel has made us wait since this was asked last.
    pub fn take_waited(&mut self) -> Duration {
        let ipvs = std::mem::take(&mut self.ipvs.transport().waited);
        ipvs + std::mem::take(&mut self.waited)
    }

    /// The families that this network namespace has.
    pub fn families() -> impl Iterator<Item = Family> + Clone {
        Family::BOTH.into_iter().filter(|family| *family == Family::V4 || has_ipv6())
    }

    /// Whether IPVS has a scheduler, tried with a virtual service that goes at once.
    pub fn try_scheduler(&mut self, scheduler: &Scheduler) -> Result<(), Error> {
        let id = ServiceId::Address { protocol: ipvs_rs::Protocol::Tcp, address: TRIAL.into() };
        let trial = Message::new_service(&Service::new(id).scheduler(scheduler.clone()));
        let batch = [trial, Message::del_service(&id)];
        match self.ipvs.apply(&batch)?.first() {
            Some(refusal) if refusal.errno != EEXIST => Err(Error::refused(&batch[refusal.index], refusal.errno)),
            _ => Ok(()),
        }
    }

    /// Settings of the kernel.
    pub fn set_sysctls(&mut self, settings: &Settings) -> Result<(), Error> {
        for (path, value) in SYSCTLS.iter().chain(STRICT_ARP.iter().filter(|_| settings.strict_arp)) {
            sysctl::set(path, value)?;
        }
        let wanted = settings.timeouts;
        let now = self.ipvs.timeouts()?;
        let same = |wanted: u32, now: u32| wanted == 0 || wanted == now;
        if same(wanted.tcp, now.tcp) && same(wanted.tcp_fin, now.tcp_fin) && same(wanted.udp, now.udp) {
            return Ok(());
        }
        Ok(self.ipvs.request("set the timeouts", Message::set_timeouts(wanted))?)
    }

    /// Makes the sets that are missing or of another make. Entries stay: the rules of kube-proxy ask for them until ours are
    /// there, and they tell which virtual services it has left.
    pub fn make_sets(&mut self, report: &mut Report) -> Result<(), Error> {
        let held = self.ipset.sets()?;
        let mut batch = SetBatch::new();
        if held.iter().any(|set| set.name == SPARE) {
            batch.destroy(SPARE);
        }
        for (set, family) in Set::ALL.into_iter().flat_map(|set| Self::families().map(move |family| (set, family))) {
            let spec = set.spec(family);
            match held.iter().find(|held| held.name == spec.name) {
                None => batch.create(&spec),
                Some(held) if held.kind == Some(spec.kind) && held.marks == spec.marks => {}
                Some(held) => {
                    batch.create(&SetSpec { name: SPARE, ..spec });
                    if held.kind == Some(spec.kind) {
                        batch.add(SPARE, &self.ipset.entries(spec.name)?);
                    }
                    batch.swap(SPARE, spec.name);
                    batch.destroy(SPARE);
                }
            }
        }
        self.send_sets(&batch, report)
    }

    /// Brings marked packets to this machine.
    pub fn make_route(&mut self, marks: Marks, report: &mut Report) -> Result<(), Error> {
        let began = Instant::now();
        let link = match self.links.link(LINK)? {
            Some(link) if link.kind.as_deref() != Some("dummy") => return Err(Error::ForeignLink),
            Some(link) if link.up => link,
            Some(link) => {
                self.links.set_up(link.index)?;
                report.writes += 1;
                link
            }
            None => {
                self.links.add_dummy(LINK)?;
                report.writes += 1;
                self.links.link(LINK)?.ok_or(Error::ForeignLink)?
            }
        };
        let route = layout::mark_route(marks);
        for family in Self::families() {
            let v6 = family == Family::V6;
            if !self.links.leads_here(v6, &route)? {
                self.links.lead_here(v6, link.index, &route)?;
                report.writes += 2;
            }
        }
        self.waited += began.elapsed();
        Ok(())
    }

    /// Takes the addresses that kube-proxy put there, once nothing needs them but connections from them, which keep theirs. The link
    /// goes with them and is made again if marked packets need it: each by itself costs the kernel time in proportion to those that
    /// are left, in IPv6 minutes for 10,000.
    pub fn clear_link(&mut self, marks: Marks, report: &mut Report) -> Result<(), Error> {
        let Some(link) = self.links.link(LINK)? else { return Ok(()) };
        let all = local_addresses().map_err(LinkError::from)?;
        let addresses: Vec<_> =
            all.into_iter().filter(|(index, ..)| *index == link.index).map(|(_, address, _)| address).collect();
        if addresses.is_empty() {
            return Ok(());
        }
        let route = layout::mark_route(marks);
        let mut led = Vec::new();
        for v6 in Self::families().map(|family| family == Family::V6) {
            if self.links.leads_here(v6, &route)? {
                self.links.lead_here(v6, LOOPBACK, &route)?;
                led.push(v6);
            }
        }
        let (kept, told) = stay::keep(link.index, &addresses)?;
        report.writes += kept + 1;
        report.warnings.extend(told);
        self.links.delete(link.index)?;
        if led.is_empty() {
            return Ok(());
        }
        self.links.add_dummy(LINK)?;
        let link = self.links.link(LINK)?.ok_or(Error::ForeignLink)?;
        for v6 in led {
            self.links.lead_here(v6, link.index, &route)?;
            report.writes += 2;
        }
        Ok(())
    }

    /// The tables that hold chains of ours.
    pub fn save_rules(&mut self) -> Result<Saved, Error> {
        let began = Instant::now();
        let save = |family| Ok((family, restore::save_all(family == Family::V6, structure::TABLES)?));
        let saved = Self::families().map(save).collect();
        self.waited += began.elapsed();
        saved
    }

    /// Writes the constant rules where they are not as they should be, and says what was not.
    pub fn make_rules(&mut self, saved: &Saved, node: &Node, report: &mut Report) -> Result<Vec<String>, Error> {
        let (began, mut changed) = (Instant::now(), Vec::new());
        for (family, tables) in saved {
            let (family, v6) = (*family, *family == Family::V6);
            let chains = structure::chains(family, node);
            let mut input = String::new();
            for (table, held) in structure::TABLES.into_iter().zip(tables) {
                if let Some((text, count)) = rules::restoration(family, table, &chains, held) {
                    input += &text;
                    report.writes += count;
                    changed.push(format!("rules of ours in the table {table} ({})", family.label()));
                }
            }
            if !input.is_empty() {
                restore::restore(v6, &input)?;
                report.transactions += 1;
            }
        }
        self.waited += began.elapsed();
        Ok(changed)
    }

    /// Sends changes of sets.
    pub fn send_sets(&mut self, batch: &SetBatch, report: &mut Report) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        self.ipset.send(batch)?;
        self.waited += began.elapsed();
        report.writes += batch.objects();
        report.transactions += 1;
        Ok(())
    }

    /// Writes everything in its order.
    pub fn write(&mut self, writes: &Writes, report: &mut Report) -> Result<(), Error> {
        self.messages(&writes.first, report)?;
        let mut batch = SetBatch::new();
        writes.additions(&mut batch);
        writes.deletions(&mut batch);
        self.send_sets(&batch, report)?;
        self.messages(&writes.last, report)
    }

    /// Writes what takes nothing away.
    pub fn begin(&mut self, writes: &Writes, report: &mut Report) -> Result<(), Error> {
        self.messages(&writes.first, report)?;
        let mut batch = SetBatch::new();
        writes.additions(&mut batch);
        self.send_sets(&batch, report)
    }

    /// Writes the rest.
    pub fn finish(&mut self, writes: &Writes, report: &mut Report) -> Result<(), Error> {
        let mut batch = SetBatch::new();
        writes.deletions(&mut batch);
        self.send_sets(&batch, report)?;
        self.messages(&writes.last, report)
    }

    fn messages(&mut self, writes: &[Write], report: &mut Report) -> Result<(), Error> {
        if writes.is_empty() {
            return Ok(());
        }
        let changes = || writes.iter().flat_map(Write::changes);
        let refused = self.ipvs.apply(changes())?;
        report.writes += writes.iter().map(Write::count).sum::<usize>() as u64;
        report.transactions += 1;
        match refused.first().and_then(|refusal| Some((changes().nth(refusal.index)?, refusal.errno))) {
            Some((change, errno)) => Err(Error::refused(&Message::from(&change), errno)),
            None => Ok(()),
        }
    }
}
