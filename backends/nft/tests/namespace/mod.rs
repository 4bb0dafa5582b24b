//! `nft` in network namespaces of their own.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![expect(clippy::disallowed_methods, reason = "the nft program is the witness")]

use std::io::Write;
use std::process::{Command, Stdio};

use fairlead_kernel::netns::Netns;

/// Runs `nft` and gives back what it prints.
pub fn nft(args: &[&str]) -> String {
    let output = Command::new("nft").args(args).output().expect("nft is installed");
    assert!(output.status.success(), "nft {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("nft prints text")
}

/// Runs in a namespace of its own.
pub fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let namespace = Netns::create().expect("root may make namespaces");
    namespace.run(work).expect("the namespace can be entered")
}

/// Lets `nft` load a ruleset.
pub fn load(text: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nft is installed");
    // Dropped at the end of the statement: nft reads to the end.
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("nft reads");
    let output = child.wait_with_output().expect("nft ends");
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}
