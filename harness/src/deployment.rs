//! One process a role: started with its own port and log, restarted when it dies, killed with its owner.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use devstack::{Stack, Supervised};
use processors::pipeline::{Kind, STAGES};
use runtime::failpoint;
use uuid::Uuid;

/// Longest wait until every role is ready: the reader loads its networks in well under a second, a consumer joins its
/// group in two.
const READY: Duration = Duration::from_secs(60);

/// A role to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSpec {
    /// Unique in the deployment; also the log's name.
    pub name: String,
    /// Arguments of the binary.
    pub arguments: Vec<String>,
    /// The instance in the consumer group.
    pub instance: String,
}

impl RoleSpec {
    /// The gateway.
    #[must_use]
    pub fn ingest() -> Self {
        Self { name: "ingest".into(), arguments: vec!["ingest".into()], instance: "a".into() }
    }

    /// An instance of a stage.
    #[must_use]
    pub fn stage(stage: &str, instance: &str) -> Self {
        let name = format!("{stage}-{instance}");
        Self { name, arguments: vec!["process".into(), stage.into()], instance: instance.into() }
    }

    /// A sink.
    #[must_use]
    pub fn sink(sink: &str) -> Self {
        Self {
            name: format!("{sink}-sink"),
            arguments: vec!["sink".into(), sink.into()],
            instance: "a".into(),
        }
    }

    /// The watcher of the chain.
    #[must_use]
    pub fn watch() -> Self {
        Self { name: "watch".into(), arguments: vec!["watch".into()], instance: "a".into() }
    }

    /// What is due at a time.
    #[must_use]
    pub fn timers() -> Self {
        Self { name: "timers".into(), arguments: vec!["timers".into()], instance: "a".into() }
    }

    /// One process a role, as in production: those up to the granted reward, and those of the payment.
    #[must_use]
    pub fn every_role() -> Vec<Self> {
        let payment = stages(|kind| kind == Kind::Paying).chain([Self::watch()]);
        Self::without_chain().into_iter().chain(payment).collect()
    }

    /// The roles that need no chain.
    #[must_use]
    pub fn without_chain() -> Vec<Self> {
        let sinks = ["postgres", "mongo", "analytics", "notices"].map(Self::sink);
        let stages = stages(|kind| kind != Kind::Paying);
        [Self::ingest(), Self::timers()].into_iter().chain(stages).chain(sinks).collect()
    }
}

/// An instance of each stage of some kinds, in the order in which an upload passes them.
fn stages(of: impl Fn(Kind) -> bool) -> impl Iterator<Item = RoleSpec> {
    STAGES.iter().filter(move |row| of(row.kind)).map(|row| RoleSpec::stage(row.name, "a"))
}

/// What a deployment is made of.
#[derive(Clone, Debug)]
pub struct DeploymentConfig {
    /// The binary.
    pub program: PathBuf,
    /// Folder for photos, keys and process ids.
    pub folder: PathBuf,
    /// Folder for a log a role.
    pub logs: PathBuf,
    /// Further settings, as environment variables of every role.
    pub settings: Vec<(String, String)>,
}

/// Settings for drivers on one address: the gateway's rates are opened, since every driver of a run posts from here. Those that no setting
/// opens, [`Deployment`] opens along with them.
#[must_use]
pub fn open_rates() -> Vec<(String, String)> {
    let keys = [
        "UPLOADS_PER_USER_PER_DAY",
        "UPLOADS_PER_ADDRESS_PER_HOUR",
        "REQUESTS_PER_USER_PER_MINUTE",
        "REQUESTS_PER_ADDRESS_PER_MINUTE",
    ];
    keys.iter().map(|key| (format!("MILESTREAM_INGEST__{key}"), "1000000".to_owned())).collect()
}

/// Settings for a load: photos are not compared, since all of its drivers send the few dashboards that are drawn.
#[must_use]
pub fn of_a_load() -> Vec<(String, String)> {
    [open_rates(), vec![("MILESTREAM_PHOTOS__COMPARE".to_owned(), "false".to_owned())]].concat()
}

struct Role {
    spec: RoleSpec,
    ops: SocketAddr,
    process: Supervised,
    /// Killed on purpose: not restarted by [`Deployment::tend`].
    down: bool,
    /// Failpoints of the next starts, one each.
    armed: VecDeque<String>,
}

/// The operator's commands of a deployment, which several threads may give.
#[derive(Clone)]
pub struct Commands {
    program: PathBuf,
    environment: Vec<(String, String)>,
}

impl Commands {
    /// Runs a command of the binary with the deployment's settings and returns what it prints.
    ///
    /// # Errors
    /// When it fails; its standard error is in the error.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {}", self.program.display()))?;
        if !output.status.success() {
            bail!("milestream {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// A bearer token for a user.
    ///
    /// # Errors
    /// As [`Commands::run`].
    pub fn token(&self, user: Uuid) -> Result<String> {
        self.run(&["token", "--user", &user.to_string()])
    }
}

/// Running roles; dropping it ends them.
pub struct Deployment {
    config: DeploymentConfig,
    environment: Vec<(String, String)>,
    gateway: SocketAddr,
    roles: BTreeMap<String, Role>,
    /// How often a role was started again because it had died by itself.
    pub restarts: u32,
}

impl Deployment {
    /// Applies topics, schemas, migrations and keys on the parts; starts no role yet.
    ///
    /// # Errors
    /// When a command of the binary fails; its output is in the error.
    pub fn prepare(stack: &Stack, config: DeploymentConfig) -> Result<Self> {
        ensure!(
            config.program.is_file(),
            "{} is missing: build it with `cargo build -p milestream`",
            config.program.display()
        );
        let folder = &config.folder;
        for sub in ["photos", "keys"] {
            std::fs::create_dir_all(folder.join(sub)).context("make the deployment's folder")?;
        }
        std::fs::create_dir_all(&config.logs).context("make the folder of the logs")?;
        let gateway = free_address()?;
        let photos = url::Url::from_directory_path(folder.join("photos"))
            .map_err(|()| anyhow::anyhow!("{} is not an absolute path", folder.display()))?;
        let mut environment: Vec<(String, String)> =
            stack.environment().map(|(key, value)| (key.into(), value.into())).collect();
        let keys = folder.join("keys");
        let own = [
            ("PHOTOS__URL", photos.to_string()),
            ("INGEST__LISTEN", gateway.to_string()),
            ("INGEST__PUBLIC_URL", format!("http://{gateway}")),
            ("WATCH__GATEWAY_URL", format!("http://{gateway}")),
            // The drivers of runs and benches have many vehicles, which nobody adds for them.
            ("VEHICLES__MUST_BE_REGISTERED", "false".to_owned()),
            ("KEYS__JWKS_FILE", keys.join("jwks.json").display().to_string()),
            ("KEYS__SIGNING_KEY_FILE", keys.join("signing-key.pem").display().to_string()),
        ];
        environment.extend(own.map(|(key, value)| (format!("MILESTREAM_{key}"), value)));
        environment.extend(config.settings.iter().cloned());
        let deployment = Self { config, environment, gateway, roles: BTreeMap::new(), restarts: 0 };
        for command in [&["migrate"][..], &["topics", "apply"], &["keys", "generate"]] {
            deployment.command(command)?;
        }
        if deployment.config.settings.iter().any(|setting| open_rates().contains(setting)) {
            for limit in ["uploads.per_vehicle", "claims.per_user", "login.per_address", "login.per_wallet"] {
                deployment.command(&["limits", "set", limit, "1000000", "--seconds", "60"])?;
            }
        }
        Ok(deployment)
    }

    /// What its processes have in their environment.
    #[must_use]
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Runs a command of the binary with the deployment's settings and returns what it prints.
    ///
    /// # Errors
    /// When it fails; its standard error is in the error.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        self.commands().run(arguments)
    }

    /// Its commands, to be given from elsewhere.
    #[must_use]
    pub fn commands(&self) -> Commands {
        Commands { program: self.config.program.clone(), environment: self.environment.clone() }
    }

    /// A bearer token for a user.
    ///
    /// # Errors
    /// As [`Deployment::command`].
    pub fn token(&self, user: Uuid) -> Result<String> {
        self.commands().token(user)
    }

    /// Starts a role.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&mut self, spec: RoleSpec) -> Result<()> {
        let ops = free_address()?;
        let process = self.spawn(&spec, ops, None)?;
        let armed = VecDeque::new();
        self.roles.insert(spec.name.clone(), Role { spec, ops, process, down: false, armed });
        Ok(())
    }

    /// Arms failpoints of a role, as [`failpoint::VARIABLE`] has them: the first at its next start, the second at the one after.
    ///
    /// # Errors
    /// When there is no such role.
    pub fn arm(&mut self, role: &str, failpoints: impl IntoIterator<Item = String>) -> Result<()> {
        let role = self.roles.get_mut(role).with_context(|| format!("no role {role}"))?;
        role.armed = failpoints.into_iter().collect();
        Ok(())
    }

    fn spawn(&self, spec: &RoleSpec, ops: SocketAddr, failpoint: Option<String>) -> Result<Supervised> {
        let mut command = vec![self.config.program.display().to_string()];
        command.extend(spec.arguments.iter().cloned());
        let ops = ops.to_string();
        let mut environment: Vec<(&str, String)> =
            self.environment.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        environment.push(("MILESTREAM_OPS__LISTEN", ops));
        environment.push(("MILESTREAM_ENGINE__INSTANCE", spec.instance.clone()));
        environment.extend(failpoint.map(|failpoint| (failpoint::VARIABLE, failpoint)));
        let pidfile = self.config.folder.join(format!("{}.pid", spec.name));
        Supervised::spawn(&command, &environment, &self.log_file(&spec.name), pidfile)
            .with_context(|| format!("start {}", spec.name))
    }

    /// A role's log.
    #[must_use]
    pub fn log_file(&self, role: &str) -> PathBuf {
        self.config.logs.join(format!("{role}.log"))
    }

    /// Waits until every running role is ready, restarting those that die meanwhile.
    ///
    /// # Errors
    /// With the end of the log of a role that is not ready in time.
    pub fn wait_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY;
        loop {
            self.tend()?;
            let waiting = self.roles.values().find(|role| !role.down && !is_ready(role.ops));
            let Some(role) = waiting else { return Ok(()) };
            if Instant::now() > until {
                let name = role.spec.name.clone();
                bail!("{name} was not ready within {READY:?}; its log ends with:\n{}", self.log_tail(&name));
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// The last lines of a role's log.
    #[must_use]
    pub fn log_tail(&self, role: &str) -> String {
        let log = std::fs::read_to_string(self.log_file(role)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Starts roles again that have died by themselves, as an orchestrator does.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn tend(&mut self) -> Result<()> {
        let dead: Vec<String> = self
            .roles
            .values()
            .filter(|role| !role.down && !role.process.is_alive())
            .map(|role| role.spec.name.clone())
            .collect();
        for name in dead {
            self.restarts += 1;
            self.start_again(&name)?;
        }
        Ok(())
    }

    /// SIGKILL to a role; it stays down until [`Deployment::start_again`].
    pub fn kill(&mut self, role: &str) {
        if let Some(role) = self.roles.get_mut(role) {
            role.down = true;
            role.process.kill();
        }
    }

    /// SIGTERM to a role, which stays down until [`Deployment::start_again`].
    ///
    /// # Errors
    /// When there is no such role.
    pub fn terminate(&mut self, role: &str, grace: Duration) -> Result<()> {
        let role = self.roles.get_mut(role).with_context(|| format!("no role {role}"))?;
        role.down = true;
        role.process.terminate(grace);
        Ok(())
    }

    /// Sends a signal by name to a role.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn signal(&self, role: &str, signal: &str) -> Result<()> {
        let role = self.roles.get(role).with_context(|| format!("no role {role}"))?;
        role.process.signal(signal).context("signal a role")
    }

    /// Starts a role again with its old name, port and instance.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_again(&mut self, name: &str) -> Result<()> {
        let role = self.roles.get_mut(name).with_context(|| format!("no role {name}"))?;
        let (spec, ops, failpoint) = (role.spec.clone(), role.ops, role.armed.pop_front());
        let process = self.spawn(&spec, ops, failpoint)?;
        if let Some(role) = self.roles.get_mut(name) {
            role.process = process;
            role.down = false;
        }
        Ok(())
    }

    /// The gateway's base URL.
    #[must_use]
    pub fn gateway_url(&self) -> String {
        format!("http://{}", self.gateway)
    }

    /// Name, operations address and process id of every running role.
    #[must_use]
    pub fn roles(&self) -> Vec<(String, SocketAddr, Option<u32>)> {
        let running = self.roles.values().filter(|role| !role.down);
        running.map(|role| (role.spec.name.clone(), role.ops, role.process.pid())).collect()
    }

    /// A role's `/metrics` text.
    ///
    /// # Errors
    /// When it does not respond.
    pub fn metrics(&self, role: &str) -> Result<String> {
        let role = self.roles.get(role).with_context(|| format!("no role {role}"))?;
        get(role.ops, "/metrics").with_context(|| format!("metrics of {}", role.spec.name))
    }

    /// Asks every role to stop, gateway first, and waits for their drain.
    pub fn stop(mut self) {
        let order = ["ingest"].into_iter().map(str::to_owned).chain(self.roles.keys().cloned());
        for name in order.collect::<Vec<_>>() {
            if let Some(role) = self.roles.get_mut(&name).filter(|role| !role.down) {
                role.down = true;
                role.process.terminate(Duration::from_secs(10));
            }
        }
    }
}

/// The binary beside the running program: `target/…/milestream`, from a binary or from a test in `deps/`.
///
/// # Errors
/// When the running program has no path.
pub fn sibling_binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the running program")?;
    let folder = own.parent().context("find the running program's folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.join(name))
}

/// An address on this machine that nobody listens on at the moment.
///
/// # Errors
/// When there is no port.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, devstack::free_port().context("find a free port")?).into())
}

fn is_ready(address: SocketAddr) -> bool {
    request(address, "/readyz").is_ok_and(|response| response.starts_with("HTTP/1.1 200"))
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let response = request(address, path)?;
    let (_, body) = response.split_once("\r\n\r\n").context("an HTTP response")?;
    Ok(body.to_owned())
}

/// A plain request on loopback: roles are asked from blocking code, several times per second.
fn request(address: SocketAddr, path: &str) -> Result<String> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

/// An absolute, existing folder.
///
/// # Errors
/// When it cannot be made.
pub fn make_folder(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    path.canonicalize().with_context(|| format!("find {}", path.display()))
}
