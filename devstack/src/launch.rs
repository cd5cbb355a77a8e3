//! The command of each part, and its start on ports that are free.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::client::FetchError;
use crate::error::{StackError, os};
use crate::fetch::Parts;
use crate::genesis;
use crate::part::Part;
use crate::ports;
use crate::postgres::Cluster;
use crate::process::{Program, Supervised, tail};
use crate::progress::Progress;
use crate::prometheus;
use crate::ready::responds;
use crate::run_folder::RunFolder;

/// Longest wait for one part to respond. Alone the slowest (the registry) takes 11 s; with two
/// stacks and five builds on two cores 42 s were seen.
const READY: Duration = Duration::from_secs(180);
/// Starts of one part on ever other ports. A port is lost to another process once in thousands of starts.
const STARTS: u32 = 5;

/// What starts a part on given ports.
#[derive(Debug)]
struct Plan {
    port: u16,
    url: String,
    command: Vec<String>,
    envs: Vec<(&'static str, String)>,
}

/// A part that responds.
#[derive(Debug)]
pub(crate) struct Running {
    part: Part,
    pub(crate) url: String,
    port: u16,
    program: Program,
    /// Length of the log before this start.
    log_start: u64,
    pub(crate) process: Supervised,
}

/// Where the registry keeps its schemas.
pub(crate) enum RegistryStore {
    /// In the local PostgreSQL, whose URL comes when it responds; the sender is dropped when it does not.
    Postgres(Receiver<String>),
    /// In memory: PostgreSQL was replaced, and a foreign server has no database for it.
    Memory,
}

/// Fetches and starts parts; one for all threads.
#[derive(Debug)]
pub(crate) struct Launcher<'a> {
    pub(crate) parts: Parts,
    pub(crate) run: &'a RunFolder,
    pub(crate) progress: Progress,
}

impl Launcher<'_> {
    pub(crate) fn postgres(&self) -> Result<Running, StackError> {
        let task = self.progress.begin("setting up PostgreSQL");
        let cluster = Cluster::make(self.run)?;
        drop(task);
        // QUIT is its immediate shutdown: after a KILL its shared memory would stay behind.
        self.start(Part::Postgres, "QUIT", || {
            let port = free()?;
            let url = format!("postgres://milestream@127.0.0.1:{port}/milestream");
            Ok(Plan { port, url, command: cluster.serve(port), envs: Vec::new() })
        })
    }

    pub(crate) fn mongodb(&self) -> Result<Running, StackError> {
        let program = self.parts.mongodb()?;
        let folder = self.folder("mongodb")?;
        self.start(Part::Mongodb, "KILL", || {
            let port = free()?;
            let mut command = vec![program.to_string_lossy().into_owned(), "--port".into(), port.to_string()];
            command.extend(["--storage-path".into(), folder.clone()]);
            let limits = ["--cache-size", "256M", "--log-file-max", "64MB", "--sync-on-commit"];
            command.extend(limits.map(str::to_owned));
            Ok(Plan { port, url: format!("mongodb://127.0.0.1:{port}/"), command, envs: Vec::new() })
        })
    }

    pub(crate) fn kafka(&self) -> Result<Running, StackError> {
        let java = self.parts.java()?.to_string_lossy().into_owned();
        let classes = format!("{}/*", self.parts.kafka()?.display());
        let folder = self.folder("kafka")?;
        self.start(Part::Kafka, "KILL", || {
            let (port, controller) = (free()?, free()?);
            let properties = format!("{folder}/server.properties");
            fs::write(&properties, kafka_properties(port, controller, &folder))
                .map_err(os("write Kafka's settings"))?;
            format_kafka(&java, &classes, &properties)?;
            let command = [&java, "-Xmx512m", "-cp", &classes, "kafka.Kafka", &properties];
            let command = command.map(str::to_owned).to_vec();
            Ok(Plan { port, url: format!("127.0.0.1:{port}"), command, envs: Vec::new() })
        })
    }

    pub(crate) fn registry(&self, store: RegistryStore) -> Result<Running, StackError> {
        let java = self.parts.java()?.to_string_lossy().into_owned();
        let jar = self.parts.registry()?.join("quarkus-run.jar").to_string_lossy().into_owned();
        let storage = match store {
            RegistryStore::Postgres(url) => {
                registry_storage(&url.recv().map_err(|_| StackError::Needs(Part::Registry, Part::Postgres))?)
            }
            RegistryStore::Memory => Vec::new(),
        };
        self.start(Part::Registry, "KILL", || {
            let (port, management) = (free()?, free()?);
            let mut envs = vec![
                ("QUARKUS_HTTP_HOST", "127.0.0.1".to_owned()),
                ("QUARKUS_HTTP_PORT", port.to_string()),
                ("QUARKUS_MANAGEMENT_HOST", "127.0.0.1".to_owned()),
                ("QUARKUS_MANAGEMENT_PORT", management.to_string()),
            ];
            envs.extend(storage.clone());
            // It serves a few requests: code that is compiled quickly is worth more than fast code.
            let quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx384m"];
            let command = [&[java.as_str()], &quick[..], &["-jar", &jar]].concat();
            let command = command.into_iter().map(str::to_owned).collect();
            Ok(Plan { port, url: format!("http://127.0.0.1:{port}/apis/ccompat/v7"), command, envs })
        })
    }

    pub(crate) fn prometheus(&self) -> Result<Running, StackError> {
        let found = self.parts.prometheus()?;
        let folder = self.folder("prometheus")?;
        prometheus::configure(Path::new(&folder)).map_err(os("write Prometheus's settings"))?;
        self.start(Part::Prometheus, "KILL", || {
            let port = free()?;
            let mut command = vec![found.program.to_string_lossy().into_owned()];
            command.push(format!("--config.file={folder}/prometheus.yml"));
            command.push(format!("--storage.tsdb.path={folder}/data"));
            command.push(format!("--web.listen-address=127.0.0.1:{port}"));
            command.extend(found.assets.iter().map(|path| format!("--web.local-assets={}", path.display())));
            Ok(Plan { port, url: format!("http://127.0.0.1:{port}"), command, envs: Vec::new() })
        })
    }

    /// One node that is its whole network: it makes a block every `block_seconds`, and the mempool is that of a public node. With an
    /// `epoch` of so many blocks its genesis block is its own.
    pub(crate) fn thor(&self, block_seconds: u32, epoch: Option<u32>) -> Result<Running, StackError> {
        let program = self.parts.thor()?.to_string_lossy().into_owned();
        let folder = self.folder("thor")?;
        let interval = block_seconds.to_string();
        let genesis = epoch.map(|blocks| -> Result<String, StackError> {
            let file = Path::new(&folder).join("genesis.json");
            fs::write(&file, genesis::with_epochs(blocks)).map_err(os("write the chain's genesis"))?;
            Ok(file.to_string_lossy().into_owned())
        });
        let genesis = genesis.transpose()?;
        self.start(Part::Thor, "KILL", || {
            let port = free()?;
            let api = format!("127.0.0.1:{port}");
            let command = [&program, "solo", "--block-interval", &interval, "--api-addr", &api];
            let apis = ["--api-enable-txpool", "--api-allowed-tracers", "all"];
            let data = ["--data-dir", &folder, "--persist", "--cache", "64"];
            let network: Vec<&str> = genesis.iter().flat_map(|file| ["--genesis", file]).collect();
            let command = [&command[..], &apis, &data, &network].concat();
            let command = command.into_iter().map(str::to_owned).collect();
            Ok(Plan { port, url: format!("http://{api}"), command, envs: Vec::new() })
        })
    }

    fn folder(&self, name: &str) -> Result<String, StackError> {
        let folder = self.run.data().join(name);
        fs::create_dir_all(&folder).map_err(os("make a part's folder"))?;
        Ok(folder.to_string_lossy().into_owned())
    }

    /// Starts a part on the ports of a plan, and again on those of a new plan when they turn out to be taken.
    fn start(
        &self,
        part: Part,
        farewell: &'static str,
        mut plan: impl FnMut() -> Result<Plan, StackError>,
    ) -> Result<Running, StackError> {
        let since = Instant::now();
        let _task = self.progress.begin(format!("starting {part}"));
        let name = part.name();
        let running = on_free_ports(|| {
            let Plan { port, url, command, envs } = plan()?;
            let log = self.run.logs().join(format!("{name}.log"));
            let pidfile = self.run.data().join(format!("{name}.pid"));
            let program = Program { command, envs, log, pidfile, farewell };
            Running::start(part, port, url, program)
        })?;
        self.progress.line(format!(
            "{part} responds at {} ({:.1} s)",
            running.url,
            since.elapsed().as_secs_f64()
        ));
        Ok(running)
    }
}

impl Running {
    fn start(part: Part, port: u16, url: String, program: Program) -> Result<Self, StackError> {
        let log_start = fs::metadata(&program.log).map(|meta| meta.len()).unwrap_or_default();
        let process = Supervised::start(&program).map_err(os("start a part"))?;
        let running = Self { part, url, port, program, log_start, process };
        running.wait()?;
        Ok(running)
    }

    /// Starts it again after a kill, on the same port and data.
    pub(crate) fn start_again(&mut self) -> Result<(), StackError> {
        self.process.kill();
        let until = Instant::now() + READY;
        loop {
            match Self::start(self.part, self.port, self.url.clone(), self.program.clone()) {
                // PostgreSQL's children live a moment longer than a killed server, and so does a socket. It says
                // "pre-existing shared memory block (key …, ID …) is still in use".
                Err(StackError::PortTaken { .. }) if Instant::now() < until => {}
                Err(StackError::NotReady { log, .. })
                    if log.contains("pre-existing shared memory block")
                        && log.contains("is still in use")
                        && Instant::now() < until => {}
                Err(error) => return Err(error),
                Ok(running) => {
                    *self = running;
                    return Ok(());
                }
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    fn wait(&self) -> Result<(), StackError> {
        let part = self.part;
        let since = Instant::now();
        while since.elapsed() < READY && self.process.is_alive() {
            let own = || self.process.pid().is_some_and(|pid| ports::listens(pid, self.port));
            if responds(part, self.port) && own() {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let ended = !self.process.is_alive();
        let log = tail(&self.program.log, self.log_start, 15);
        if ended && ports::taken(&tail(&self.program.log, self.log_start, usize::MAX)) {
            return Err(StackError::PortTaken { part, port: self.port });
        }
        Err(StackError::NotReady { part, seconds: since.elapsed().as_secs(), log })
    }
}

fn on_free_ports<T>(mut start: impl FnMut() -> Result<T, StackError>) -> Result<T, StackError> {
    for _ in 1..STARTS {
        match start() {
            Err(StackError::PortTaken { .. }) => {}
            end => return end,
        }
    }
    start()
}

fn free() -> Result<u16, StackError> {
    ports::free().map_err(os("find a free port"))
}

/// One broker that is also the controller; replication factors of 1 because there is no second one.
/// What nobody has restricted is allowed to everybody; a test can take a permission away.
fn kafka_properties(port: u16, controller: u16, folder: &str) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={folder}/log\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n\
         offsets.topic.num.partitions=4\ntransaction.state.log.num.partitions=4\nauto.create.topics.enable=false\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         allow.everyone.if.no.acl.found=true\n"
    )
}

fn format_kafka(java: &str, classes: &str, properties: &str) -> Result<(), StackError> {
    // A cluster id is the URL-safe base64 of a UUID; any will do for one that nobody else joins.
    let id = "bWlsZXN0cmVhbS1sb2NhbA";
    let formatted = Command::new(java)
        // It runs for a second: compiling its code well would not pay.
        .args([
            "-XX:TieredStopAtLevel=1",
            "-cp",
            classes,
            "kafka.tools.StorageTool",
            "format",
            "--ignore-formatted",
        ])
        .args(["-t", id, "-c", properties])
        .stdin(Stdio::null())
        .output()
        .map_err(os("format Kafka's storage"))?;
    if formatted.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&[formatted.stdout, formatted.stderr].concat()).into_owned();
    Err(FetchError::Client { command: "kafka.tools.StorageTool".into(), output }.into())
}

/// A database of its own: the registry's tables (one is called outbox) must not meet ours.
fn registry_storage(database: &str) -> Vec<(&'static str, String)> {
    let host = database.rsplit('@').next().unwrap_or_default().split('/').next().unwrap_or_default();
    vec![
        ("APICURIO_STORAGE_KIND", "sql".to_owned()),
        ("APICURIO_STORAGE_SQL_KIND", "postgresql".to_owned()),
        ("APICURIO_DATASOURCE_URL", format!("jdbc:postgresql://{host}/registry")),
        ("APICURIO_DATASOURCE_USERNAME", "milestream".to_owned()),
        // The local server asks for none.
        ("APICURIO_DATASOURCE_PASSWORD", "unused".to_owned()),
        ("APICURIO_DATASOURCE_JDBC_INITIAL_SIZE", "2".to_owned()),
        ("APICURIO_DATASOURCE_JDBC_MIN_SIZE", "2".to_owned()),
        ("APICURIO_DATASOURCE_JDBC_MAX_SIZE", "10".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken() -> StackError {
        StackError::PortTaken { part: Part::Kafka, port: 1 }
    }

    #[test]
    fn a_taken_port_leads_to_another_start_and_another_failure_does_not() {
        let mut results = vec![Ok(3), Err(taken()), Err(taken())];
        assert_eq!(on_free_ports(|| results.pop().unwrap()).unwrap(), 3);
        let mut starts = 0;
        let end = on_free_ports(|| -> Result<(), _> {
            starts += 1;
            Err(StackError::Needs(Part::Registry, Part::Postgres))
        });
        assert!(end.is_err());
        assert_eq!(starts, 1);
    }

    #[test]
    fn starts_on_taken_ports_end_after_five() {
        let mut starts = 0;
        let end = on_free_ports(|| -> Result<(), _> {
            starts += 1;
            Err(taken())
        });
        assert!(matches!(end, Err(StackError::PortTaken { .. })));
        assert_eq!(starts, STARTS);
    }

    #[test]
    fn a_part_whose_port_another_process_holds_reports_it_although_somebody_responds() {
        let folder = tempfile::tempdir().unwrap();
        let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let script = "echo 'bind: Address already in use'; exit 1";
        let program = Program {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            envs: Vec::new(),
            log: folder.path().join("log"),
            pidfile: folder.path().join("pid"),
            farewell: "KILL",
        };
        let end = Running::start(Part::Kafka, port, String::new(), program);
        assert!(matches!(end, Err(StackError::PortTaken { .. })), "{end:?}");
    }

    #[test]
    fn the_registry_gets_a_database_of_its_own() {
        let storage = registry_storage("postgres://milestream@127.0.0.1:5433/milestream");
        assert!(
            storage
                .contains(&("APICURIO_DATASOURCE_URL", "jdbc:postgresql://127.0.0.1:5433/registry".into()))
        );
    }
}
