//! What is checked, in order: first what is quick.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::run::{Outcome, run};
use crate::tally::Tally;
use crate::{documents, sources};

/// Crates that ship; each must build without what the others bring along.
const SHIPPED: [&str; 7] =
    ["fairlead-plan", "fairlead-kernel", "fairlead-nft", "fairlead-iptables", "ipvs-rs", "fairlead-ipvs", "fairlead"];
/// Features that a machine prepared by this program has: a test that finds one missing fails.
const REQUIRED: &str = "namespaces,nf_tables,conntrack,iptables,ipset,vxlan,deployment,browser";
/// What tests/lab reads them from.
const REQUIRE: &str = "FAIRLEAD_REQUIRE";

/// What runs in the virtual machine besides the tests that this machine cannot run, which cost the most. `cargo vm` runs
/// all there.
const IN_MACHINE: [&str; 3] = ["laws::nft", "packets::ipv6::families", "settings_of_conntrack"];
/// Seconds for which a test may work there in silence. The longest takes 300 where the processor is emulated.
const PATIENCE: &str = "1200";

/// Documentation is read with its private items, so links to those are no mistake.
const FLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

/// One check.
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) work: Box<dyn FnOnce() -> Outcome>,
}

impl Check {
    pub(crate) fn new(name: impl Into<String>, work: impl FnOnce() -> Outcome + 'static) -> Self {
        Self { name: name.into(), work: Box::new(work) }
    }

    fn cargo(root: &Path, name: impl Into<String>, arguments: &'static [&'static str]) -> Self {
        let root = root.to_path_buf();
        Self::new(name, move || run(&root, "cargo", arguments, &[]))
    }
}

/// All but the one that waits for a tool.
pub(crate) fn all(root: &Path) -> Vec<Check> {
    let own = |work: fn(&Path) -> Outcome| {
        let root = root.to_path_buf();
        move || work(&root)
    };
    let mut checks = vec![
        Check::new("unsafe only in backends/kernel", own(sources::unsafe_code)),
        Check::new("no file longer than 400 lines", own(sources::length)),
        Check::new("docs: commands exist, metrics are the code's", own(documents::documents)),
        Check::cargo(root, "formatting", &["fmt", "--all", "--check"]),
        Check::cargo(
            root,
            "clippy, warnings denied",
            &["clippy", "--workspace", "--all-targets", "--keep-going", "--locked", "--", "-D", "warnings"],
        ),
    ];
    for name in SHIPPED {
        let root = root.to_path_buf();
        checks.push(Check::new(format!("{name} alone"), move || {
            run(&root, "cargo", &["check", "--locked", "--package", name], &[])
        }));
    }
    let here = root.to_path_buf();
    checks.push(Check::new("documentation, private items too", move || {
        let arguments = ["doc", "--workspace", "--no-deps", "--document-private-items", "--keep-going", "--locked"];
        run(&here, "cargo", &arguments, &[("RUSTDOCFLAGS", FLAGS)])
    }));
    checks.push(Check::new("cargo demo", own(demo)));
    let skipped = Rc::new(RefCell::new(Vec::new()));
    checks.push(Check::new("tests", {
        let (root, skipped) = (root.to_path_buf(), skipped.clone());
        move || {
            let outcome = tests(&root);
            *skipped.borrow_mut() = outcome.tally.names_of_skipped();
            outcome
        }
    }));
    let root = root.to_path_buf();
    checks.push(Check::new("tests in a virtual machine (cargo vm)", move || in_machine(&root, &skipped.borrow())));
    checks
}

/// Runs the demo, which fails if anything in it is not as expected. It is built with all of the workspace, as the tests are,
/// so that nothing is built twice.
fn demo(root: &Path) -> Outcome {
    let built = run(root, "cargo", &["build", "--quiet", "--locked", "--workspace", "--bins", "--examples"], &[]);
    if !built.good {
        return built;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    run(root, &target.join("debug/examples/demo").to_string_lossy(), &["--built"], &[])
}

fn tests(root: &Path) -> Outcome {
    let required = std::env::var(REQUIRE).unwrap_or_else(|_| REQUIRED.to_owned());
    let arguments = ["test", "--workspace", "--locked", "--no-fail-fast"];
    let mut outcome = run(root, "cargo", &arguments, &[(REQUIRE, &required)]);
    outcome.tally = Tally::of(&outcome.output);
    if outcome.tally.passed == 0 {
        outcome.good = false;
    }
    let passed = outcome.tally.passed;
    outcome.remark(&format!("{passed} tests passed"))
}

/// Runs the tests that this machine has skipped, and some others, on another kernel.
fn in_machine(root: &Path, skipped: &[String]) -> Outcome {
    let mut arguments = vec!["vm", "--workspace", "--patience", PATIENCE];
    arguments.extend(IN_MACHINE);
    arguments.extend(skipped.iter().map(String::as_str));
    let mut outcome = run(root, "cargo", &arguments, &[]);
    outcome.tally = Tally::of_machine(&outcome.output);
    if outcome.tally.passed == 0 {
        outcome.good = false;
    }
    let (passed, ours) = (outcome.tally.passed, skipped.len());
    outcome.remark(&format!("{passed} tests passed, {ours} of the chosen ones cannot run on this machine's kernel"))
}
