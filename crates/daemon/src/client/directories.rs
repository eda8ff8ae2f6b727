//! Directories in sessions of their own: what builds have in common is one source to the daemon.
//!
//! A definition names the session that has a directory. Were that the build's own, the same context of two builds
//! would be two sources, and what a frontend has made of a directory would mean nothing in another build. So each
//! directory is served apart, once for all builds, and the frontend is told where (`local-sessionid:NAME`). All else
//! that a build may use stays in its own session.
//!
//! Invariant: builds that offer the same directory by the same name name the same session.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::parts::Part;
use super::request::Prepared;
use super::{Client, Offer, SolveSpec, offer};
use crate::worker::new_id;

/// The directories that builds have in common, served for as long as this lives.
#[derive(Debug, Default)]
pub(super) struct Directories {
    served: Mutex<HashMap<Directory, Arc<OnceCell<Served>>>>,
}

/// A directory, and the name that builds know it by.
type Directory = (String, PathBuf);

/// A session that has one directory.
#[derive(Debug)]
struct Served {
    id: String,
    _task: AbortOnDropHandle<()>,
}

impl Client {
    /// Makes a client whose builds have their directories in common: the daemon gets each once.
    #[must_use]
    pub fn sharing_directories(&self) -> Self {
        Self { directories: Some(Arc::default()), ..self.clone() }
    }

    /// Serves what a request offers of directories apart, if other builds may offer them too or contexts are made of
    /// other requests, which have directories of the same names. They are served while the result lives.
    pub(super) async fn serve_apart(
        &self,
        prepared: &mut Prepared,
    ) -> Result<Option<Arc<Directories>>, Status> {
        let directories = match &self.directories {
            Some(directories) => directories.clone(),
            None if prepared.parts.is_empty() => return Ok(None),
            None => Arc::default(),
        };
        let own = std::mem::take(&mut prepared.offer.directories);
        let key = &prepared.offer.shared_key;
        directories.serve(self, own, key, &mut prepared.spec).await?;
        for part in &mut prepared.parts {
            directories.serve_part(self, part).await?;
        }
        Ok(Some(directories))
    }
}

impl Directories {
    async fn serve_part(&self, client: &Client, part: &mut Part) -> Result<(), Status> {
        let own = std::mem::take(&mut part.directories);
        self.serve(client, own, &part.shared_key, &mut part.spec).await?;
        for part in &mut part.parts {
            Box::pin(self.serve_part(client, part)).await?;
        }
        Ok(())
    }

    /// Tells the frontend which sessions have the directories; those that are not served yet are.
    async fn serve(
        &self,
        client: &Client,
        directories: BTreeMap<String, PathBuf>,
        shared_key: &str,
        spec: &mut SolveSpec,
    ) -> Result<(), Status> {
        for (name, path) in directories {
            let attribute = format!("local-sessionid:{name}");
            let cell = self.served.lock().entry((name.clone(), path.clone())).or_default().clone();
            let serve = async || {
                let offer = Offer {
                    directories: [(name, path)].into(),
                    shared_key: shared_key.to_owned(),
                    ..Offer::default()
                };
                let id = new_id();
                let task = offer::serve(&mut client.control(), &id, Arc::new(offer)).await?;
                Ok::<_, Status>(Served { id, _task: task })
            };
            let served = cell.get_or_try_init(serve).await?;
            spec.attributes.insert(attribute, served.id.clone());
        }
        Ok(())
    }
}
