//! One process of a step: started, its output passed on, its end awaited, killed when the build ends early.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::PipeFlags;
use slipway_model::progress::Stream;
use slipway_model::{Diagnostic, Digest, ErrorKind};
use slipway_runtime::{Exit, Mount, Process, ProcessSettings, ProcessSpec, Stdio};

use crate::error::Context as _;
use crate::job::Job;
use crate::proxied::Entered;
use crate::sandbox::Sandbox;

/// How many of the last lines are shown with an error.
const TAIL_LINES: usize = 30;
/// The longest line kept for an error.
const TAIL_WIDTH: usize = 2000;

/// How a process ended, and its last lines.
pub(super) struct Outcome {
    pub(super) exit: Exit,
    pub(super) tail: Vec<String>,
}

/// What is needed to run a step's process.
pub(super) struct StepProcess<'a> {
    pub(super) job: &'a Arc<Job>,
    pub(super) vertex: Digest,
    pub(super) sandbox: &'a Sandbox,
    pub(super) ending: &'a Ending,
}

/// Kills a step's process when nobody waits for the step any more, which is when the guard is dropped.
#[derive(Clone, Default)]
pub(super) struct Ending(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    over: bool,
    process: Option<Arc<Process>>,
}

/// See [`Ending`].
pub(super) struct EndingGuard(Ending);

impl Ending {
    /// Returns what is to be held while somebody waits.
    pub(super) fn guard(&self) -> EndingGuard {
        EndingGuard(self.clone())
    }

    fn is_over(&self) -> bool {
        self.0.lock().over
    }

    fn watch(&self, process: &Arc<Process>) {
        let mut waiting = self.0.lock();
        if waiting.over {
            process.kill();
        }
        waiting.process = Some(process.clone());
    }
}

impl Drop for EndingGuard {
    fn drop(&mut self) {
        let mut waiting = self.0.0.lock();
        waiting.over = true;
        if let Some(process) = waiting.process.take() {
            process.kill();
        }
    }
}

impl StepProcess<'_> {
    /// Runs the process to its end; blocks.
    pub(super) fn run(
        &self,
        root: OwnedFd,
        mounts: Vec<Mount>,
        settings: ProcessSettings,
        mut proxied: Option<&mut Entered>,
    ) -> Result<Outcome, Diagnostic> {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(std::io::Error::from);
        let (out, child_out) = pipe().diagnose()?;
        let (err, child_err) = pipe().diagnose()?;
        let null = std::fs::File::open("/dev/null").diagnose()?;
        let stdio = Stdio::Streams { stdin: null.into(), stdout: child_out, stderr: child_err };
        let args = settings.args.join(" ");
        let did_not_complete = || format!("process {args:?} did not complete successfully");
        let (listener, pending) = proxied.as_mut().map(|proxied| proxied.take_socket()).unwrap_or_default();
        let spec = ProcessSpec { root, mounts, terminals: None, stdio, listener, settings };
        let process = Arc::new(self.sandbox.server().spawn(spec).context(did_not_complete)?);
        let running = self.job.track(process.clone());
        self.ending.watch(&process);
        let serving = match (proxied, pending) {
            (Some(proxied), Some(pending)) => proxied.serve(pending)?,
            _ => None,
        };
        let mut tail = Tail::default();
        self.forward(&[(out, Stream::Stdout), (err, Stream::Stderr)], &mut tail).diagnose()?;
        let exit = process.wait().context(did_not_complete)?;
        drop(running);
        if let Some(serving) = serving {
            tokio::runtime::Handle::current().block_on(serving.stop());
        }
        if self.job.cancel.is_cancelled() || self.ending.is_over() {
            return Err(Diagnostic::new(ErrorKind::User, "canceled"));
        }
        Ok(Outcome { exit, tail: tail.finish() })
    }

    /// Passes output on until both streams have ended.
    fn forward(&self, streams: &[(OwnedFd, Stream); 2], tail: &mut Tail) -> std::io::Result<()> {
        let mut open = [true, true];
        let mut buffer = vec![0u8; 64 << 10];
        while open[0] || open[1] {
            let watched: Vec<usize> = (0..2).filter(|i| open[*i]).collect();
            let mut fds: Vec<PollFd<'_>> = watched
                .iter()
                .map(|i| PollFd::from_borrowed_fd(streams[*i].0.as_fd(), PollFlags::IN))
                .collect();
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (index, ready) in watched.into_iter().zip(ready) {
                if !ready {
                    continue;
                }
                match rustix::io::read(&streams[index].0, &mut buffer) {
                    Ok(0) => open[index] = false,
                    Ok(read) => {
                        tail.add(&buffer[..read]);
                        self.job.progress.log(self.vertex, streams[index].1, &buffer[..read]);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// The last lines of an output.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    partial: Vec<u8>,
}

impl Tail {
    fn add(&mut self, data: &[u8]) {
        for piece in data.split_inclusive(|b| *b == b'\n') {
            let room = TAIL_WIDTH.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
        self.partial.clear();
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn finish(mut self) -> Vec<String> {
        if !self.partial.is_empty() {
            self.end_line();
        }
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_whole_last_lines() {
        let mut tail = Tail::default();
        for n in 0..100 {
            tail.add(format!("line {n}").as_bytes());
            tail.add(b"\n");
        }
        tail.add(b"no newline");
        let lines = tail.finish();
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!(lines.last().map(String::as_str), Some("no newline"));
        assert_eq!(lines[0], "line 71");
    }
}
