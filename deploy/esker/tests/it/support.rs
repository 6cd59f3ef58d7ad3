//! A broker process and the command line, for one test.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use esker_bench::cluster::ports;
use esker_bench::cluster::process::RoleProcess;

pub const ESKER: &str = env!("CARGO_BIN_EXE_esker");

/// `esker standalone` in a folder of its own.
pub struct Standalone {
    pub folder: tempfile::TempDir,
    pub quic: String,
    process: RoleProcess,
}

impl Standalone {
    pub async fn start(extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let ports = ports::free(2).expect("free ports");
        let (quic, http) = (format!("127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
        let addresses = BTreeMap::from([("quic".to_owned(), quic.clone()), ("http".to_owned(), http.clone())]);
        let mut process =
            RoleProcess::new("standalone".to_owned(), "standalone", addresses, folder.path().to_owned(), ESKER.into());
        let data = folder.path().join("data").to_string_lossy().into_owned();
        process.args =
            ["--data", &data, "--quic", &quic, "--kafka", "127.0.0.1:0", "--http", &http].map(str::to_owned).to_vec();
        // What is small goes to the bucket as soon as it is closed.
        process.args.extend(["--set", "gateway.objects.share-wait=0s"].map(str::to_owned));
        process.args.extend(extra.iter().map(|arg| arg.to_string()));
        // Of the S3 server in this process, which takes any.
        let key = |name: &str| (name.to_owned(), "k".to_owned());
        process.env.extend([key("AWS_ACCESS_KEY_ID"), key("AWS_SECRET_ACCESS_KEY")]);
        let mut standalone = Self { folder, quic, process };
        standalone.restart().await;
        standalone
    }

    /// Starts it (again) and waits until it is ready.
    pub async fn restart(&mut self) {
        self.process.spawn().expect("spawned");
        self.process.wait_ready().await.expect("ready");
    }

    /// From the next start on `key` has this value.
    pub fn set(&mut self, key: &str, value: &str) {
        let args = &mut self.process.args;
        let begins = format!("{key}=");
        if let Some(at) = args.iter().position(|arg| arg.starts_with(&begins)) {
            args.drain(at - 1..=at);
        }
        args.extend(["--set".to_owned(), format!("{begins}{value}")]);
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.process.signal(esker_bench::cluster::Signal::Kill).await.expect("killed");
    }

    /// SIGTERM, and waits for its own end.
    pub async fn stop(&mut self) {
        self.process.stop().await.expect("stops by itself");
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.process.log_path()).expect("its log")
    }

    /// A counter or gauge of `/metrics`, all labels together; none if it is not there.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(&self.process.addresses["http"]).expect("the HTTP door");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("sent");
        let mut body = String::new();
        stream.read_to_string(&mut body).expect("text");
        let values = body.lines().filter_map(|line| {
            let (left, value) = line.rsplit_once(' ')?;
            (left.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok()).flatten()
        });
        values.reduce(|a, b| a + b)
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn ca(&self) -> PathBuf {
        self.data().join("tls").join("ca.pem")
    }

    /// A client command against this broker.
    pub fn command(&self, args: &[&str]) -> Command {
        client(&self.quic, &self.ca(), args)
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program starts")
    }

    /// Must succeed; gives its stdout.
    pub fn ok(&self, args: &[&str]) -> Vec<u8> {
        ok(self.run(args), args)
    }
}

pub fn client(server: &str, ca: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(ESKER);
    command.args(args).env("ESKER_SERVER", server).env("ESKER_CA", ca).stdin(Stdio::null());
    command
}

pub fn ok(output: Output, args: &[&str]) -> Vec<u8> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "esker {}: {}: {said}", args.join(" "), output.status);
    output.stdout
}

/// The command fails with this status and one line on stderr that holds all the words.
pub fn refused(output: Output, status: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(status), "{said}");
    // Usage errors come with the usage; failures are one line.
    assert!(status == 2 || said.lines().count() == 1, "one line, not: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// Text of about `bytes`, lines of 0 to `line_max` bytes, reproducible from `seed`.
pub fn text(seed: u64, bytes: usize, line_max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + line_max);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    while out.len() < bytes {
        // Mostly short lines, now and then a very long one.
        let longest = if next() % 64 == 0 { line_max } else { line_max.min(200) };
        let length = (next() % (longest as u64 + 1)) as usize;
        let end = out.len() + length;
        while out.len() < end {
            let word = next();
            let chunk = [b"esker ", b"ridge ", b"stream", b"record"][(word % 4) as usize];
            out.extend_from_slice(&chunk[..chunk.len().min(end - out.len())]);
            if word % 8 == 0 && out.len() < end {
                out.push(b'!' + (word >> 32) as u8 % 90);
            }
        }
        out.push(b'\n');
    }
    out
}
