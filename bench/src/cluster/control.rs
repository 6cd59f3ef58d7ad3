//! `DIR/cluster.sock`: lets another process restart, stop and look at the roles of a running cluster.
//! One JSON request per connection, one JSON answer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{Cluster, Description};

const REQUEST_BYTES_MAX: u64 = 4 << 10;
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    Restart { id: String },
    Stop { id: String },
    Status,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ok(Description),
    Error(String),
}

/// Serves requests until `stopped` resolves.
pub async fn serve(cluster: &mut Cluster, stopped: impl Future<Output = ()>) -> Result<()> {
    let path = cluster.spec.data.join("cluster.sock");
    // A socket left by a killed parent; the folder's lock says that no other parent runs.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| format!("can't listen on {}", path.display()))?;
    tokio::pin!(stopped);
    loop {
        // Dropping `accept` loses nothing: a connection not yet accepted stays in the kernel's queue.
        let stream = tokio::select! {
            biased;
            () = &mut stopped => break,
            accepted = listener.accept() => accepted?.0,
        };
        if let Err(error) = answer(cluster, stream).await {
            tracing::warn!(error = format!("{error:#}"), "control request failed");
        }
    }
    let _ = std::fs::remove_file(&path);
    Ok(())
}

async fn answer(cluster: &mut Cluster, mut stream: UnixStream) -> Result<()> {
    let mut text = String::new();
    let mut limited = (&mut stream).take(REQUEST_BYTES_MAX);
    tokio::time::timeout(REQUEST_DEADLINE, limited.read_to_string(&mut text)).await??;
    let done = match serde_json::from_str(&text) {
        Ok(Request::Restart { id }) => cluster.restart(&id).await,
        Ok(Request::Stop { id }) => cluster.stop(&id).await,
        Ok(Request::Status) => Ok(()),
        Err(error) => Err(anyhow!("not a request: {error}")),
    };
    let answer = match done {
        Ok(()) => Answer::Ok(cluster.describe()),
        Err(error) => Answer::Error(format!("{error:#}")),
    };
    stream.write_all(&serde_json::to_vec(&answer)?).await?;
    stream.shutdown().await.context("the asking side went away")
}

/// Sends one request to the cluster that runs in `data`.
pub async fn ask(data: &Path, request: &Request) -> Result<Description> {
    let path = data.join("cluster.sock");
    let mut stream = UnixStream::connect(&path)
        .await
        .with_context(|| format!("no cluster runs in {} (no answer on {})", data.display(), path.display()))?;
    stream.write_all(&serde_json::to_vec(request)?).await?;
    stream.shutdown().await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    match serde_json::from_slice(&text).context("the cluster went away while it worked")? {
        Answer::Ok(description) => Ok(description),
        Answer::Error(error) => Err(anyhow!(error)),
    }
}
