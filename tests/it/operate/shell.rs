//! What shells and `man` are given: made from the description of the command line, and tried in the programs that read it.
#![expect(clippy::disallowed_methods, reason = "a shell and a reader of manual pages are started")]

use std::io::Write;
use std::process::{Command, Stdio};

use fairlead_lab::{Feature, needs};

use crate::program::{BINARY, run_here};

/// Sources the script and asks what may stand in the place of the last word.
const ASK: &str = "\
    source /dev/stdin
    COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1))
    name=$(complete -p fairlead | grep --only-matching --extended-regexp -- '-F [^ ]+' | cut --delimiter=' ' --fields=2)
    \"$name\" fairlead \"${COMP_WORDS[$COMP_CWORD]}\" \"${COMP_WORDS[$((COMP_CWORD - 1))]}\"
    printf '%s\\n' \"${COMPREPLY[@]}\"";

fn printed(args: &[&str]) -> String {
    let output = run_here(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program on a text; what it prints on both ways, and whether it succeeds.
fn feed(program: &str, args: &[&str], text: &str) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut pipe, text) = (child.stdin.take().unwrap(), text.to_owned());
    let writing = std::thread::spawn(move || pipe.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), said.concat())
}

/// The ways to all commands, from the help of each.
fn commands() -> Vec<Vec<String>> {
    let (mut all, mut next) = (vec![Vec::new()], 0);
    while next < all.len() {
        let way: Vec<String> = all[next].clone();
        let args: Vec<&str> = way.iter().map(String::as_str).chain(["--help"]).collect();
        let help = printed(&args);
        let below = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        for line in below.filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
            let name = line.split_whitespace().next().unwrap().to_owned();
            all.push([way.clone(), vec![name]].concat());
        }
        next += 1;
    }
    all
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let script = printed(&["completions", "bash"]);
    let offered = |words: &[&str]| {
        let args = [&["--noprofile", "--norc", "-c", ASK, "bash"], words].concat();
        let (good, said) = feed("bash", &args, &script);
        assert!(good, "{words:?}: {said}");
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for command in ["cleanup", "status", "services", "explain", "overlay", "completions", "man", "metrics"] {
        assert!(offered(&["fairlead", ""]).iter().any(|word| word == command), "{command}");
    }
    assert_eq!(offered(&["fairlead", "overlay", "pr"]), ["probe"]);
    assert_eq!(offered(&["fairlead", "overlay", "probe", "--time"]), ["--timeout"]);
    assert_eq!(offered(&["fairlead", "--service-c"]), ["--service-counters"]);
    let parts = offered(&["fairlead", "cleanup", "--only", ""]);
    assert_eq!(parts, ["nft", "iptables", "ipvs", "overlay"]);
}

#[test]
fn every_shell_has_a_script_that_knows_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for way in commands() {
            let name = way.last().map_or("fairlead", String::as_str);
            assert!(script.contains(name), "{shell} does not know {way:?}");
        }
    }
    let output = run_here(&["completions", "tcsh"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("zsh") && said.lines().count() == 1, "{said}");
}

#[test]
fn every_command_has_a_manual_page_without_mistakes() {
    if !needs(&[Feature::Deployment]) {
        return;
    }
    let all = commands();
    assert!(all.len() > 10, "{all:?}");
    for way in all {
        let args: Vec<&str> = ["man"].into_iter().chain(way.iter().map(String::as_str)).collect();
        let page = printed(&args);
        let (good, said) = feed("mandoc", &["-T", "lint", "-W", "warning"], &page);
        assert!(good && said.is_empty(), "{way:?}: {said}");
        let (_, text) = feed("mandoc", &["-T", "ascii"], &page);
        let plain = without_overstrikes(&text);
        let title = [vec!["fairlead".to_owned()], way].concat().join("-");
        assert!(plain.contains(&title) && plain.contains("SYNOPSIS"), "{plain}");
    }
    let (_, text) = feed("mandoc", &["-T", "ascii"], &printed(&["man"]));
    let plain = without_overstrikes(&text);
    for part in ["--service-counters", "fairlead-explain(1)", "--nodeport-addresses"] {
        assert!(plain.contains(part), "{part}: {plain}");
    }
    let output = run_here(&["man", "overlay", "nothing"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("list, probe, trace"), "{said}");
}

#[test]
fn a_log_that_no_terminal_shows_has_no_colours() {
    let mut command = Command::new(BINARY);
    command.args(["--manifests=/no/such/directory", "--profiling", "--oom-score-adj=0", "--conntrack-max-per-core=0"]);
    command.args(["--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0"]);
    // Other tests set NO_COLOR, under which there are none in any case.
    let output = command.env_remove("NO_COLOR").env_remove("RUST_LOG").output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains(" WARN ") && !log.contains('\u{1b}'), "{log:?}");
}

/// Without the backspaces by which terminals of old were told what is bold.
fn without_overstrikes(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        match character {
            '\u{8}' => _ = plain.pop(),
            character => plain.push(character),
        }
    }
    plain
}
