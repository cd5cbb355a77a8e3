//! Starts, checks and stops the parts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fetch::{FetchError, Parts, which};
use crate::process::Supervised;

/// Longest wait for one part to answer. The slowest (the registry, cold, on a busy machine) was seen at 11 s.
const READY: Duration = Duration::from_secs(90);

/// A part of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Apache Kafka, one broker, KRaft.
    Kafka,
    /// Apicurio with its Confluent-compatible interface, stored in PostgreSQL.
    Registry,
    /// PostgreSQL.
    Postgres,
    /// A MongoDB server.
    Mongodb,
}

/// Why the stack did not start.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A part could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The operating system.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A part did not answer in time.
    #[error("{part:?} did not answer within {seconds} s; its log ends with:\n{log}")]
    NotReady {
        /// The part.
        part: Part,
        /// How long was waited.
        seconds: u64,
        /// The last lines of its log.
        log: String,
    },
}

fn os(what: &'static str) -> impl FnOnce(io::Error) -> StackError {
    move |source| StackError::Io { what, source }
}

#[derive(Debug)]
struct Running {
    command: Vec<String>,
    envs: Vec<(&'static str, String)>,
    port: u16,
    log: PathBuf,
    process: Supervised,
}

/// The running parts; dropping it ends them.
#[derive(Debug)]
pub struct Stack {
    running: BTreeMap<Part, Running>,
    urls: BTreeMap<Part, String>,
    data: PathBuf,
}

impl Stack {
    /// Starts every part that the environment does not replace. `root` is the ignored folder for parts and data; data
    /// of this stack lies in `root/run/<process id>` and goes with it. Says what it does through `progress`.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn start(root: &Path, progress: &dyn Fn(&str)) -> Result<Self, StackError> {
        fs::create_dir_all(root).map_err(os("make the folder of the local parts"))?;
        let root = root.canonicalize().map_err(os("find the folder of the local parts"))?;
        let parts = Parts::at(root.join("parts"));
        let data = root.join("run").join(std::process::id().to_string());
        let _ = fs::remove_dir_all(&data);
        fs::create_dir_all(data.join("logs")).map_err(os("make the data folder"))?;
        let mut stack = Self { running: BTreeMap::new(), urls: BTreeMap::new(), data };
        let replaced = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        for (part, name) in [
            (Part::Kafka, "KAFKA_BROKERS"),
            (Part::Registry, "SCHEMA_REGISTRY_URL"),
            (Part::Postgres, "DATABASE_URL"),
            (Part::Mongodb, "MONGODB_URI"),
        ] {
            if let Some(url) = replaced(name) {
                stack.urls.insert(part, url);
            }
        }
        stack.launch(&parts, progress)?;
        Ok(stack)
    }

    fn launch(&mut self, parts: &Parts, progress: &dyn Fn(&str)) -> Result<(), StackError> {
        let missing = |stack: &Self, part| !stack.urls.contains_key(&part);
        if missing(self, Part::Postgres) {
            progress("starting PostgreSQL");
            self.postgres()?;
        }
        if missing(self, Part::Mongodb) {
            progress("starting the MongoDB server (fetched once, 20 MB)");
            self.mongodb(&parts.mongodb()?)?;
        }
        let needs_java = missing(self, Part::Kafka) || missing(self, Part::Registry);
        let java = if needs_java { parts.java()?.to_string_lossy().into_owned() } else { String::new() };
        if missing(self, Part::Kafka) {
            progress("starting Apache Kafka 4.3.1 (fetched once, 54 MB)");
            self.kafka(&java, &parts.kafka()?)?;
        }
        if missing(self, Part::Registry) {
            progress("starting the schema registry (fetched once, 158 MB)");
            self.wait(Part::Postgres)?;
            self.registry(&java, &parts.registry()?)?;
        }
        for part in self.running.keys().copied().collect::<Vec<_>>() {
            self.wait(part)?;
        }
        progress("the local parts answer");
        Ok(())
    }

    /// Kafka's bootstrap servers.
    #[must_use]
    pub fn kafka_brokers(&self) -> &str {
        &self.urls[&Part::Kafka]
    }

    /// The registry's Confluent-compatible base URL.
    #[must_use]
    pub fn schema_registry_url(&self) -> &str {
        &self.urls[&Part::Registry]
    }

    /// PostgreSQL's URL.
    #[must_use]
    pub fn database_url(&self) -> &str {
        &self.urls[&Part::Postgres]
    }

    /// MongoDB's URI.
    #[must_use]
    pub fn mongodb_uri(&self) -> &str {
        &self.urls[&Part::Mongodb]
    }

    /// The variables that replace the parts in a child process.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("KAFKA_BROKERS", self.kafka_brokers()),
            ("SCHEMA_REGISTRY_URL", self.schema_registry_url()),
            ("DATABASE_URL", self.database_url()),
            ("MONGODB_URI", self.mongodb_uri()),
        ]
    }

    /// The folder of this run: logs and data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.data
    }

    /// SIGKILL to a part that this stack runs; false where the environment replaced it.
    pub fn kill(&mut self, part: Part) -> bool {
        self.running.get_mut(&part).map(|running| running.process.kill()).is_some()
    }

    /// Starts a killed part again, on the same port and data, and waits until it answers.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn start_again(&mut self, part: Part) -> Result<(), StackError> {
        if let Some(running) = self.running.get_mut(&part) {
            let pidfile = self.data.join(format!("{part:?}.pid"));
            let _ = fs::remove_file(self.data.join("postgres/postmaster.pid"));
            running.process = Supervised::spawn(&running.command, &running.envs, &running.log, pidfile)
                .map_err(os("start a part again"))?;
            self.wait(part)?;
        }
        Ok(())
    }

    /// Ends every part: asks first, then kills, and removes the data; logs of a failed run are worth more than the disk,
    /// so [`Drop`] keeps them.
    pub fn stop(mut self) {
        for part in [Part::Registry, Part::Kafka, Part::Mongodb] {
            self.kill(part);
        }
        if let Some(postgres) = self.running.get_mut(&Part::Postgres) {
            let _ = postgres.process.signal("INT");
            postgres.process.terminate(Duration::from_secs(5));
        }
        self.running.clear();
        let _ = fs::remove_dir_all(&self.data);
    }

    fn spawn(
        &mut self,
        part: Part,
        port: u16,
        command: Vec<String>,
        envs: Vec<(&'static str, String)>,
    ) -> Result<(), StackError> {
        let log = self.data.join("logs").join(format!("{part:?}.log").to_lowercase());
        let pidfile = self.data.join(format!("{part:?}.pid"));
        let process = Supervised::spawn(&command, &envs, &log, pidfile).map_err(os("start a part"))?;
        self.running.insert(part, Running { command, envs, port, log, process });
        Ok(())
    }

    fn wait(&self, part: Part) -> Result<(), StackError> {
        let Some(running) = self.running.get(&part) else { return Ok(()) };
        let until = Instant::now() + READY;
        while Instant::now() < until && running.process.is_alive() {
            if answers(part, running.port) {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let log = fs::read_to_string(&running.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(15).collect();
        let log = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
        Err(StackError::NotReady { part, seconds: READY.as_secs(), log })
    }

    fn postgres(&mut self) -> Result<(), StackError> {
        let bin = postgres_bin().ok_or(FetchError::Missing("postgresql"))?;
        let folder = self.data.join("postgres");
        fs::create_dir_all(&folder).map_err(os("make PostgreSQL's folder"))?;
        let folder = folder.canonicalize().map_err(os("find PostgreSQL's folder"))?;
        let user = unprivileged(&folder)?;
        let program = |name: &str| {
            let mut command = user.clone();
            command.push(bin.join(name).to_string_lossy().into_owned());
            command
        };
        let mut initdb = program("initdb");
        initdb.extend(
            ["-D", &folder.to_string_lossy(), "-U", "milestream", "-A", "trust", "-E", "UTF8"]
                .map(str::to_owned),
        );
        initdb.extend(["--locale=C.UTF-8", "--no-instructions"].map(str::to_owned));
        let made = Command::new(&initdb[0]).args(&initdb[1..]).stdin(Stdio::null()).output();
        let made = made.map_err(os("run initdb"))?;
        if !made.status.success() {
            let output = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(FetchError::Client { command: initdb.join(" "), output }.into());
        }
        create_databases(&program("postgres"), &folder)?;
        let port = free_port()?;
        let mut command = program("postgres");
        command.extend(
            ["-D", &folder.to_string_lossy(), "-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]
                .map(str::to_owned),
        );
        command.extend(["-c", "max_connections=200", "-c", "shared_buffers=128MB"].map(str::to_owned));
        self.spawn(Part::Postgres, port, command, Vec::new())?;
        let url = format!("postgres://milestream@127.0.0.1:{port}/milestream");
        self.urls.insert(Part::Postgres, url);
        self.wait(Part::Postgres)
    }

    fn mongodb(&mut self, program: &Path) -> Result<(), StackError> {
        let port = free_port()?;
        let folder = self.data.join("mongodb");
        fs::create_dir_all(&folder).map_err(os("make MongoDB's folder"))?;
        let command = [
            &program.to_string_lossy(),
            "--port",
            &port.to_string(),
            "--storage-path",
            &folder.to_string_lossy(),
            "--cache-size",
            "256M",
            "--log-file-max",
            "64MB",
            "--sync-on-commit",
        ];
        self.spawn(Part::Mongodb, port, command.map(str::to_owned).to_vec(), Vec::new())?;
        self.urls.insert(Part::Mongodb, format!("mongodb://127.0.0.1:{port}/"));
        Ok(())
    }

    fn kafka(&mut self, java: &str, folder: &Path) -> Result<(), StackError> {
        let (port, controller) = (free_port()?, free_port()?);
        let data = self.data.join("kafka");
        fs::create_dir_all(&data).map_err(os("make Kafka's folder"))?;
        let properties = data.join("server.properties");
        fs::write(&properties, kafka_properties(port, controller, &data.join("log")))
            .map_err(os("write Kafka's settings"))?;
        let lib = format!("{}/lib/*", folder.canonicalize().map_err(os("find Kafka"))?.display());
        let properties = properties.to_string_lossy().into_owned();
        // A cluster id is the URL-safe base64 of a UUID; any will do for one that nobody else joins.
        let formatted = Command::new(java)
            .args([
                "-cp",
                &lib,
                "kafka.tools.StorageTool",
                "format",
                "-t",
                "bWlsZXN0cmVhbS1sb2NhbA",
                "-c",
                &properties,
            ])
            .stdin(Stdio::null())
            .output()
            .map_err(os("format Kafka's storage"))?;
        if !formatted.status.success() {
            let output = String::from_utf8_lossy(&[formatted.stdout, formatted.stderr].concat()).into_owned();
            return Err(FetchError::Client { command: "kafka.tools.StorageTool".into(), output }.into());
        }
        let command = [java, "-Xmx512m", "-cp", &lib, "kafka.Kafka", &properties];
        self.spawn(Part::Kafka, port, command.map(str::to_owned).to_vec(), Vec::new())?;
        self.urls.insert(Part::Kafka, format!("127.0.0.1:{port}"));
        Ok(())
    }

    fn registry(&mut self, java: &str, folder: &Path) -> Result<(), StackError> {
        let (port, management) = (free_port()?, free_port()?);
        let database = self.urls[&Part::Postgres].clone();
        let (user, place) =
            database.trim_start_matches("postgres://").split_once('@').unwrap_or(("milestream", ""));
        // A database of its own: the registry's tables (one is called outbox) must not meet ours.
        let (host, _) = place.split_once('/').unwrap_or((place, ""));
        let (user, password) = user.split_once(':').unwrap_or((user, "unused"));
        let envs = vec![
            ("QUARKUS_HTTP_HOST", "127.0.0.1".to_owned()),
            ("QUARKUS_HTTP_PORT", port.to_string()),
            ("QUARKUS_MANAGEMENT_HOST", "127.0.0.1".to_owned()),
            ("QUARKUS_MANAGEMENT_PORT", management.to_string()),
            ("APICURIO_STORAGE_KIND", "sql".to_owned()),
            ("APICURIO_STORAGE_SQL_KIND", "postgresql".to_owned()),
            ("APICURIO_DATASOURCE_URL", format!("jdbc:postgresql://{host}/registry")),
            ("APICURIO_DATASOURCE_USERNAME", user.to_owned()),
            ("APICURIO_DATASOURCE_PASSWORD", password.to_owned()),
            ("APICURIO_DATASOURCE_JDBC_INITIAL_SIZE", "2".to_owned()),
            ("APICURIO_DATASOURCE_JDBC_MIN_SIZE", "2".to_owned()),
            ("APICURIO_DATASOURCE_JDBC_MAX_SIZE", "10".to_owned()),
        ];
        let jar = folder.join("quarkus-run.jar");
        let command = [java, "-Xmx384m", "-jar", &jar.to_string_lossy()].map(str::to_owned).to_vec();
        self.spawn(Part::Registry, port, command, envs)?;
        self.urls.insert(Part::Registry, format!("http://127.0.0.1:{port}/apis/ccompat/v7"));
        Ok(())
    }
}

/// One broker that is also the controller; replication factors of 1 because there is no second one.
fn kafka_properties(port: u16, controller: u16, log: &Path) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={}\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n\
         offsets.topic.num.partitions=4\ntransaction.state.log.num.partitions=4\nauto.create.topics.enable=false\n",
        log.display()
    )
}

/// Single-user mode, so that no client program is needed.
fn create_databases(postgres: &[String], folder: &Path) -> Result<(), StackError> {
    let mut child = Command::new(&postgres[0])
        .args(&postgres[1..])
        .args(["--single", "-D"])
        .arg(folder)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(os("create the databases"))?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(b"create database milestream\ncreate database registry\n")
            .map_err(os("create the databases"))?;
    }
    child.wait().map_err(os("create the databases"))?;
    Ok(())
}

fn free_port() -> Result<u16, StackError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(os("find a free port"))?;
    Ok(listener.local_addr().map_err(os("find a free port"))?.port())
}

fn answers(part: Part, port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut answer = [0; 64];
    match part {
        // PostgreSQL listens before it takes connections; an SSLRequest is answered by one byte only once it does.
        Part::Postgres => {
            stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).is_ok()
                && matches!(stream.read(&mut answer), Ok(1))
        }
        Part::Registry => {
            let request = b"GET /apis/ccompat/v7/subjects HTTP/1.0\r\nHost: localhost\r\n\r\n";
            stream.write_all(request).is_ok()
                && matches!(stream.read(&mut answer), Ok(n) if answer[..n].windows(4).any(|four| four == b" 200"))
        }
        Part::Kafka | Part::Mongodb => true,
    }
}

fn postgres_bin() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    folders.sort();
    folders.reverse();
    folders.extend(which("initdb").and_then(|file| Some(file.parent()?.to_path_buf())));
    folders.into_iter().find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}

/// PostgreSQL refuses to run as root: then it runs as the user `postgres`, who gets the folder.
fn unprivileged(folder: &Path) -> Result<Vec<String>, StackError> {
    let id = Command::new("id").arg("-u").output().map_err(os("run id"))?;
    if String::from_utf8_lossy(&id.stdout).trim() != "0" {
        return Ok(Vec::new());
    }
    let status = Command::new("chown").arg("postgres").arg(folder).status().map_err(os("chown"))?;
    if !status.success() {
        return Err(FetchError::Missing("the user postgres (Debian package postgresql)").into());
    }
    let setpriv = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--reset-env"];
    Ok(setpriv.map(str::to_owned).to_vec())
}
