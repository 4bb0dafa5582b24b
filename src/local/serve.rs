//! The side that answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fairlead_kernel::local::{Local, listen};
use tracing::debug;

use super::{Facts, Question};

/// Whoever has not asked by then is left alone.
const PATIENCE: Duration = Duration::from_secs(1);
/// A question is one packet; nobody needs more.
const LONGEST: u64 = 16 * 1024;
/// How long to wait when the process has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers at a path, on a thread of its own, until the process ends. Dropping the guard takes the path away.
///
/// # Errors
/// If nothing can be made at the path, or the thread cannot be started.
pub fn serve(path: &Path, facts: Arc<Facts>) -> io::Result<Local> {
    let local = listen(path)?;
    let listener = local.listener.try_clone()?;
    thread::Builder::new().name("local".into()).spawn(move || {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = answer(stream, &facts) {
                        debug!("a question at the local socket was not answered: {error}");
                    }
                }
                Err(error) => {
                    debug!("the local socket cannot accept a connection: {error}");
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    })?;
    Ok(local)
}

/// One question, one answer. Who does not speak our language gets none.
fn answer(mut stream: UnixStream, facts: &Facts) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&stream).take(LONGEST)).read_line(&mut line)?;
    let mut answer = match serde_json::from_str(&line)? {
        Question::State => serde_json::to_string(&facts.state()),
        Question::Services => serde_json::to_string(&facts.services()),
        Question::Decide { packet } => serde_json::to_string(&facts.decide(&packet)),
    }?;
    answer.push('\n');
    stream.write_all(answer.as_bytes())
}
