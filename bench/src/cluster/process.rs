//! One role's process: start, signal, wait.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::RoleInfo;

/// How long a role may take to become ready, and to stop after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL
    Kill,
    /// SIGSTOP
    Pause,
    /// SIGCONT
    Resume,
    /// SIGTERM
    Terminate,
}

pub struct RoleProcess {
    pub id: String,
    pub role: String,
    pub addresses: BTreeMap<String, String>,
    pub data: PathBuf,
    pub config: PathBuf,
    pub esker: PathBuf,
    /// Behind the role's word on the command line.
    pub args: Vec<String>,
    /// Besides what this process has in its own.
    pub env: BTreeMap<String, String>,
    child: Option<Child>,
}

impl RoleProcess {
    pub fn new(id: String, role: &str, addresses: BTreeMap<String, String>, folder: PathBuf, esker: PathBuf) -> Self {
        let (data, config) = (folder.join("data"), folder.join("config.toml"));
        let args = vec!["--config".to_owned(), config.to_string_lossy().into_owned()];
        Self { id, role: role.to_owned(), addresses, data, config, esker, args, env: BTreeMap::new(), child: None }
    }

    pub fn info(&self) -> RoleInfo {
        RoleInfo {
            id: self.id.clone(),
            role: self.role.clone(),
            pid: self.pid().unwrap_or(0),
            addresses: self.addresses.clone(),
            data: self.data.clone(),
            config: self.config.clone(),
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    pub fn log_path(&self) -> PathBuf {
        self.config.with_file_name("log")
    }

    pub fn spawn(&mut self) -> Result<()> {
        let open = OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = open.with_context(|| format!("can't write {}", self.log_path().display()))?;
        let mut command = Command::new(&self.esker);
        command.arg(&self.role).args(&self.args).envs(&self.env);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("can't start {}", self.esker.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Asks `/readyz` until it says yes. An early end of the process is an error with the end of its log.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let http = self.addresses.get("http").cloned().context("every role has an HTTP door")?;
        while !is_ready(&http).await {
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?,
                None => bail!("{} was not started", self.id),
            };
            if let Some(status) = ended {
                bail!("{} ended with {status}: {}", self.id, self.log_end());
            }
            if Instant::now() > deadline {
                bail!("{} is not ready after {} s: {}", self.id, PATIENCE.as_secs(), self.log_end());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub async fn signal(&mut self, signal: Signal) -> Result<()> {
        let Some(pid) = self.pid() else { bail!("{} does not run", self.id) };
        let pid = Pid::from_raw(pid.cast_signed()).context("process ids are positive")?;
        let number = match signal {
            Signal::Kill => rustix::process::Signal::KILL,
            Signal::Pause => rustix::process::Signal::STOP,
            Signal::Resume => rustix::process::Signal::CONT,
            Signal::Terminate => rustix::process::Signal::TERM,
        };
        kill_process(pid, number).with_context(|| format!("can't signal {}", self.id))?;
        if signal == Signal::Kill {
            self.wait_ended().await?;
        }
        Ok(())
    }

    /// Nothing to do if it does not run.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if child.try_wait()?.is_some() {
            self.child = None;
            return Ok(());
        }
        self.signal(Signal::Terminate).await?;
        self.wait_ended().await
    }

    async fn wait_ended(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
            child.kill().await?;
            bail!("{} did not stop within {} s and was killed", self.id, PATIENCE.as_secs());
        }
        self.child = None;
        Ok(())
    }

    fn log_end(&self) -> String {
        let text = std::fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

/// One plain HTTP/1.0 request: no client library for a status line.
async fn is_ready(address: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
        let mut head = [0u8; 12];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(&head[9..] == b"200")
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
}
