//! Cuts an input into lines without copying them: each is a slice of the block it was read in.

use std::io::Read;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

const BLOCK: usize = 1 << 20;
/// A line longer than any record can be: refused before it fills the memory.
const LINE_MAX: usize = 64 << 20;
/// Blocks read ahead of the network.
const AHEAD: usize = 4;

/// Lines of `input`, without their newline, in groups. A last line without a newline counts; nothing behind the last
/// newline does not.
pub fn read(input: Box<dyn Read + Send>) -> mpsc::Receiver<Result<Vec<Bytes>>> {
    let (to, from) = mpsc::channel(AHEAD);
    // A thread of its own: reads of pipes and terminals block. It ends with the input, or when nobody listens.
    std::thread::spawn(move || {
        if let Err(error) = cut(input, &to) {
            let _ = to.blocking_send(Err(error));
        }
    });
    from
}

fn cut(mut input: Box<dyn Read + Send>, to: &mpsc::Sender<Result<Vec<Bytes>>>) -> Result<()> {
    let mut rest = BytesMut::new();
    loop {
        let seen = rest.len();
        rest.resize(seen + BLOCK, 0);
        let read = input.read(&mut rest[seen..]).context("can't read the input")?;
        rest.truncate(seen + read);
        if read == 0 {
            break;
        }
        let mut lines = Vec::new();
        let mut from = seen;
        while let Some(at) = rest[from..].iter().position(|byte| *byte == b'\n') {
            let mut line = rest.split_to(from + at + 1);
            line.truncate(from + at);
            lines.push(line.freeze());
            from = 0;
        }
        if rest.len() > LINE_MAX {
            bail!("a line of the input is longer than {} MiB", LINE_MAX >> 20);
        }
        if !lines.is_empty() && to.blocking_send(Ok(lines)).is_err() {
            return Ok(());
        }
    }
    if !rest.is_empty() {
        let _ = to.blocking_send(Ok(vec![rest.freeze()]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives `step` bytes at a time, as a pipe may.
    struct Trickle(Vec<u8>, usize);

    impl Read for Trickle {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = self.1.min(self.0.len()).min(out.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0.drain(..n);
            Ok(n)
        }
    }

    fn lines(text: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut from = read(Box::new(Trickle(text.to_vec(), step)));
        let mut all = Vec::new();
        while let Some(group) = from.blocking_recv() {
            all.extend(group.expect("readable").into_iter().map(|line| line.to_vec()));
        }
        all
    }

    #[test]
    fn every_split_of_the_input_gives_the_same_lines() {
        let text = b"\n\na\nbc\n\nlast";
        let expected: Vec<&[u8]> = vec![b"", b"", b"a", b"bc", b"", b"last"];
        for step in 1..=text.len() {
            assert_eq!(lines(text, step), expected, "step {step}");
        }
        assert_eq!(lines(b"", 1), Vec::<Vec<u8>>::new());
        assert_eq!(lines(b"a\n", 9), vec![b"a".to_vec()]);
    }
}
