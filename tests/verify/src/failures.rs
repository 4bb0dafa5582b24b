//! Why tests failed, in a few lines each: what is read first, and all that is left where only the end of a long output is kept.

/// Lines of one test that are shown.
const LINES: usize = 24;
/// Characters of a line that are shown.
const WIDTH: usize = 600;

/// The name of each test that failed in this output of `cargo test`, with what it said from its first panic on.
pub(crate) fn digest(output: &str) -> Vec<String> {
    let mut told = Vec::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) else {
            continue;
        };
        let mut said = Vec::new();
        while let Some(line) = lines.next_if(|line| !ends(line)) {
            said.push(line);
        }
        told.push(told_of(name, &said));
    }
    told
}

/// Whether a line is past what one test printed.
fn ends(line: &str) -> bool {
    line == "failures:" || line.starts_with("---- ") || line.starts_with("test result: ")
}

fn told_of(name: &str, said: &[&str]) -> String {
    let from = said.iter().position(|line| line.contains("panicked at")).unwrap_or_default();
    let said = said[from..].iter().filter(|line| !line.trim().is_empty());
    let shown = said.take(LINES).map(|line| format!("\n  {}", line.chars().take(WIDTH).collect::<String>()));
    format!("failed: {name}{}", shown.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests\n\
        test a ... FAILED\n\
        test b ... ok\n\
        test c ... FAILED\n\n\
        failures:\n\n\
        ---- a stdout ----\n\
        a long state\n\n\
        thread 'a' (7) panicked at tests/a.rs:1:2:\n\
        1 of 66 scenarios failed:\n\n\
        ---- c stdout ----\n\
        Error: it ended with an error\n\n\n\
        failures:\n    a\n    c\n\n\
        test result: FAILED. 1 passed; 2 failed; 0 ignored\n";

    #[test]
    fn each_failed_test_is_told_from_its_panic_on() {
        let told = digest(OUTPUT);
        assert_eq!(
            told,
            [
                "failed: a\n  thread 'a' (7) panicked at tests/a.rs:1:2:\n  1 of 66 scenarios failed:",
                "failed: c\n  Error: it ended with an error"
            ]
        );
    }

    #[test]
    fn a_long_story_is_cut() {
        let output = format!("---- a stdout ----\npanicked at a\n{}", "x".repeat(2_000) + "\n" + &"line\n".repeat(100));
        let told = digest(&output);
        assert_eq!(told[0].lines().count(), 1 + LINES);
        assert!(told[0].lines().all(|line| line.chars().count() <= WIDTH + 2));
    }

    #[test]
    fn nothing_failed_nothing_told() {
        assert_eq!(
            digest("running 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed\n"),
            Vec::<String>::new()
        );
    }
}
