//! The thread that waits for connections to end, while there are endpoints on their way out.

use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use fairlead_plan::Report;

use crate::backend::{State, lock};
use crate::error::Error;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the thread when there is something to wait for; it ends by itself.
#[derive(Debug, Default)]
pub struct Watcher {
    thread: Option<thread::JoinHandle<()>>,
}

impl Watcher {
    /// Sees to it that somebody waits.
    pub fn start(&mut self, state: &Arc<Mutex<State>>) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let state = Arc::downgrade(state);
        // Without a thread the next start takes care of what is left.
        self.thread = thread::Builder::new().name("drain".into()).spawn(move || work(&state)).ok();
    }
}

fn work(state: &Weak<Mutex<State>>) {
    loop {
        thread::sleep(PAUSE);
        let Some(state) = state.upgrade() else { return };
        let mut state = lock(&state);
        if !state.certain || state.look().is_err() {
            // What happens next reads the kernel and finds what is on its way out.
            state.certain = false;
            return;
        }
        if state.tables.draining.is_empty() {
            return;
        }
    }
}

impl State {
    /// Takes out what has ended.
    fn look(&mut self) -> Result<(), Error> {
        let Some(doors) = self.doors.as_mut() else { return Ok(()) };
        let now = Instant::now();
        let mut ended = Vec::new();
        for id in self.tables.draining.watched() {
            let held = doors.ipvs.destinations(&id)?;
            ended.extend(self.tables.draining.ended(&id, &held, now).into_iter().map(|address| (id, address)));
        }
        let writes = self.tables.ended(&ended);
        doors.write(&writes, &mut Report::default())
    }
}
