//! One process of the server: its start, its report, its end, and the clearing up after it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::start::Place;
use crate::cgroup::Group;
use crate::child::{self, Stub};
use crate::error::ProcessError;
use crate::protocol::{self, Order, Outcome, Received, Request};
use crate::spec::Network;
use crate::sys::clone::{Cloned, clone_process};
use crate::sys::process;

/// What a child tells the server before it executes its program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// These mount points were made.
    Stubs(Vec<Stub>),
    /// The program was not executed.
    Failed(ProcessError),
}

/// A request that is not even well-formed.
pub(super) struct BadRequest;

pub(super) struct Step {
    pid: i32,
    pidfd: OwnedFd,
    /// Open while the engine listens.
    control: Option<OwnedFd>,
    /// Open until the child executes its program.
    report: Option<OwnedFd>,
    /// Kept to remove the mount points that were made.
    root: Option<OwnedFd>,
    stubs: Vec<Stub>,
    failure: Option<ProcessError>,
    group: Option<Group>,
    started: Instant,
    over: bool,
}

/// The descriptors of a request, by meaning.
pub(crate) struct StepFds {
    pub root: OwnedFd,
    /// Three streams, or the file system of a terminal.
    pub streams: Vec<OwnedFd>,
    pub mounts: Vec<OwnedFd>,
}

impl Step {
    /// Clones a process for a request; a failure that has a listener is told to it.
    pub(super) fn start(message: Received, place: &Place) -> Result<Self, BadRequest> {
        let length = message.bytes.try_into().map(usize::from_le_bytes).map_err(|_| BadRequest)?;
        let mut fds = message.fds.into_iter();
        let (Some(body), Some(control)) = (fds.next(), fds.next()) else { return Err(BadRequest) };
        let fail = |what: &str, errno: Errno| {
            let error = ProcessError::Setup { what: what.to_owned(), errno: errno.raw_os_error() };
            refuse(&control, error)
        };
        let (request, files) = protocol::read_body(body, length).map_err(|errno| fail("request", errno))?;
        let count = if request.terminal { 1 } else { 3 };
        let Some(root) = fds.next() else { return Err(fail("request", Errno::BADMSG)) };
        let streams: Vec<OwnedFd> = fds.by_ref().take(count).collect();
        let fds = StepFds { root, streams, mounts: fds.collect() };
        if fds.streams.len() != count {
            return Err(fail("request", Errno::BADMSG));
        }
        let root = fds.root.try_clone().map_err(|_| fail("request", Errno::MFILE))?;
        let limits = request.settings.limits.as_ref().filter(|limits| !limits.is_empty());
        let group = limits.map(|limits| place.cgroups.create(limits)).transpose();
        let group = group.map_err(|error| refuse(&control, error))?;
        let (report, childs_report) = protocol::pair().map_err(|errno| fail("socket", errno))?;
        let started = Instant::now();
        match clone_process(namespaces(&request, place)) {
            Ok(Cloned::Child) => {
                drop(report);
                child::run(request, fds, &files, place, group.as_ref(), &childs_report)
            }
            Ok(Cloned::Parent { pid, pidfd }) => Ok(Self {
                pid,
                pidfd,
                control: Some(control),
                report: Some(report),
                root: Some(root),
                stubs: Vec::new(),
                failure: None,
                group,
                started,
                over: false,
            }),
            Err(errno) => {
                if let Some(group) = &group {
                    group.remove();
                }
                Err(fail("namespaces", errno))
            }
        }
    }

    pub(super) fn control(&self) -> Option<BorrowedFd<'_>> {
        self.control.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn report(&self) -> Option<BorrowedFd<'_>> {
        self.report.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn kill(&mut self) {
        process::signal(&self.pidfd, libc::SIGKILL);
    }

    /// Carries out what the engine orders; `receive` also tells whether the engine still listens.
    pub(super) fn obey(&mut self, receive: impl FnOnce(&OwnedFd) -> (Order, bool)) {
        let Some(control) = &self.control else { return };
        let (order, listens) = receive(control);
        if !listens {
            self.control = None;
        }
        match order {
            Order::Kill => self.kill(),
            Order::Signal(number) => process::signal(&self.pidfd, number),
        }
    }

    /// Reads what the child says about its set-up.
    pub(super) fn read_report(&mut self) {
        let Some(report) = &self.report else { return };
        match protocol::receive::<Report>(report) {
            Ok(Some(Report::Stubs(stubs))) => self.stubs.extend(stubs),
            Ok(Some(Report::Failed(error))) => self.failure = Some(error),
            Ok(None) | Err(_) => self.report = None,
        }
    }

    /// Collects the process, removes what was made for it, and tells the engine.
    pub(super) fn finish(&mut self) {
        while self.report.is_some() {
            self.read_report();
        }
        let (status, mut usage) = match process::reap(self.pid, self.started.elapsed()) {
            Ok(Some(reaped)) => reaped,
            Ok(None) => return,
            Err(errno) => {
                self.tell(Err(ProcessError::Setup { what: "wait".to_owned(), errno: errno.raw_os_error() }));
                return;
            }
        };
        // Closed before the engine hears of the end: it may want to mount the same layers again.
        if let Some(root) = self.root.take() {
            child::remove_stubs(&root, &self.stubs);
        }
        if let Some(group) = &self.group {
            usage.out_of_memory = group.ran_out_of_memory();
            group.remove();
        }
        let outcome = match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(crate::Exit { status, usage }),
        };
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Outcome) {
        if let Some(control) = self.control.take() {
            // An engine that does not listen any more needs no answer.
            let _ = protocol::send(control, &outcome);
        }
        self.over = true;
    }
}

/// Tells the engine that a request cannot be served.
fn refuse(control: &OwnedFd, error: ProcessError) -> BadRequest {
    let _ = protocol::send(control, &Outcome::Err(error));
    BadRequest
}

/// Chooses the namespaces of a step.
fn namespaces(request: &Request, place: &Place) -> i32 {
    let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if request.settings.network == Network::None {
        flags |= libc::CLONE_NEWNET;
    }
    if place.cgroup_namespace {
        flags |= libc::CLONE_NEWCGROUP;
    }
    flags
}
