//! Changes, described by what they are about.

use std::net::SocketAddr;

use netlink_packet_core::Nla as _;

use crate::attribute::MessageAttribute;
use crate::value::{Attribute as _, append};
use crate::{Command, Destination, Message, Service, ServiceId};

/// A change of a virtual service or of a destination. It says the same as a [`Message`], but is laid out as it is sent, without a
/// list of attributes before: of large batches that is most of the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// See [`Message::new_service`].
    NewService(Service),
    /// See [`Message::set_service`].
    SetService(Service),
    /// See [`Message::del_service`].
    DelService(ServiceId),
    /// See [`Message::new_destination`].
    NewDestination(ServiceId, Destination),
    /// See [`Message::set_destination`].
    SetDestination(ServiceId, Destination),
    /// See [`Message::del_destination`].
    DelDestination(ServiceId, SocketAddr),
}

impl From<&Change> for Message {
    fn from(change: &Change) -> Self {
        match change {
            Change::NewService(service) => Self::new_service(service),
            Change::SetService(service) => Self::set_service(service),
            Change::DelService(id) => Self::del_service(id),
            Change::NewDestination(id, destination) => Self::new_destination(id, destination),
            Change::SetDestination(id, destination) => Self::set_destination(id, destination),
            Change::DelDestination(id, address) => Self::del_destination(id, *address),
        }
    }
}

/// What [`Client::apply`](crate::Client::apply) sends: a [`Message`] or a [`Change`].
pub trait Request: sealed::Sealed {
    /// What is asked for.
    fn command(&self) -> Command;

    /// Puts the attributes at the end of what is there.
    #[doc(hidden)]
    fn append(&self, out: &mut Vec<u8>);
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Change {}
    impl Sealed for super::Message {}
    impl<T: Sealed> Sealed for &T {}
}

impl<T: Request> Request for &T {
    fn command(&self) -> Command {
        (**self).command()
    }

    fn append(&self, out: &mut Vec<u8>) {
        (**self).append(out);
    }
}

impl Request for Message {
    fn command(&self) -> Command {
        self.command
    }

    fn append(&self, out: &mut Vec<u8>) {
        self.attributes.iter().for_each(|attribute| attribute.append(out));
    }
}

impl Request for Change {
    fn command(&self) -> Command {
        match self {
            Self::NewService(_) => Command::NewService,
            Self::SetService(_) => Command::SetService,
            Self::DelService(_) => Command::DelService,
            Self::NewDestination(..) => Command::NewDestination,
            Self::SetDestination(..) => Command::SetDestination,
            Self::DelDestination(..) => Command::DelDestination,
        }
    }

    fn append(&self, out: &mut Vec<u8>) {
        let (service, destination) = (MessageAttribute::Service(Vec::new()), MessageAttribute::Destination(Vec::new()));
        append(out, service.kind(), |out| match self {
            Self::NewService(service) | Self::SetService(service) => service.describe(|one| one.append(out)),
            Self::DelService(id)
            | Self::NewDestination(id, _)
            | Self::SetDestination(id, _)
            | Self::DelDestination(id, _) => id.describe(|one| one.append(out)),
        });
        match self {
            Self::NewDestination(_, described) | Self::SetDestination(_, described) => {
                append(out, destination.kind(), |out| described.describe(|one| one.append(out)));
            }
            Self::DelDestination(_, address) => {
                append(out, destination.kind(), |out| Destination::describe_id(*address, |one| one.append(out)));
            }
            Self::NewService(_) | Self::SetService(_) | Self::DelService(_) => {}
        }
    }
}
