//! One process of the server: its start, its report, its end, and the clearing up after it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::start::Place;
use crate::cgroup::Group;
use crate::child::{self, Child, Container, New, Stub};
use crate::error::ProcessError;
use crate::listener::Listener;
use crate::protocol::{self, Order, Outcome, Received, Request, Surroundings};
use crate::spec::Network;
use crate::sys::clone::{Cloned, clone_into, clone_process};
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
    id: u64,
    pid: i32,
    pidfd: OwnedFd,
    /// The kinds of namespaces that the container has of its own.
    namespaces: i32,
    /// Open while the engine listens.
    control: Option<OwnedFd>,
    /// Open until the child executes its program.
    report: Option<OwnedFd>,
    /// Kept to remove the mount points that were made; others than the first process made none.
    root: Option<OwnedFd>,
    stubs: Vec<Stub>,
    failure: Option<ProcessError>,
    group: Option<Group>,
    started: Instant,
    over: bool,
}

/// A request with its descriptors.
pub(super) struct Asked {
    request: Request,
    files: Vec<u8>,
    control: OwnedFd,
    /// Three, or none if there is a terminal.
    streams: Vec<OwnedFd>,
    /// Those of the surroundings.
    more: Vec<OwnedFd>,
}

impl Asked {
    /// Reads a request; a failure that has a listener is told to it.
    pub(super) fn read(message: Received) -> Result<Self, BadRequest> {
        let length = message.bytes.try_into().map(usize::from_le_bytes).map_err(|_| BadRequest)?;
        let mut fds = message.fds.into_iter();
        let (Some(body), Some(control)) = (fds.next(), fds.next()) else { return Err(BadRequest) };
        let fail = |errno| refuse(&control, broken("request", errno));
        let (request, files) = protocol::read_body(body, length).map_err(fail)?;
        let count = if request.terminal.is_some() { 0 } else { 3 };
        let streams: Vec<OwnedFd> = fds.by_ref().take(count).collect();
        if streams.len() != count {
            return Err(fail(Errno::BADMSG));
        }
        Ok(Self { request, files, control, streams, more: fds.collect() })
    }

    pub(super) fn surroundings(&self) -> &Surroundings {
        &self.request.surroundings
    }

    /// Tells the engine that nothing comes of this.
    pub(super) fn refuse(self, error: ProcessError) -> BadRequest {
        refuse(&self.control, error)
    }
}

impl Step {
    /// Clones a process into a container of its own.
    pub(super) fn start(asked: Asked, place: &Place) -> Result<Self, BadRequest> {
        let Asked { request, files, control, streams, more } = asked;
        let fail = |what: &str, errno: Errno| refuse(&control, broken(what, errno));
        let Request { id, settings, terminal, surroundings } = request;
        let mut more = more.into_iter();
        let (Surroundings::Own { mounts, terminals, listener }, Some(root)) = (surroundings, more.next())
        else {
            return Err(fail("request", Errno::BADMSG));
        };
        let terminals = more.by_ref().take(usize::from(terminals)).next();
        let listener = listener.and_then(|address| Some(Listener { address, handover: more.next()? }));
        let roots_clone = root.try_clone().map_err(|_| fail("request", Errno::MFILE))?;
        let limits = settings.limits.as_ref().filter(|limits| !limits.is_empty());
        let group = limits.map(|limits| place.cgroups.create(limits)).transpose();
        let group = group.map_err(|error| refuse(&control, error))?;
        let (report, childs_report) = protocol::pair().map_err(|errno| fail("socket", errno))?;
        let started = Instant::now();
        let namespaces = namespaces(settings.network, place);
        match clone_process(namespaces) {
            Ok(Cloned::Child) => {
                drop(report);
                let detached = more.collect();
                let new = New { root, mounts, detached, files: &files, terminals, listener };
                let container = Container::New(new);
                let child = Child { settings, terminal, streams, container, group: group.as_ref() };
                child.run(place, &childs_report)
            }
            Ok(Cloned::Parent { pid, pidfd }) => Ok(Self {
                id,
                pid,
                pidfd,
                namespaces,
                control: Some(control),
                report: Some(report),
                root: Some(roots_clone),
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

    /// Clones a process into the container of another one.
    pub(super) fn join(asked: Asked, first: &Self, place: &Place) -> Result<Self, BadRequest> {
        let Asked { request, control, streams, .. } = asked;
        let (report, childs_report) =
            protocol::pair().map_err(|errno| refuse(&control, broken("socket", errno)))?;
        let started = Instant::now();
        match clone_into(&first.pidfd) {
            Ok(Cloned::Child) => {
                drop(report);
                let Request { settings, terminal, .. } = request;
                let container = Container::Of { first: &first.pidfd, namespaces: first.namespaces };
                let child = Child { settings, terminal, streams, container, group: first.group.as_ref() };
                child.run(place, &childs_report)
            }
            Ok(Cloned::Parent { pid, pidfd }) => Ok(Self {
                id: request.id,
                pid,
                pidfd,
                namespaces: first.namespaces,
                control: Some(control),
                report: Some(report),
                root: None,
                stubs: Vec::new(),
                failure: None,
                group: None,
                started,
                over: false,
            }),
            // It has just ended, or is about to.
            Err(Errno::SRCH | Errno::NOMEM) => Err(refuse(&control, ProcessError::ContainerEnded)),
            Err(errno) => Err(refuse(&control, broken("namespaces", errno))),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Tells whether the process has become its program.
    pub(super) fn is_set_up(&self) -> bool {
        self.report.is_none()
    }

    /// Listens to the engine no more.
    pub(super) fn hang_up(&mut self) {
        self.control = None;
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
                self.tell(Err(broken("wait", errno)));
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

fn broken(what: &str, errno: Errno) -> ProcessError {
    ProcessError::Setup { what: what.to_owned(), errno: errno.raw_os_error() }
}

/// Chooses the namespaces of a container.
fn namespaces(network: Network, place: &Place) -> i32 {
    let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if network == Network::None {
        flags |= libc::CLONE_NEWNET;
    }
    if place.cgroup_namespace {
        flags |= libc::CLONE_NEWCGROUP;
    }
    flags
}
