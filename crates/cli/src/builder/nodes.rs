//! The nodes of a builder: which answer, what each runs by itself, and who gets which platform.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use slipway_daemon::client::Client;
use slipway_model::progress::{Event, EventSink, Log, Stream, Vertex};
use slipway_model::{Diagnostic, Digest, Platform};
use tokio::sync::Mutex;

use crate::builders::{Node, NodeGroup, driver};

/// How long a node may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(5);

/// A node that answered.
#[derive(Clone, Debug)]
pub(super) struct Connected {
    pub(super) name: String,
    pub(super) client: Client,
    /// Platforms that somebody has set.
    set: Vec<Platform>,
    /// What it runs: its own platform first.
    runs: Vec<Platform>,
}

impl Connected {
    async fn new(
        group: &NodeGroup,
        node: &Node,
        shares_directories: bool,
        events: &Arc<dyn EventSink>,
    ) -> Result<Self, Diagnostic> {
        let client = driver::boot(group, node, events).await?;
        let client = if shares_directories { client.sharing_directories() } else { client };
        let workers = tokio::time::timeout(ANSWER, client.workers()).await;
        let workers = workers.map_err(|_| driver::silent_node(node))?.map_err(Diagnostic::from)?;
        let runs = workers.into_iter().next().unwrap_or_default().platforms;
        Ok(Self { name: node.name.clone(), client, set: node.platforms.clone(), runs })
    }

    /// Returns the platform that it builds for if nobody says which.
    pub(super) fn own_platform(&self) -> Platform {
        self.runs.first().cloned().unwrap_or_else(Platform::host)
    }

    /// Asks whether the node is still there.
    pub(super) async fn answers(&self) -> bool {
        matches!(tokio::time::timeout(ANSWER, self.client.workers()).await, Ok(Ok(_)))
    }

    /// Says how well the node suits a platform: 0 is best, `None` not at all.
    fn rank(&self, platform: &Platform) -> Option<u8> {
        let is = |known: &Platform| known == platform || known.accepts(platform);
        if self.set.iter().any(|known| known == platform) {
            return Some(0);
        }
        if self.runs.first().is_some_and(is) {
            return Some(1);
        }
        if self.set.iter().any(is) {
            return Some(2);
        }
        self.runs.iter().any(is).then_some(3)
    }
}

/// The nodes of one builder.
#[derive(Debug)]
pub(super) struct Nodes {
    list: Vec<Connected>,
    /// Names of nodes that were lost since.
    lost: Mutex<Vec<String>>,
}

impl Nodes {
    /// Connects to every node at once; what does not answer is told, and an error only if nobody does.
    pub(super) async fn connect(
        group: &NodeGroup,
        shares_directories: bool,
        events: &Arc<dyn EventSink>,
    ) -> Result<Self, Diagnostic> {
        let tries = group.nodes.iter().map(|node| Connected::new(group, node, shares_directories, events));
        let mut list = Vec::new();
        let mut failed = Vec::new();
        for (node, result) in group.nodes.iter().zip(join_all(tries).await) {
            match result {
                Ok(connected) => list.push(connected),
                Err(error) => failed.push((node, error)),
            }
        }
        if list.is_empty() {
            let first = failed.into_iter().next().map(|(_, error)| error);
            return Err(first.unwrap_or_else(|| {
                Diagnostic::new(
                    slipway_model::ErrorKind::User,
                    format!("the builder `{}` has no nodes", group.name),
                )
            }));
        }
        for (node, error) in failed {
            tell(
                events,
                &format!("[internal] node {} is down, its platforms go to others", node.name),
                &error.to_string(),
            );
        }
        Ok(Self { list, lost: Mutex::default() })
    }

    /// Lists the nodes that answered.
    pub(super) fn alive(&self) -> &[Connected] {
        &self.list
    }

    /// Notes that a node is there no more.
    pub(super) async fn lose(&self, node: &Connected, events: &Arc<dyn EventSink>, error: &Diagnostic) {
        let mut lost = self.lost.lock().await;
        if !lost.contains(&node.name) {
            lost.push(node.name.clone());
            let name = format!("[internal] node {} was lost, its platforms go to others", node.name);
            tell(events, &name, &error.to_string());
        }
    }

    /// Gives each platform to the node that suits it best; no platforms are one build on the first node.
    pub(super) fn plan<'a>(&'a self, platforms: &[Platform]) -> Vec<(&'a Connected, Vec<Platform>)> {
        let lost = self.lost.try_lock().map(|lost| lost.clone()).unwrap_or_default();
        let there: Vec<&Connected> = self.list.iter().filter(|node| !lost.contains(&node.name)).collect();
        let Some(first) = there.first().copied() else { return Vec::new() };
        if platforms.is_empty() {
            return vec![(first, Vec::new())];
        }
        let mut plan: Vec<(&Connected, Vec<Platform>)> = Vec::new();
        for platform in platforms {
            let ranked = there.iter().filter_map(|node| Some((node.rank(platform)?, *node)));
            let node = ranked.min_by_key(|(rank, _)| *rank).map_or(first, |(_, node)| node);
            match plan.iter_mut().find(|(known, _)| known.name == node.name) {
                Some((_, list)) => list.push(platform.clone()),
                None => plan.push((node, vec![platform.clone()])),
            }
        }
        plan
    }
}

/// Shows a step that is over at once, with what there is to say of it.
pub(super) fn tell(events: &Arc<dyn EventSink>, name: &str, text: &str) {
    let (digest, now) = (Digest::of(name), SystemTime::now());
    events.emit(Event::Vertex(Vertex {
        digest,
        name: name.to_owned(),
        inputs: Vec::new(),
        started: Some(now),
        completed: Some(now),
        cached: false,
        error: None,
        progress_group: None,
    }));
    let data = format!("{text}\n").into_bytes().into();
    events.emit(Event::Log(Log { vertex: digest, stream: Stream::Stderr, data, timestamp: now }));
}
