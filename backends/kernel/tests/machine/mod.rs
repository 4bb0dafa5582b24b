//! A machine of one interface, as a network namespace, for the tests of routes and of what belongs to them.

use std::net::IpAddr;
use std::process::Command;

use fairlead_kernel::netns;
use fairlead_kernel::route::{Rtnl, Write};

/// Runs a program and gives back what it prints.
pub fn program(program: &str, args: &str) -> String {
    let output = Command::new(program).args(args.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn ip(args: &str) -> String {
    program("ip", args)
}

/// A fresh namespace with an interface `eth0` that has an address of each family, 1,500 bytes long.
pub fn in_namespace(work: impl FnOnce(&mut Rtnl, u32) + Send) {
    std::thread::scope(|scope| {
        let inside = || {
            netns::unshare().unwrap();
            for line in [
                "link set lo up",
                "link add eth0 type veth peer name far",
                "link set far up",
                "link set eth0 up",
                "addr add 192.168.205.4/24 dev eth0",
                "addr add fd00:205::4/64 dev eth0 nodad",
            ] {
                ip(line);
            }
            let mut rtnl = Rtnl::open().unwrap();
            let eth0 = index(&mut rtnl, "eth0");
            work(&mut rtnl, eth0);
        };
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

pub fn index(rtnl: &mut Rtnl, name: &str) -> u32 {
    rtnl.links().unwrap().into_iter().find(|link| link.name == name).unwrap().index
}

pub fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Makes these changes, none of which is refused.
pub fn all(rtnl: &mut Rtnl, writes: &[Write]) {
    assert_eq!(rtnl.write(writes).unwrap(), []);
}
