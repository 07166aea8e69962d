//! The process's one thread for heartbeats, and when it last looked at its connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock;
use crate::proto::Moment;

/// How often the thread looks: often enough for the least grace.
const LOOK: Duration = Duration::from_millis(10);

/// It ends with the last that holds it.
pub(super) struct HeartbeatThread {
    pub(super) handle: Handle,
    pub(super) looked: Arc<Looked>,
    _stop: DropGuard,
}

static THREAD: Mutex<Weak<HeartbeatThread>> = Mutex::new(Weak::new());

impl HeartbeatThread {
    pub(super) fn shared() -> std::io::Result<Arc<Self>> {
        let mut shared = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = shared.upgrade() {
            return Ok(thread);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let (stopped, looked) = (stop.clone(), Arc::new(Looked::new(clock::now())));
        let looking = looked.clone();
        std::thread::Builder::new()
            .name("group-redis-heartbeat".to_owned())
            .spawn(move || runtime.block_on(stopped.run_until_cancelled(looking.keep_up())))?;
        let thread = Arc::new(Self { handle, looked, _stop: stop.drop_guard() });
        *shared = Arc::downgrade(&thread);
        Ok(thread)
    }
}

/// All that had come over the thread's connections by then has been taken in. A process that was frozen looks only
/// some time after it goes on, and until then does not know whether a connection of it was closed.
#[derive(Debug)]
pub(crate) struct Looked(AtomicU64);

impl Looked {
    pub(crate) fn new(at: Moment) -> Self {
        Self(AtomicU64::new(at.as_millis()))
    }

    pub(crate) fn at(&self) -> Moment {
        Moment::from_origin(Duration::from_millis(self.0.load(Ordering::Acquire)))
    }

    pub(crate) fn set(&self, at: Moment) {
        self.0.store(at.as_millis(), Ordering::Release);
    }

    async fn keep_up(&self) {
        loop {
            let before = clock::now();
            sleep(LOOK).await;
            // What came before this pause has had all of it to be taken in. What came while the process was frozen
            // has the next one.
            self.set(before);
        }
    }

    /// Waits until it has looked once more.
    pub(super) async fn again() {
        sleep(LOOK).await;
    }
}
