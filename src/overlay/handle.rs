//! Starts the overlay and hands it what the source of objects says.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use std::{io, thread};

use fairlead_kernel::route::{Listener, Rtnl, RtnlError};
use tokio::sync::watch;
use tracing::warn;

use super::annotation::Prefix;
use super::facts::{Facts, Own};
use super::outside::{Installed, Outside};
use super::publish::Patch;
use super::settings::Settings;
use super::worker::{Message, Worker};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::object::{Event, Kind, Object};
use crate::resolve::Note;
use crate::watch::Publisher;

/// Pause after the listener failed, before it is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Why the overlay cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel cannot be reached.
    #[error(transparent)]
    Kernel(#[from] RtnlError),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// The running overlay. Dropping it ends its threads; what the kernel holds stays.
#[derive(Debug)]
pub struct Overlay {
    messages: mpsc::Sender<Message>,
    node_name: String,
    prefix: Prefix,
    installed: watch::Receiver<Installed>,
    worker: Option<thread::JoinHandle<()>>,
}

impl Overlay {
    /// Starts the threads, in the network namespace of the caller. What this node's Node should say goes to `patches`.
    ///
    /// # Errors
    /// If the kernel cannot be reached or a thread not started.
    pub fn start(
        settings: Settings,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        events: Publisher,
        patches: watch::Sender<Option<Patch>>,
    ) -> Result<Self, StartError> {
        let kernel = Rtnl::open()?;
        let port = kernel.port_id();
        let (messages, inbox) = mpsc::channel();
        let (installed_sender, installed) = watch::channel(Installed::default());
        let (node_name, prefix) = (settings.node_name.clone(), settings.prefix.clone());
        let outside = Outside::new(metrics, health, events, patches, installed_sender);
        let changes = messages.clone();
        let listener = Listener::open(port)?;
        thread::Builder::new().name("overlay-ear".into()).spawn(move || listen(listener, port, &changes))?;
        let worker = Worker::new(settings, kernel, inbox, outside);
        let worker = thread::Builder::new().name("overlay".into()).spawn(move || worker.run())?;
        Ok(Self { messages, node_name, prefix, installed, worker: Some(worker) })
    }

    /// The overlay as it is installed, and every change of that.
    #[must_use]
    pub fn installed(&self) -> watch::Receiver<Installed> {
        self.installed.clone()
    }

    /// Takes in what the source says about Nodes; says what is wrong with one.
    #[must_use]
    pub fn hear(&self, event: &Event) -> Vec<Note> {
        let mut notes = Vec::new();
        let message = match event {
            Event::ListBegin(Kind::Node) => Message::ListBegin,
            Event::ListEnd(Kind::Node) => Message::ListEnd,
            Event::Delete(Kind::Node, name) => Message::Delete(name.name.clone()),
            Event::Apply(object) => {
                let Object::Node(node) = &**object else { return notes };
                let (facts, said) = Facts::parse(node, &self.prefix);
                notes = said;
                let own = (node.metadata.name == self.node_name).then(|| {
                    let (own, said) = Own::parse(node, &self.prefix);
                    notes.extend(said);
                    Box::new(own)
                });
                Message::Apply(Box::new(facts), own, Instant::now())
            }
            Event::ListBegin(_) | Event::ListEnd(_) | Event::Delete(..) => return notes,
        };
        // It ends only with us.
        let _ = self.messages.send(message);
        notes
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Stop);
        if let Some(worker) = self.worker.take() {
            // A panic of the thread has been printed already.
            let _ = worker.join();
        }
    }
}

fn listen(first: Listener, port: u32, changes: &mpsc::Sender<Message>) {
    let mut listener = Some(first);
    loop {
        let mut open = match listener.take() {
            Some(listener) => listener,
            None => match Listener::open(port) {
                // What was changed meanwhile has been announced to nobody.
                Ok(_) if changes.send(Message::Missed).is_err() => return,
                Ok(listener) => listener,
                Err(error) => {
                    warn!("overlay: changes by others cannot be heard: {error}; trying again");
                    thread::sleep(REOPEN);
                    continue;
                }
            },
        };
        loop {
            let message = match open.next() {
                Ok(Some(list)) if list.is_empty() => Message::Nothing,
                Ok(Some(list)) => Message::Changed(list),
                Ok(None) => Message::Missed,
                Err(error) => {
                    warn!("overlay: changes by others cannot be heard: {error}; trying again");
                    thread::sleep(REOPEN);
                    break;
                }
            };
            if changes.send(message).is_err() {
                return;
            }
        }
    }
}
