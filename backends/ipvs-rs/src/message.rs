//! One message of the protocol.

use netlink_packet_core::{DecodeError, DefaultNla, Emitable, NlasIterator, Parseable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use crate::attribute::{DestinationAttribute, MessageAttribute, ServiceAttribute};
use crate::value::{emit, parse_list};
use crate::{Destination, Service, ServiceId, Timeouts};

/// The name by which the kernel knows the family.
pub const FAMILY_NAME: &str = "IPVS";
pub(crate) const FAMILY_VERSION: u8 = 1;

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a message asks for or tells: `IPVS_CMD_*`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Command {
            $($(#[$doc])* $name,)*
            /// What this library does not know.
            Other(u8),
        }

        impl From<Command> for u8 {
            fn from(command: Command) -> Self {
                match command {
                    $(Command::$name => $number,)*
                    Command::Other(number) => number,
                }
            }
        }

        impl From<u8> for Command {
            fn from(number: u8) -> Self {
                match number {
                    $($number => Self::$name,)*
                    _ => Self::Other(number),
                }
            }
        }
    };
}

commands! {
    /// Adds a virtual service; also what a dump of services answers.
    NewService = 1,
    /// Changes a virtual service.
    SetService = 2,
    /// Deletes a virtual service with its destinations.
    DelService = 3,
    /// Reads one virtual service, or all.
    GetService = 4,
    /// Adds a destination; also what a dump of destinations answers.
    NewDestination = 5,
    /// Changes a destination.
    SetDestination = 6,
    /// Deletes a destination. Its connections are no longer served.
    DelDestination = 7,
    /// Reads all destinations of a service.
    GetDestination = 8,
    /// Starts a synchronisation daemon.
    NewDaemon = 9,
    /// Stops a synchronisation daemon.
    DelDaemon = 10,
    /// Reads the synchronisation daemons.
    GetDaemon = 11,
    /// Sets timeouts.
    SetConfig = 12,
    /// Reads timeouts.
    GetConfig = 13,
    /// What the answer to [`Command::GetInfo`] is called.
    SetInfo = 14,
    /// Reads the version and the size of the connection table.
    GetInfo = 15,
    /// Sets counters to zero.
    Zero = 16,
    /// Deletes all services.
    Flush = 17,
}

/// One message: a command and its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What is asked for.
    pub command: Command,
    /// About what.
    pub attributes: Vec<MessageAttribute>,
}

impl Message {
    /// Any message.
    #[must_use]
    pub const fn new(command: Command, attributes: Vec<MessageAttribute>) -> Self {
        Self { command, attributes }
    }

    /// Adds a virtual service. `EEXIST` if there is one of that id, `ENOENT` if there is no such scheduler.
    #[must_use]
    pub fn new_service(service: &Service) -> Self {
        Self::new(Command::NewService, vec![MessageAttribute::Service(service.attributes())])
    }

    /// Changes scheduler, flags, timeout and netmask of a virtual service. `ESRCH` if there is none of that id.
    #[must_use]
    pub fn set_service(service: &Service) -> Self {
        Self::new(Command::SetService, vec![MessageAttribute::Service(service.attributes())])
    }

    /// Deletes a virtual service with its destinations. `ESRCH` if there is none of that id.
    #[must_use]
    pub fn del_service(id: &ServiceId) -> Self {
        Self::new(Command::DelService, vec![of(id)])
    }

    /// Adds a destination to a service. `EEXIST` if it has that one, `ESRCH` if there is no such service.
    #[must_use]
    pub fn new_destination(service: &ServiceId, destination: &Destination) -> Self {
        Self::new(Command::NewDestination, about(service, destination.attributes()))
    }

    /// Changes forwarding, weight and thresholds of a destination. `ENOENT` if the service does not have it.
    #[must_use]
    pub fn set_destination(service: &ServiceId, destination: &Destination) -> Self {
        Self::new(Command::SetDestination, about(service, destination.attributes()))
    }

    /// Takes a destination from a service. `ENOENT` if the service does not have it.
    #[must_use]
    pub fn del_destination(service: &ServiceId, address: std::net::SocketAddr) -> Self {
        let mut id = Vec::new();
        Destination::describe_id(address, |attribute| id.push(attribute.clone()));
        Self::new(Command::DelDestination, about(service, id))
    }

    /// Reads all services; to be sent with `NLM_F_DUMP`.
    #[must_use]
    pub const fn get_services() -> Self {
        Self::new(Command::GetService, Vec::new())
    }

    /// Reads the destinations of a service; to be sent with `NLM_F_DUMP`.
    #[must_use]
    pub fn get_destinations(service: &ServiceId) -> Self {
        Self::new(Command::GetDestination, vec![of(service)])
    }

    /// Sets timeouts; those that are 0 stay.
    #[must_use]
    pub fn set_timeouts(timeouts: Timeouts) -> Self {
        Self::new(Command::SetConfig, timeouts.attributes())
    }

    /// Sets the counters of one service and its destinations to zero, or all counters.
    #[must_use]
    pub fn zero(service: Option<&ServiceId>) -> Self {
        Self::new(Command::Zero, service.map(of).into_iter().collect())
    }

    /// Deletes all services of the network namespace, whoever made them.
    #[must_use]
    pub const fn flush() -> Self {
        Self::new(Command::Flush, Vec::new())
    }

    /// The attributes of the service, if there are any.
    #[must_use]
    pub fn service(&self) -> Option<&[ServiceAttribute]> {
        self.attributes.iter().find_map(|attribute| match attribute {
            MessageAttribute::Service(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    /// The attributes of the destination, if there are any.
    #[must_use]
    pub fn destination(&self) -> Option<&[DestinationAttribute]> {
        self.attributes.iter().find_map(|attribute| match attribute {
            MessageAttribute::Destination(list) => Some(list.as_slice()),
            _ => None,
        })
    }
}

fn of(id: &ServiceId) -> MessageAttribute {
    MessageAttribute::Service(id.attributes())
}

fn about(service: &ServiceId, destination: Vec<DestinationAttribute>) -> Vec<MessageAttribute> {
    vec![of(service), MessageAttribute::Destination(destination)]
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        FAMILY_NAME
    }

    fn command(&self) -> u8 {
        self.command.into()
    }

    fn version(&self) -> u8 {
        FAMILY_VERSION
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.attributes.iter().map(Emitable::buffer_len).sum()
    }

    fn emit(&self, buffer: &mut [u8]) {
        emit(&self.attributes, buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(payload: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let command = Command::from(header.cmd);
        // Of all messages this one numbers its attributes in another way.
        let attributes = if command == Command::SetInfo {
            let other = |nla| DefaultNla::parse(&nla).map(MessageAttribute::Other);
            NlasIterator::new(payload).map(|nla| nla.and_then(other)).collect::<Result<_, _>>()?
        } else {
            parse_list(payload)?
        };
        Ok(Self { command, attributes })
    }
}
