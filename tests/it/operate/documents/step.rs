//! One command of a page: what must be there before, how it ends, and what must be so afterwards.

use fairlead_lab::{Feature, needs};

use super::page::{self, Shown};
use super::scene::Scene;
use super::{MENTIONED, NOT_RUN};

/// What becomes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It ends with exit code 0.
    Ends,
    /// It is fairlead, which stays until it is ended.
    Stays,
    /// It names flags in a sentence; with a kubeconfig it is fairlead, which stays.
    Flags,
    /// It asks the server for a connection to a pod, which no server of the lab makes: that the right thing is asked for is seen.
    Asks,
    /// Its check runs it.
    Checked,
}

/// What must be so before a command, and what after it; the latter gets what the command has printed.
type Arrange = fn(&mut Scene);
type Check = fn(&mut Scene, &str);

pub struct Step {
    pub command: &'static str,
    pub how: How,
    pub arrange: Arrange,
    pub check: Check,
}

const fn step(command: &'static str, how: How, arrange: Arrange, check: Check) -> Step {
    Step { command, how, arrange, check }
}

pub const fn ends(command: &'static str, arrange: Arrange, check: Check) -> Step {
    step(command, How::Ends, arrange, check)
}

pub const fn stays(command: &'static str, arrange: Arrange, check: Check) -> Step {
    step(command, How::Stays, arrange, check)
}

pub const fn flags(command: &'static str, check: Check) -> Step {
    step(command, How::Flags, |_| (), check)
}

pub const fn asks(command: &'static str, arrange: Arrange, check: Check) -> Step {
    step(command, How::Asks, arrange, check)
}

pub const fn checked(command: &'static str, check: Check) -> Step {
    step(command, How::Checked, |_| (), check)
}

/// Addresses of the pages, and what a pod, Service or node that has them is called in IPv6.
const IN_IPV6: [(&str, &str); 7] = [
    // The page says that these are to be run by the other program too.
    ("iptables -t", "ip6tables -t"),
    ("10.244.1.5", "fd00:244:0:1::5"),
    ("10.244.2.11", "fd00:244:0:2::b"),
    ("10.96.0.10:", "[fd00:96::a]:"),
    ("10.96.0.10", "fd00:96::a"),
    ("192.0.2.7", "2001:db8::7"),
    ("192.168.50.1:", "[fd00:50::1]:"),
];

/// Words that stand for what a reader has, and what the scene has.
const PLACEHOLDERS: [(&str, &str); 2] = [(" NODE", " a"), ("REGISTRY/", "127.0.0.1:5000/")];

fn filled_in(command: &str) -> String {
    PLACEHOLDERS.iter().fold(command.to_owned(), |text, (word, here)| text.replace(word, here))
}

/// The command for the other family, if it names addresses of those above.
fn in_ipv6(command: &str) -> Option<String> {
    let other = IN_IPV6.iter().fold(command.to_owned(), |text, (v4, v6)| text.replace(v4, v6));
    (other != command).then_some(other)
}

impl Step {
    fn play(&self, scene: &mut Scene) {
        // Shown only if the test fails.
        eprintln!("$ {}", self.command);
        (self.arrange)(scene);
        let command = filled_in(self.command);
        let said = match self.how {
            How::Ends => {
                let said = scene.run(&command);
                if let Some(other) = in_ipv6(&command) {
                    let said = scene.run(&other);
                    (self.check)(scene, &said);
                }
                said
            }
            How::Stays => {
                scene.start(&command);
                String::new()
            }
            How::Flags => {
                scene.start(&format!("{command} --kubeconfig /var/lib/fairlead/kubeconfig"));
                String::new()
            }
            How::Asks => {
                let output = scene.output(&command);
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(said.contains("no kubelet of the lab"), "{}: {said}", self.command);
                said
            }
            How::Checked => String::new(),
        };
        (self.check)(scene, &said);
    }
}

/// Plays all commands of a page in its order, on a node of their own. Each must have its step, and each step its command.
pub fn play(page: &str, steps: &[&[Step]]) {
    if !needs(&[Feature::Namespaces, Feature::NfTables, Feature::Vxlan, Feature::Iptables, Feature::Deployment]) {
        return;
    }
    let scene = &mut Scene::new();
    let mut left: Vec<&Step> = steps.iter().copied().flatten().collect();
    for shown in page::shown_in(page).into_iter().filter(is_played) {
        let at = left.iter().position(|step| step.command == shown.text);
        // A sentence may name it again.
        if at.is_none() && !shown.in_block && steps.iter().copied().flatten().any(|step| step.command == shown.text) {
            continue;
        }
        let at = at.unwrap_or_else(|| panic!("{page} shows `{}`, for which there is no step here", shown.text));
        left.remove(at).play(scene);
    }
    let left: Vec<_> = left.iter().map(|step| step.command).collect();
    assert_eq!(left, Vec::<&str>::new(), "{page} does not show them any more");
}

/// Whether a command is one to run: not declared, and if it is in a sentence no name, and in no block anywhere.
pub fn is_played(shown: &Shown) -> bool {
    let declared = NOT_RUN.iter().any(|(command, _)| *command == shown.text);
    let mentioned = MENTIONED.iter().any(|(command, _)| *command == shown.text);
    let in_blocks = || {
        page::pages()
            .iter()
            .any(|page| page::shown_in(page).iter().any(|other| other.in_block && other.text == shown.text))
    };
    !declared && (shown.in_block || (!mentioned && !in_blocks()))
}
