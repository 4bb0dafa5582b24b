//! `iptables` in network namespaces of their own.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![expect(clippy::disallowed_methods, reason = "the iptables programs are the witnesses")]

use std::io::Write;
use std::process::{Command, Stdio};

use fairlead_kernel::netns::Netns;
use fairlead_kernel::xtables::Variant;
use fairlead_plan::Family;

/// How a program of a variant and family is called: `iptables-legacy-save`.
pub fn program(variant: Variant, family: Family, suffix: &str) -> String {
    let family = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let variant = match variant {
        Variant::Legacy => "legacy",
        Variant::Nft => "nft",
    };
    format!("{family}-{variant}{suffix}")
}

/// Runs a program and gives back what it prints.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Runs a program that must fail, and gives back what it says.
pub fn fails(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(!output.status.success(), "{program} {args:?} did not fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All rules of a table, without what changes by itself: comments with times, and counters.
pub fn save(variant: Variant, family: Family, table: &str) -> String {
    let text = run(&program(variant, family, "-save"), &["-t", table]);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let line = |line: &str| line.split(" [").next().unwrap_or_default().to_owned() + "\n";
    lines.map(line).collect()
}

/// Runs in a namespace of its own.
pub fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let namespace = Netns::create().expect("root may make namespaces");
    namespace.run(work).expect("the namespace can be entered")
}

/// Lets `iptables-restore` load a text.
pub fn load(variant: Variant, family: Family, args: &[&str], text: &str) {
    let mut child = Command::new(program(variant, family, "-restore"))
        .args(args)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("iptables is installed");
    // Dropped at the end of the statement: it reads to the end.
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}
