//! One handle for every kind of object store: bounded, with deadlines, and with a definite answer wherever one can be
//! had. Objects are immutable and keys are never reused, which is what makes retrying a write safe.

mod abandoned;
mod check;
mod class;
mod error;
mod list;
mod location;
mod metrics;
mod open;
mod read;
mod retry;
mod upload;
mod write;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use tokio::time::Instant;

use crate::config::StoreConfig;
use class::Gates;
use retry::RetryBudget;

pub use check::Check;
pub use class::Class;
pub use error::{Error, Kind};
pub use list::Listed;
pub use location::{Location, S3, check_key};
pub use metrics::StoreMetrics;
pub use open::AwsCredentials;
pub use upload::Upload;

/// An object store. Cheap to clone; clones share bounds and budgets.
///
/// Every operation ends within its deadline, counts what it did, and is safe to drop at any point: a write that was
/// dropped may or may not have happened, an upload that was dropped is aborted.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Arc<dyn ObjectStore>,
    /// For uploads in parts. A local folder has none: it writes one file from front to end.
    parts: Option<Arc<dyn MultipartStore>>,
    aws: Option<object_store::aws::AwsCredentialProvider>,
    location: Location,
    config: StoreConfig,
    gates: Gates,
    budget: RetryBudget,
    metrics: StoreMetrics,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.inner.location.describe())
    }
}

/// What one try of an operation may take.
#[derive(Clone, Copy)]
struct Task<'a> {
    /// As a verb, for messages and metrics.
    operation: &'static str,
    subject: &'a str,
    class: Class,
    /// Bytes that go over the line, as far as known before.
    bytes: u64,
}

impl Store {
    pub fn location(&self) -> &Location {
        &self.inner.location
    }

    pub fn metrics(&self) -> &StoreMetrics {
        &self.inner.metrics
    }

    pub fn config(&self) -> &StoreConfig {
        &self.inner.config
    }

    /// The full path of `key` in the store.
    fn path(&self, key: &str) -> Result<Path, Error> {
        check_key(key)?;
        let prefix = self.inner.location.prefix();
        let full = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") };
        Path::parse(&full).map_err(|e| Error::new(Kind::Invalid, "use the key", key, e.to_string()))
    }

    /// The time that `bytes` may take at the slowest acceptable rate.
    fn transfer_time(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.inner.config.bytes_per_second_min.0.max(1) as f64)
    }

    /// Runs `attempt` until it succeeds, fails for good, or the deadline or the retry budget ends it. Between tries
    /// the place of the class is given back.
    async fn run<T, F, A>(&self, task: Task<'_>, mut attempt: F) -> Result<T, Error>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<T, Error>>,
    {
        let config = &self.inner.config;
        let transfer = self.transfer_time(task.bytes);
        let started = Instant::now();
        let deadline = started + config.deadline.0 + transfer;
        let one = config.attempt_timeout.0 + transfer;
        let mut retry = 0;
        let result = loop {
            let result = self.once(task, one.min(deadline.saturating_duration_since(Instant::now())), attempt()).await;
            let error = match result {
                Ok(value) => {
                    self.inner.budget.success();
                    break Ok(value);
                }
                Err(error) if !error.retryable() => break Err(error),
                Err(error) => error,
            };
            let pause = retry::pause(retry);
            if Instant::now() + pause >= deadline {
                break Err(error);
            }
            if !self.inner.budget.take() {
                self.inner.metrics.retry_refused();
                break Err(error);
            }
            tracing::debug!(%error, retry, "object store: trying again");
            tokio::time::sleep(pause).await;
            retry += 1;
        };
        self.inner.metrics.finished(task.operation, &result, started.elapsed());
        result
    }

    /// One try: waits for a place of its class without limit (places are given back within a try's time), then has
    /// `limit`.
    async fn once<T>(
        &self,
        task: Task<'_>,
        limit: Duration,
        attempt: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let _place = self.inner.gates.enter(task.class).await?;
        let _active = self.inner.metrics.active(task.class);
        let result = match tokio::time::timeout(limit, attempt).await {
            Ok(result) => result,
            Err(_) => Err(Error::timeout(task.operation, task.subject, limit)),
        };
        self.inner.metrics.attempted(task.operation, &result);
        result
    }
}
