use std::io;
use std::net::IpAddr;

use fairlead_kernel::conntrack::ConntrackError;
use fairlead_kernel::ipset::IpsetError;
use fairlead_kernel::link::LinkError;
use fairlead_kernel::nft::NftError;
use fairlead_kernel::restore::RestoreError;
use fairlead_kernel::route::RtnlError;
use fairlead_kernel::sysctl::SysctlError;
use fairlead_plan::SyncError;
use ipvs_rs::{Command, Message};

use crate::layout::LINK;

/// Why the kernel does not hold the plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("IPVS: {0}")]
    Ipvs(#[from] ipvs_rs::Error),
    #[error(transparent)]
    Sets(#[from] IpsetError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Rules(#[from] RestoreError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error(transparent)]
    Tables(#[from] NftError),
    #[error(transparent)]
    Flows(#[from] ConntrackError),
    #[error(transparent)]
    Routes(#[from] RtnlError),
    #[error("cannot remove the route that keeps {address}: {}", io::Error::from_raw_os_error(*.errno))]
    Kept { address: IpAddr, errno: i32 },
    #[error("IPVS: cannot {what}: {}", io::Error::from_raw_os_error(*.errno))]
    Refused { what: String, errno: i32 },
    #[error("the kernel has no scheduler {0} for IPVS: the module ip_vs_{0} is not there; load it or choose another")]
    NoScheduler(String),
    #[error("the link {LINK} exists and is no dummy; delete it or give it another name")]
    ForeignLink,
}

impl Error {
    /// A message of a batch that was refused.
    pub fn refused(message: &Message, errno: i32) -> Self {
        const ENOENT: i32 = 2;
        let id = message.service().and_then(|list| ipvs_rs::ServiceId::from_attributes(list).ok());
        let id = id.map_or_else(String::new, |id| format!(" {id}"));
        let service = message.service().and_then(|list| ipvs_rs::Service::from_attributes(list).ok());
        if let (Command::NewService | Command::SetService, ENOENT, Some(service)) = (message.command, errno, service) {
            return Self::NoScheduler(service.scheduler.name().to_owned());
        }
        let what = match message.command {
            Command::NewService => "make the virtual service",
            Command::SetService => "change the virtual service",
            Command::DelService => "delete the virtual service",
            Command::NewDestination => "add an endpoint to the virtual service",
            Command::SetDestination => "change an endpoint of the virtual service",
            Command::DelDestination => "delete an endpoint of the virtual service",
            _ => "do what was asked",
        };
        Self::Refused { what: format!("{what}{id}"), errno }
    }
}

impl From<Error> for SyncError {
    fn from(error: Error) -> Self {
        let missing = match &error {
            Error::Ipvs(ipvs_rs::Error::NoIpvs) => Some("the module ip_vs"),
            Error::Sets(error) if error.is_unsupported() => {
                Some("ipset (the modules ip_set and ip_set_hash_ipport, ...)")
            }
            Error::Link(error) if error.is_unsupported() => Some("the module dummy"),
            Error::NoScheduler(_) | Error::ForeignLink => return Self::Unsupported(error.to_string()),
            _ => None,
        };
        match missing {
            Some(what) => Self::Unsupported(format!(
                "the ipvs mode needs {what}, which this kernel lacks ({error}); load it (modprobe) or use --proxy-mode=nftables"
            )),
            None => Self::Failed(Box::new(error)),
        }
    }
}
