//! Every attribute of the protocol (`include/uapi/linux/ip_vs.h`), as it is on the wire.

use crate::value::attributes;

attributes! {
    /// Of a message: `IPVS_CMD_ATTR_*`, and in the reply to `GET_INFO` none of these.
    MessageAttribute {
        /// A virtual service.
        1 => Service(Vec<ServiceAttribute>),
        /// A real server.
        2 => Destination(Vec<DestinationAttribute>),
        /// A synchronisation daemon.
        3 => Daemon(Vec<DaemonAttribute>),
        /// How long an idle TCP connection is remembered, in seconds.
        4 => TimeoutTcp(u32),
        /// How long a TCP connection is remembered after a FIN, in seconds.
        5 => TimeoutTcpFin(u32),
        /// How long a UDP flow is remembered, in seconds.
        6 => TimeoutUdp(u32),
    }
}

attributes! {
    /// Of a virtual service: `IPVS_SVC_ATTR_*`.
    ServiceAttribute {
        /// `AF_INET` or `AF_INET6`.
        1 => Family(u16),
        /// The transport protocol's number.
        2 => Protocol(u16),
        /// IPv4 in the first four bytes.
        3 => Address([u8; 16]),
        /// In network order.
        4 => Port([u8; 2]),
        /// The packet mark, instead of protocol, address and port.
        5 => Fwmark(u32),
        /// The name of the scheduler.
        6 => Scheduler(String),
        /// `struct ip_vs_flags`: the flags and a mask of those that count, each in host order.
        7 => Flags([u8; 8]),
        /// How long a client is remembered, in seconds.
        8 => Timeout(u32),
        /// IPv4: a mask in network order. IPv6: a prefix length in host order.
        9 => Netmask([u8; 4]),
        /// Counters in 32 bits.
        10 => Stats(Vec<Stats32Attribute>),
        /// The name of the persistence engine, such as `sip`.
        11 => PersistenceEngine(String),
        /// Counters in 64 bits (Linux 4.1).
        12 => Stats64(Vec<Stats64Attribute>),
    }
}

attributes! {
    /// Of a real server: `IPVS_DEST_ATTR_*`.
    DestinationAttribute {
        /// IPv4 in the first four bytes.
        1 => Address([u8; 16]),
        /// In network order.
        2 => Port([u8; 2]),
        /// How packets get there, `IP_VS_CONN_F_FWD_MASK`.
        3 => Forward(u32),
        /// Its share; 0 takes no new connections.
        4 => Weight(i32),
        /// No new connections above so many; 0 is without a limit.
        5 => UpperThreshold(u32),
        /// New connections again below so many.
        6 => LowerThreshold(u32),
        /// Established connections.
        7 => ActiveConnections(u32),
        /// Connections in any other state.
        8 => InactiveConnections(u32),
        /// Clients remembered.
        9 => PersistentConnections(u32),
        /// Counters in 32 bits.
        10 => Stats(Vec<Stats32Attribute>),
        /// The family of the address (Linux 3.18). Without it, that of the service.
        11 => Family(u16),
        /// Counters in 64 bits (Linux 4.1).
        12 => Stats64(Vec<Stats64Attribute>),
        /// `IP_VS_CONN_F_TUNNEL_TYPE_*` (Linux 5.3).
        13 => TunnelType(u8),
        /// In network order (Linux 5.3).
        14 => TunnelPort([u8; 2]),
        /// `IP_VS_TUNNEL_ENCAP_FLAG_*` (Linux 5.3).
        15 => TunnelFlags(u16),
    }
}

attributes! {
    /// Of a synchronisation daemon: `IPVS_DAEMON_ATTR_*`.
    DaemonAttribute {
        /// `IP_VS_STATE_*`: 1 is the master, 2 a backup.
        1 => State(u32),
        /// The interface over which it speaks.
        2 => Interface(String),
        /// Which of several pairs it belongs to.
        3 => SyncId(u32),
        /// The longest payload.
        4 => MaximumLength(u16),
        /// The IPv4 group.
        5 => Group([u8; 4]),
        /// The IPv6 group.
        6 => Group6([u8; 16]),
        /// The port, in host order.
        7 => Port(u16),
        /// How many hops.
        8 => Ttl(u8),
    }
}

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident, $number:ty) => {
        attributes! {
            $(#[$doc])*
            $name {
                /// Connections scheduled.
                1 => Connections($number),
                /// Packets from clients.
                2 => PacketsIn($number),
                /// Packets to clients.
                3 => PacketsOut($number),
                /// Bytes from clients.
                4 => BytesIn(u64),
                /// Bytes to clients.
                5 => BytesOut(u64),
                /// Connections a second.
                6 => ConnectionRate($number),
                /// Packets a second from clients.
                7 => PacketRateIn($number),
                /// Packets a second to clients.
                8 => PacketRateOut($number),
                /// Bytes a second from clients.
                9 => ByteRateIn($number),
                /// Bytes a second to clients.
                10 => ByteRateOut($number),
            }
        }
    };
}

counters! {
    /// Of a set of counters as older kernels give it: `IPVS_STATS_ATTR_*` with numbers of 32 bits, bytes in 64.
    Stats32Attribute, u32
}
counters! {
    /// Of a set of counters in 64 bits: `IPVS_STATS_ATTR_*`.
    Stats64Attribute, u64
}
