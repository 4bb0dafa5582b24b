//! Who carries out plans: a thread, or for a small change the caller. The newest plan wins.
//!
//! A start, a repair or a large change takes a while, in which the loop must hear what happens; so there is a thread for them.
//! To wake it costs more than to write one endpoint: a change that the backend calls prompt is carried out at once. Orders go
//! through a place for one: a plan that waits is replaced by a newer one, because the difference is taken between whole plans
//! and nothing can be lost between them.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fairlead_kernel::memory;
use fairlead_plan::{Backend, Plan, Report, SyncError};
use tokio::sync::mpsc;
use tracing::debug;

/// A plan to carry out.
#[derive(Debug, Clone)]
struct Order {
    plan: Plan,
    generation: u64,
    /// The kernel may hold anything: read it first.
    doubt: bool,
}

/// How one order ended.
#[derive(Debug)]
pub struct Outcome {
    /// The generation given to [`Programmer::program`]; everything older is settled too.
    pub generation: u64,
    /// What the kernel holds if all went well.
    pub plan: Plan,
    /// What the backend says.
    pub result: Result<Report, SyncError>,
    /// How long the call took.
    pub took: Duration,
    /// When it ended.
    pub ended: Instant,
    /// Whether the kernel was read first.
    pub full: bool,
}

#[derive(Debug, Default)]
struct Place {
    order: Option<Order>,
    /// The thread has taken an order and not reported yet.
    at_work: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Mailbox {
    place: Mutex<Place>,
    filled: Condvar,
}

impl Mailbox {
    fn place(&self) -> MutexGuard<'_, Place> {
        // A place holds whole orders only, so a panic elsewhere leaves nothing half done.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, mut order: Order) {
        let mut place = self.place();
        order.doubt |= place.order.take().is_some_and(|older| older.doubt);
        place.order = Some(order);
        self.filled.notify_one();
    }

    /// Waits for the next order; `None` when the programmer is gone.
    fn take(&self) -> Option<Order> {
        let mut place = self.place();
        loop {
            if place.closed {
                return None;
            }
            if let Some(order) = place.order.take() {
                place.at_work = true;
                return Some(order);
            }
            place.at_work = false;
            place = self.filled.wait(place).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether no order waits and none is under way.
    fn is_idle(&self) -> bool {
        let place = self.place();
        place.order.is_none() && !place.at_work
    }
}

/// The backend and what it has done.
struct Worker {
    backend: Box<dyn Backend>,
    /// What the kernel holds; `None` if that is not known.
    held: Option<Plan>,
}

impl Worker {
    fn carry_out(&mut self, Order { plan, generation, doubt }: Order) -> Outcome {
        let was = self.held.take().filter(|_| !doubt);
        let start = Instant::now();
        let result = self.backend.sync(was.as_ref(), &plan);
        let ended = Instant::now();
        // After an error the kernel may hold anything between the two.
        self.held = result.is_ok().then(|| plan.clone());
        Outcome { generation, plan, result, took: ended - start, ended, full: was.is_none() }
    }

    fn is_prompt(&self, order: &Order) -> bool {
        !order.doubt && self.held.as_ref().is_some_and(|was| self.backend.is_prompt(was, &order.plan))
    }
}

/// The handle to backend and thread. Dropping it waits for the call under way; what the kernel holds stays.
pub struct Programmer {
    mailbox: Arc<Mailbox>,
    worker: Arc<Mutex<Worker>>,
    thread: Option<JoinHandle<()>>,
}

impl Programmer {
    /// Starts the thread, in the network namespace of the caller.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(backend: Box<dyn Backend>, outcomes: mpsc::UnboundedSender<Outcome>) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let worker = Arc::new(Mutex::new(Worker { backend, held: None }));
        let (orders, hands) = (Arc::clone(&mailbox), Arc::clone(&worker));
        let thread =
            std::thread::Builder::new().name("program".into()).spawn(move || work(&hands, &orders, &outcomes))?;
        Ok(Self { mailbox, worker, thread: Some(thread) })
    }

    /// Asks for a plan to be carried out, instead of any that still waits. With `doubt` the kernel is read first.
    ///
    /// What is prompt is done on return, and the outcome is returned; else it comes through the channel.
    #[must_use]
    pub fn program(&self, plan: Plan, generation: u64, doubt: bool) -> Option<Outcome> {
        let order = Order { plan, generation, doubt };
        if self.mailbox.is_idle() {
            let mut worker = worker(&self.worker);
            if worker.is_prompt(&order) {
                return Some(worker.carry_out(order));
            }
        }
        self.mailbox.put(order);
        None
    }
}

fn worker(worker: &Mutex<Worker>) -> MutexGuard<'_, Worker> {
    // A panic in the middle of a sync left `held` empty, so nothing is assumed.
    worker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Programmer {
    fn drop(&mut self) {
        self.mailbox.place().closed = true;
        self.mailbox.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

fn work(hands: &Mutex<Worker>, orders: &Mailbox, outcomes: &mpsc::UnboundedSender<Outcome>) {
    while let Some(order) = orders.take() {
        let outcome = worker(hands).carry_out(order);
        let full = outcome.full;
        if outcomes.send(outcome).is_err() {
            return;
        }
        if full {
            // A start has filled the heap, and nobody waits for this thread now.
            let bytes = memory::gather_heap();
            debug!(bytes, "the heap is in large pages");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc as std_mpsc;

    /// Says what it was asked, waits for permission, and answers as told.
    struct Scripted {
        asked: std_mpsc::Sender<(Option<Plan>, Plan)>,
        answers: std_mpsc::Receiver<Result<Report, SyncError>>,
        /// The mark of the plan that is reached promptly.
        prompt: u32,
    }

    impl Backend for Scripted {
        fn sync(&mut self, was: Option<&Plan>, now: &Plan) -> Result<Report, SyncError> {
            self.asked.send((was.cloned(), now.clone())).expect("the test listens");
            self.answers.recv().expect("the test answers")
        }

        fn is_prompt(&self, _: &Plan, now: &Plan) -> bool {
            now.node.masquerade_mark == self.prompt
        }

        fn cleanup(&mut self) -> Result<(), SyncError> {
            Ok(())
        }
    }

    const PROMPT: u32 = 77;

    fn plan(mark: u32) -> Plan {
        let node = fairlead_plan::Node { masquerade_mark: mark, ..Default::default() };
        Plan { node: Arc::new(node), ..Plan::default() }
    }

    type Asked = std_mpsc::Receiver<(Option<Plan>, Plan)>;
    type Answers = std_mpsc::Sender<Result<Report, SyncError>>;

    fn start() -> (Programmer, Asked, Answers, mpsc::UnboundedReceiver<Outcome>) {
        let (asked, questions) = std_mpsc::channel();
        let (replies, answers) = std_mpsc::channel();
        let (outcomes, results) = mpsc::unbounded_channel();
        let programmer =
            Programmer::start(Box::new(Scripted { asked, answers, prompt: PROMPT }), outcomes).expect("a thread");
        (programmer, questions, replies, results)
    }

    #[test]
    fn a_plan_that_waits_is_replaced_by_a_newer_one() {
        let (programmer, asked, answers, mut outcomes) = start();
        assert!(programmer.program(plan(1), 1, false).is_none());
        assert_eq!(asked.recv().expect("asked"), (None, plan(1)));
        for generation in 2..=5 {
            assert!(programmer.program(plan(generation), u64::from(generation), false).is_none());
        }
        answers.send(Ok(Report::default())).expect("it waits");
        assert_eq!(asked.recv().expect("asked"), (Some(plan(1)), plan(5)));
        answers.send(Ok(Report::default())).expect("it waits");
        let generations = [outcomes.blocking_recv(), outcomes.blocking_recv()].map(|o| o.map(|o| o.generation));
        assert_eq!(generations, [Some(1), Some(5)]);
    }

    #[test]
    fn after_a_failure_nothing_is_assumed() {
        let (programmer, asked, answers, mut outcomes) = start();
        assert!(programmer.program(plan(1), 1, false).is_none());
        asked.recv().expect("asked");
        answers.send(Ok(Report::default())).expect("it waits");
        assert!(programmer.program(plan(2), 2, false).is_none());
        assert_eq!(asked.recv().expect("asked").0, Some(plan(1)));
        answers.send(Err(SyncError::Unsupported("no".into()))).expect("it waits");
        assert!(programmer.program(plan(3), 3, false).is_none());
        assert_eq!(asked.recv().expect("asked").0, None);
        answers.send(Ok(Report::default())).expect("it waits");
        let full = [(); 3].map(|()| outcomes.blocking_recv().map(|outcome| outcome.full));
        assert_eq!(full, [Some(true), Some(false), Some(true)]);
    }

    #[test]
    fn doubt_outlives_the_order_that_carried_it() {
        let (programmer, asked, answers, _outcomes) = start();
        assert!(programmer.program(plan(1), 1, false).is_none());
        asked.recv().expect("asked");
        assert!(programmer.program(plan(2), 2, true).is_none());
        assert!(programmer.program(plan(3), 3, false).is_none());
        answers.send(Ok(Report::default())).expect("it waits");
        assert_eq!(asked.recv().expect("asked"), (None, plan(3)));
        answers.send(Ok(Report::default())).expect("it waits");
    }

    #[test]
    fn what_is_prompt_is_done_on_return_if_the_kernel_is_known_and_nothing_is_under_way() {
        let (programmer, asked, answers, mut outcomes) = start();
        assert!(programmer.program(plan(PROMPT), 1, false).is_none(), "nothing is known yet");
        asked.recv().expect("asked");
        assert!(programmer.program(plan(PROMPT), 2, false).is_none(), "the first order is under way");
        (0..2).for_each(|_| answers.send(Ok(Report::default())).expect("it waits"));
        asked.recv().expect("asked");
        (0..2).for_each(|_| assert!(outcomes.blocking_recv().is_some()));
        while !programmer.mailbox.is_idle() {
            std::thread::yield_now();
        }
        answers.send(Ok(Report::default())).expect("it waits");
        let outcome = programmer.program(plan(PROMPT), 3, false).expect("done");
        assert_eq!((outcome.generation, outcome.full), (3, false));
        asked.recv().expect("asked");
        assert!(programmer.program(plan(PROMPT), 4, true).is_none(), "the kernel must be read");
    }
}
