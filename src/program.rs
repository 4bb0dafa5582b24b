//! The thread that owns the backend. The newest plan wins.
//!
//! Netlink calls block, and sockets belong to the network namespace of the thread that opened them, so the backend lives on
//! one thread of its own. Orders go through a place for one: a plan that waits is replaced by a newer one, because the
//! difference is taken between whole plans and nothing can be lost between them.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fairlead_plan::{Backend, Plan, Report, SyncError};
use tokio::sync::mpsc;

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
                return Some(order);
            }
            place = self.filled.wait(place).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The handle to the thread. Dropping it waits for the call under way; what the kernel holds stays.
#[derive(Debug)]
pub struct Programmer {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

impl Programmer {
    /// Starts the thread, in the network namespace of the caller.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(backend: Box<dyn Backend>, outcomes: mpsc::UnboundedSender<Outcome>) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let orders = Arc::clone(&mailbox);
        let thread =
            std::thread::Builder::new().name("program".into()).spawn(move || work(backend, &orders, &outcomes))?;
        Ok(Self { mailbox, thread: Some(thread) })
    }

    /// Asks for a plan to be carried out, instead of any that still waits. With `doubt` the kernel is read first.
    pub fn program(&self, plan: Plan, generation: u64, doubt: bool) {
        self.mailbox.put(Order { plan, generation, doubt });
    }
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

fn work(mut backend: Box<dyn Backend>, orders: &Mailbox, outcomes: &mpsc::UnboundedSender<Outcome>) {
    let mut held: Option<Plan> = None;
    while let Some(Order { plan, generation, doubt }) = orders.take() {
        let was = held.take().filter(|_| !doubt);
        let start = Instant::now();
        let result = backend.sync(was.as_ref(), &plan);
        let ended = Instant::now();
        // After an error the kernel may hold anything between the two.
        held = result.is_ok().then(|| plan.clone());
        let full = was.is_none();
        drop(was);
        if outcomes.send(Outcome { generation, plan, result, took: ended - start, ended, full }).is_err() {
            return;
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
    }

    impl Backend for Scripted {
        fn sync(&mut self, was: Option<&Plan>, now: &Plan) -> Result<Report, SyncError> {
            self.asked.send((was.cloned(), now.clone())).expect("the test listens");
            self.answers.recv().expect("the test answers")
        }

        fn cleanup(&mut self) -> Result<(), SyncError> {
            Ok(())
        }
    }

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
        let programmer = Programmer::start(Box::new(Scripted { asked, answers }), outcomes).expect("a thread");
        (programmer, questions, replies, results)
    }

    #[test]
    fn a_plan_that_waits_is_replaced_by_a_newer_one() {
        let (programmer, asked, answers, mut outcomes) = start();
        programmer.program(plan(1), 1, false);
        assert_eq!(asked.recv().expect("asked"), (None, plan(1)));
        for generation in 2..=5 {
            programmer.program(plan(generation), u64::from(generation), false);
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
        programmer.program(plan(1), 1, false);
        asked.recv().expect("asked");
        answers.send(Ok(Report::default())).expect("it waits");
        programmer.program(plan(2), 2, false);
        assert_eq!(asked.recv().expect("asked").0, Some(plan(1)));
        answers.send(Err(SyncError::Unsupported("no".into()))).expect("it waits");
        programmer.program(plan(3), 3, false);
        assert_eq!(asked.recv().expect("asked").0, None);
        answers.send(Ok(Report::default())).expect("it waits");
        let full = [(); 3].map(|()| outcomes.blocking_recv().map(|outcome| outcome.full));
        assert_eq!(full, [Some(true), Some(false), Some(true)]);
    }

    #[test]
    fn doubt_outlives_the_order_that_carried_it() {
        let (programmer, asked, answers, _outcomes) = start();
        programmer.program(plan(1), 1, false);
        asked.recv().expect("asked");
        programmer.program(plan(2), 2, true);
        programmer.program(plan(3), 3, false);
        answers.send(Ok(Report::default())).expect("it waits");
        assert_eq!(asked.recv().expect("asked"), (None, plan(3)));
        answers.send(Ok(Report::default())).expect("it waits");
    }
}
