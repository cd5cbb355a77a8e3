//! Starts, checks and stops the parts.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::error::{StackError, os};
use crate::fetch::Parts;
use crate::launch::{Launcher, RegistryStore, Running};
use crate::part::Part;
use crate::progress::{Progress, reported};
use crate::prometheus;
use crate::run_folder::RunFolder;

/// Seconds between the blocks of a usual Thor node: the least that it takes.
const BLOCK_SECONDS: u32 = 1;

/// What to start.
struct Wanted<'a> {
    parts: &'a [Part],
    /// Seconds between the blocks of a Thor node.
    block_seconds: u32,
    /// Blocks of an epoch of a Thor node, where they are not those of public networks.
    epoch: Option<u32>,
}

/// The running parts; dropping it ends them and removes their data. The logs of the last five runs stay in `ROOT/logs`.
#[derive(Debug)]
pub struct Stack {
    running: BTreeMap<Part, Running>,
    urls: BTreeMap<Part, String>,
    folder: RunFolder,
}

impl Stack {
    /// Starts the usual parts ([`Part::USUAL`]) but those that the environment replaces (see [`Part::variable`]). `root` is
    /// the ignored folder for the fetched parts (`root/parts`), the data of this run (`root/run/NAME`) and the logs
    /// (`root/logs/NAME`). Reports what it does through `progress`, at least every two seconds.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn start(root: &Path, progress: &dyn Fn(&str)) -> Result<Self, StackError> {
        Self::start_with(root, &[], progress)
    }

    /// As [`Self::start`], with `more` parts besides the usual ones.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn start_with(root: &Path, more: &[Part], progress: &dyn Fn(&str)) -> Result<Self, StackError> {
        let replaced = |part: Part| {
            let url = std::env::var(part.variable()).ok().filter(|url| !url.is_empty())?;
            Some((part, url))
        };
        let wanted = [&Part::USUAL, more].concat();
        let wanted = Wanted { parts: &wanted, block_seconds: BLOCK_SECONDS, epoch: None };
        Self::launch(root, &wanted, Part::ALL.into_iter().filter_map(replaced).collect(), progress)
    }

    /// Starts these parts and no others, whatever the environment says: for tests that kill parts. The registry needs
    /// PostgreSQL beside it, or keeps its schemas in memory.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn start_own(root: &Path, parts: &[Part], progress: &dyn Fn(&str)) -> Result<Self, StackError> {
        let wanted = Wanted { parts, block_seconds: BLOCK_SECONDS, epoch: None };
        Self::launch(root, &wanted, BTreeMap::new(), progress)
    }

    /// As [`Self::start_own`], with epochs of so many blocks (at least 2) on the Thor node: a block is final two to three epochs later,
    /// which are 6 to 9 minutes otherwise. Its genesis block is another one than that of a usual node.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn start_with_epochs(
        root: &Path,
        parts: &[Part],
        epoch: u32,
        progress: &dyn Fn(&str),
    ) -> Result<Self, StackError> {
        let wanted = Wanted { parts, block_seconds: BLOCK_SECONDS, epoch: Some(epoch) };
        Self::launch(root, &wanted, BTreeMap::new(), progress)
    }

    /// Starts a Thor node and nothing else, whatever the environment says, with `block_seconds` between its blocks: for tests of a
    /// chain that has its first block only.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn start_slow_thor(
        root: &Path,
        block_seconds: u32,
        progress: &dyn Fn(&str),
    ) -> Result<Self, StackError> {
        let wanted = Wanted { parts: &[Part::Thor], block_seconds, epoch: None };
        Self::launch(root, &wanted, BTreeMap::new(), progress)
    }

    fn launch(
        root: &Path,
        wanted: &Wanted<'_>,
        urls: BTreeMap<Part, String>,
        progress: &dyn Fn(&str),
    ) -> Result<Self, StackError> {
        std::fs::create_dir_all(root).map_err(os("make the folder of the local parts"))?;
        let root = root.canonicalize().map_err(os("find the folder of the local parts"))?;
        let folder = RunFolder::make(&root).map_err(os("make the folder of the run"))?;
        let mut stack = Self { running: BTreeMap::new(), urls, folder };
        let parts: Vec<Part> = Part::ALL
            .into_iter()
            .filter(|part| wanted.parts.contains(part) && !stack.urls.contains_key(part))
            .collect();
        for running in start_all(&root, &stack.folder, &Wanted { parts: &parts, ..*wanted }, progress) {
            let (part, running) = running?;
            stack.urls.insert(part, running.url.clone());
            stack.running.insert(part, running);
        }
        Ok(stack)
    }

    /// Kafka's bootstrap servers; empty when it is not part of this stack, and so below.
    #[must_use]
    pub fn kafka_brokers(&self) -> &str {
        self.url(Part::Kafka)
    }

    /// The registry's Confluent-compatible base URL.
    #[must_use]
    pub fn schema_registry_url(&self) -> &str {
        self.url(Part::Registry)
    }

    /// PostgreSQL's URL.
    #[must_use]
    pub fn database_url(&self) -> &str {
        self.url(Part::Postgres)
    }

    /// MongoDB's URI.
    #[must_use]
    pub fn mongodb_uri(&self) -> &str {
        self.url(Part::Mongodb)
    }

    /// Prometheus's URL.
    #[must_use]
    pub fn prometheus_url(&self) -> &str {
        self.url(Part::Prometheus)
    }

    /// The Thor node's URL.
    #[must_use]
    pub fn thor_url(&self) -> &str {
        self.url(Part::Thor)
    }

    fn url(&self, part: Part) -> &str {
        self.urls.get(&part).map_or("", String::as_str)
    }

    /// The variables that tell a child process where the parts are.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.urls.iter().map(|(part, url)| (part.variable(), url.as_str()))
    }

    /// The folder of this run's data, which goes with it; process ids of roles belong here too.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.data()
    }

    /// The folder of this run's logs, which is kept for some runs; logs of roles belong here too.
    #[must_use]
    pub fn logs(&self) -> &Path {
        self.folder.logs()
    }

    /// The name of this run, unique on this machine.
    #[must_use]
    pub fn name(&self) -> &str {
        self.folder.name()
    }

    /// Lets Prometheus read `http://ADDRESS/metrics` under these labels; the same names again move it to another address.
    /// Does nothing where the environment replaced Prometheus: that one is configured by its owner.
    ///
    /// # Errors
    /// When a name has other characters than letters, digits, `-`, `_` and `.`, or the disk fails.
    pub fn scrape(&self, job: &str, instance: &str, address: SocketAddr) -> io::Result<()> {
        if !self.running.contains_key(&Part::Prometheus) {
            return Ok(());
        }
        prometheus::add(&self.folder.data().join("prometheus"), job, instance, address)
    }

    /// The process id of a part that this stack runs.
    #[must_use]
    pub fn pid(&self, part: Part) -> Option<u32> {
        self.running.get(&part)?.process.pid()
    }

    /// SIGKILL to a part that this stack runs; false where it does not.
    pub fn kill(&mut self, part: Part) -> bool {
        self.running.get_mut(&part).map(|running| running.process.kill()).is_some()
    }

    /// Starts a killed part again, on the same port and data, and waits until it responds.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn start_again(&mut self, part: Part) -> Result<(), StackError> {
        self.running.get_mut(&part).map_or(Ok(()), Running::start_again)
    }

    /// Ends every part and removes the data, as dropping does.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // The data goes, so nothing is worth an orderly end but the shared memory that PostgreSQL would leave behind.
        if let Some(postgres) = self.running.get_mut(&Part::Postgres) {
            postgres.process.end("QUIT", Duration::from_secs(5));
        }
        self.running.clear();
        // Err means that a file is held; the next run sweeps the folder.
        let _ = self.folder.remove_data();
    }
}

/// All at once: fetching waits for the network, starting for the processor and the disk.
fn start_all(
    root: &Path,
    folder: &RunFolder,
    wanted: &Wanted<'_>,
    progress: &dyn Fn(&str),
) -> Vec<Result<(Part, Running), StackError>> {
    let (tasks, report): (Progress, _) = reported();
    let parts = Parts::at(root.join("parts"), tasks.clone());
    let launcher = Launcher { parts, run: folder, progress: tasks };
    let (database, receiver) = channel();
    let mut store = Some(if wanted.parts.contains(&Part::Postgres) {
        RegistryStore::Postgres(receiver)
    } else {
        RegistryStore::Memory
    });
    let mut database = Some(database);
    thread::scope(|scope| {
        let launcher = std::sync::Arc::new(launcher);
        let threads: Vec<_> = wanted
            .parts
            .iter()
            .map(|&part| {
                let launcher = std::sync::Arc::clone(&launcher);
                // The sender goes with PostgreSQL's thread, so that the registry's sees its failure.
                let database = if part == Part::Postgres { database.take() } else { None };
                let store = if part == Part::Registry { store.take() } else { None };
                let thread = scope.spawn(move || match part {
                    Part::Postgres => {
                        let running = launcher.postgres()?;
                        if let Some(database) = database {
                            // Err means that no registry is wanted.
                            let _ = database.send(running.url.clone());
                        }
                        Ok(running)
                    }
                    Part::Mongodb => launcher.mongodb(),
                    Part::Kafka => launcher.kafka(),
                    Part::Registry => launcher.registry(store.unwrap_or(RegistryStore::Memory)),
                    Part::Prometheus => launcher.prometheus(),
                    Part::Thor => launcher.thor(wanted.block_seconds, wanted.epoch),
                });
                (part, thread)
            })
            .collect();
        drop(launcher);
        report.print(progress);
        let join = |(part, thread): (Part, thread::ScopedJoinHandle<'_, Result<Running, StackError>>)| {
            let running = thread.join().unwrap_or(Err(StackError::Panicked(part)))?;
            Ok((part, running))
        };
        threads.into_iter().map(join).collect()
    })
}
