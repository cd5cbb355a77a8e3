//! Records per CPU second of a pure stage on the engine, beside a raw rdkafka loop and, in the bench `peers`, Kafka Streams: all
//! with the same topic, schemas, headers and commits, each as a process of its own that is measured from outside. Rounds of the
//! arms alternate, so that whatever the machine does hits all of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use devstack::{Part, Stack, Supervised};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};
use runtime::registry::{Registry, RegistryConfig};
use schemas::codec;
use schemas::events::{Event as _, UploadGraded, UploadReceived};
use uuid::Uuid;

use crate::deployment::{make_folder, sibling_binary};
use crate::measure::{family_cpu_seconds, median, peak_mib};
use crate::relay::{STAGE, Settings, producer, send};
use crate::varied::Varied;

/// Longest time of a round.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at how far a round is: at 200,000 records a second 2,000 records, under 1 % of a round.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Partitions of an output, as the input has in the layout of one machine.
const PARTITIONS: i32 = 4;

/// One of those that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// The stage on the engine.
    Engine,
    /// The loop that a programmer would write by hand.
    Raw,
    /// Kafka Streams, at least once.
    StreamsAtLeastOnce,
    /// Kafka Streams, exactly once.
    StreamsExactlyOnce,
}

impl Arm {
    /// What it is called in the output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Raw => "raw loop",
            Self::StreamsAtLeastOnce => "Kafka Streams, at least once",
            Self::StreamsExactlyOnce => "Kafka Streams, exactly once",
        }
    }

    fn guarantee(self) -> &'static str {
        if self == Self::StreamsExactlyOnce { "exactly_once_v2" } else { "at_least_once" }
    }
}

/// What a comparison wants of the engine: at least this share of the rate of an arm, per CPU second and by the clock.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// Whose rate.
    pub of: Arm,
    /// The share of it.
    pub share: f64,
    /// Whether the engine's peak memory must be no more than the arm's, too.
    pub memory: bool,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Records of a round that are measured.
    pub records: usize,
    /// Records before them, which warm the arm up.
    pub warm_up: usize,
    /// Rounds of each arm; the median counts.
    pub rounds: usize,
}

/// What the raw loop must leave of the engine's lead: 0.85 of its rate.
pub const AGAINST_RAW: Bar = Bar { of: Arm::Raw, share: 0.85, memory: false };

/// What one round of an arm cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Records per CPU second of the process.
    rate: f64,
    /// Its peak memory, MiB.
    peak: f64,
    /// CPU microseconds of Kafka per record; NaN where it is not ours.
    kafka: f64,
    /// Records per second by the clock on the wall.
    wall: f64,
}

/// Runs the arms and prints what they cost; true when the engine reaches every bar. `streams` is the folder of the built Java
/// program, where an arm needs it.
///
/// # Errors
/// When a part does not answer, or a round does not end.
pub fn run(stack: &Stack, arms: &[Arm], bars: &[Bar], size: Size, streams: &Path) -> Result<bool> {
    let bench = Bench::prepare(stack, size, streams)?;
    let mut costs: Vec<Vec<Cost>> = arms.iter().map(|_| Vec::new()).collect();
    for round in 0..size.rounds {
        for (arm, costs) in arms.iter().zip(&mut costs) {
            let cost = bench.round(*arm, round).with_context(|| format!("a round of {}", arm.name()))?;
            println!(
                "round {}, {}: {:.0} records per CPU second, {:.0} per second, Kafka {:.2} us a record, peak {:.0} MiB",
                round + 1,
                arm.name(),
                cost.rate,
                cost.wall,
                cost.kafka,
                cost.peak
            );
            costs.push(cost);
        }
    }
    let middle = |arm: Arm, of: fn(&Cost) -> f64| {
        let costs = arms.iter().position(|one| *one == arm).map_or(&[][..], |at| &costs[at]);
        median(&mut costs.iter().map(of).collect::<Vec<_>>())
    };
    for arm in arms {
        println!(
            "{}: {:.0} records per CPU second, Kafka {:.2} us a record, peak {:.0} MiB (medians)",
            arm.name(),
            middle(*arm, |cost| cost.rate),
            middle(*arm, |cost| cost.kafka),
            middle(*arm, |cost| cost.peak)
        );
    }
    let mut good = true;
    for bar in bars {
        let ratio = middle(Arm::Engine, |cost| cost.rate) / middle(bar.of, |cost| cost.rate);
        println!("engine to {}: {ratio:.2} (wanted: at least {})", bar.of.name(), bar.share);
        good &= ratio >= bar.share;
        // An engine that waits costs no CPU, and yet gets behind.
        let ratio = middle(Arm::Engine, |cost| cost.wall) / middle(bar.of, |cost| cost.wall);
        println!("by the clock: {ratio:.2} (wanted: at least {})", bar.share);
        good &= ratio >= bar.share;
        if bar.memory {
            let ratio = middle(Arm::Engine, |cost| cost.peak) / middle(bar.of, |cost| cost.peak);
            println!("peak memory of the engine to {}: {ratio:.2} (wanted: at most 1)", bar.of.name());
            good &= ratio <= 1.0;
        }
    }
    Ok(good)
}

struct Bench<'a> {
    stack: &'a Stack,
    kafka: ClientConfig,
    client: BaseConsumer,
    prefix: String,
    size: Size,
    input_schema: u32,
    output_schema: u32,
    streams: &'a Path,
    folder: PathBuf,
}

impl<'a> Bench<'a> {
    fn prepare(stack: &'a Stack, size: Size, streams: &'a Path) -> Result<Self> {
        let threads = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let prefix = format!("bench-{}-", Uuid::now_v7().simple());
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", stack.kafka_brokers());
        let registry = Registry::new(&RegistryConfig::open(stack.schema_registry_url()))?;
        let layout = runtime::topics::Layout::local(&prefix);
        let (input_schema, output_schema) = threads.block_on(async {
            runtime::topics::apply(&kafka, &registry, &layout).await?;
            let received = registry.id_of::<UploadReceived>(&prefix).await?;
            Ok::<_, anyhow::Error>((received, registry.id_of::<UploadGraded>(&prefix).await?))
        })?;
        let folder = make_folder(&stack.folder().join("relay"))?;
        let client = kafka.create()?;
        let bench = Self { stack, kafka, client, prefix, size, input_schema, output_schema, streams, folder };
        let bytes = bench.fill()?;
        let Size { records, warm_up, rounds } = size;
        println!(
            "{records} varied records of {bytes} bytes on average a round, behind {warm_up} that warm up; {rounds} rounds \
             of each arm, alternating"
        );
        Ok(bench)
    }

    fn records(&self) -> usize {
        self.size.warm_up + self.size.records
    }

    fn input(&self) -> String {
        format!("{}{}", self.prefix, UploadReceived::TOPIC.name())
    }

    /// Fills the input topic; returns the mean size of a record.
    fn fill(&self) -> Result<usize> {
        let producer = producer(self.stack.kafka_brokers())?;
        let mut varied = Varied::from_example()?;
        let mut size = 0;
        for _ in 0..self.records() {
            let (event, trace) = varied.next_event();
            let payload = codec::encode(self.input_schema, event)?;
            size += payload.len();
            send(&producer, &self.input(), &event.key(), &payload, trace.as_bytes())?;
        }
        producer.flush(PATIENCE).context("fill the input topic")?;
        Ok(size / self.records().max(1))
    }

    fn round(&self, arm: Arm, round: usize) -> Result<Cost> {
        let name = format!("{arm:?}-{round}");
        let (group, output) = match arm {
            Arm::Engine => {
                let group = format!("{}{STAGE}", self.prefix);
                self.rewind(&group)?;
                (group, format!("{}{}", self.prefix, UploadGraded::TOPIC.name()))
            }
            _ => (format!("{}{name}", self.prefix), format!("{}out-{name}", self.prefix)),
        };
        let before = if arm == Arm::Engine { self.end_of(&output)? } else { self.create(&output)? };
        let settings = Settings {
            brokers: self.stack.kafka_brokers().to_owned(),
            registry: self.stack.schema_registry_url().to_owned(),
            prefix: self.prefix.clone(),
            group: group.clone(),
            input: self.input(),
            output: output.clone(),
            output_schema: self.output_schema,
        };
        let mut environment = settings.environment(self.input_schema);
        environment.push(("GUARANTEE", arm.guarantee().to_owned()));
        environment.push(("STATE", self.folder.join("state").display().to_string()));
        let log = self.stack.logs().join(format!("relay-{name}.log"));
        let pidfile = self.folder.join(format!("{name}.pid"));
        let mut process = Supervised::spawn(&self.command(arm)?, &environment, &log, pidfile)?;
        let cost = self.measure(&process, &group, (&output, before));
        process.terminate(Duration::from_secs(10));
        cost.with_context(|| format!("see {}", log.display()))
    }

    fn command(&self, arm: Arm) -> Result<Vec<String>> {
        let relay = || Ok::<_, anyhow::Error>(sibling_binary("relay")?.display().to_string());
        let classes = format!("{0}/peers.jar:{0}/lib/*", self.streams.display());
        Ok(match arm {
            Arm::Engine => vec![relay()?, "engine".into()],
            Arm::Raw => vec![relay()?, "raw".into()],
            // The heap of a small container; the collector is the JVM's own choice. Streams needed less than half of it.
            _ => ["java", "-Xmx512m", "-cp", &classes, "milestream.peers.Relay"].map(str::to_owned).to_vec(),
        })
    }

    /// Measures from the record behind the warm-up to the commit of the last one.
    fn measure(&self, process: &Supervised, group: &str, (output, before): (&str, usize)) -> Result<Cost> {
        let pid = process.pid().context("the process did not start")?;
        let kafka = self.stack.pid(Part::Kafka);
        let cpu = || {
            let of_kafka = kafka.map_or(Ok(f64::NAN), family_cpu_seconds)?;
            Ok::<_, anyhow::Error>((family_cpu_seconds(pid)?, of_kafka, Instant::now()))
        };
        let until = Instant::now() + PATIENCE;
        let wait = |is_there: &mut dyn FnMut() -> Result<bool>| -> Result<()> {
            while !is_there()? {
                ensure!(process.is_alive(), "the process ended");
                ensure!(Instant::now() < until, "the round did not end within {PATIENCE:?}");
                std::thread::park_timeout(LOOK_EVERY);
            }
            Ok(())
        };
        let mut warm = 0;
        wait(&mut || {
            // A topic that was made just now may have no leader yet.
            warm = self.end_of(output).unwrap_or(before) - before;
            Ok(warm >= self.size.warm_up)
        })?;
        let start = cpu()?;
        let client = self.member_of(group)?;
        let places = self.partitions(&client, Offset::Invalid)?;
        wait(&mut || Ok(committed(&client, &places)? >= self.records()))?;
        let end = cpu()?;
        #[allow(clippy::cast_precision_loss, reason = "a count of records")]
        let records = (self.records() - warm) as f64;
        Ok(Cost {
            rate: records / (end.0 - start.0),
            peak: peak_mib(pid).unwrap_or(f64::NAN),
            kafka: (end.1 - start.1) / records * 1e6,
            wall: records / (end.2 - start.2).as_secs_f64(),
        })
    }

    fn member_of(&self, group: &str) -> Result<BaseConsumer> {
        let mut config = self.kafka.clone();
        config.set("group.id", group);
        config.create().context("a client that reads the group's offsets")
    }

    /// Records on a topic. A transaction leaves a marker on each partition: a few hundred of a round's records.
    fn end_of(&self, topic: &str) -> Result<usize> {
        let mut sum = 0;
        for partition in 0..PARTITIONS {
            let (_, high) = self.client.fetch_watermarks(topic, partition, Duration::from_secs(10))?;
            sum += usize::try_from(high)?;
        }
        Ok(sum)
    }

    /// Sets a group back to the beginning, for the next round.
    fn rewind(&self, group: &str) -> Result<()> {
        let client = self.member_of(group)?;
        let list = self.partitions(&client, Offset::Offset(0))?;
        let until = Instant::now() + PATIENCE;
        loop {
            match client.commit(&list, CommitMode::Sync) {
                // A member that was killed is one until its session is over, and only members commit until then.
                Err(error)
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownMemberId)
                        && Instant::now() < until =>
                {
                    std::thread::park_timeout(Duration::from_millis(200));
                }
                result => return result.context("rewind the group"),
            }
        }
    }

    fn partitions(&self, client: &BaseConsumer, offset: Offset) -> Result<TopicPartitionList> {
        let metadata = client.fetch_metadata(Some(&self.input()), Duration::from_secs(10))?;
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            list.add_partition_offset(&self.input(), partition.id(), offset)?;
        }
        Ok(list)
    }

    /// Makes a topic; returns the number of records on it.
    fn create(&self, topic: &str) -> Result<usize> {
        let admin: AdminClient<DefaultClientContext> = self.kafka.create()?;
        let topic = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
        let created = futures::executor::block_on(admin.create_topics([&topic], &options))?;
        for result in created {
            result.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
        }
        Ok(0)
    }
}

/// Records that a group has committed.
fn committed(client: &BaseConsumer, places: &TopicPartitionList) -> Result<usize> {
    let found = client.committed_offsets(places.clone(), Duration::from_secs(10))?;
    let offsets = found.elements().into_iter().map(|place| match place.offset() {
        Offset::Offset(offset) => usize::try_from(offset).unwrap_or(0),
        _ => 0,
    });
    Ok(offsets.sum())
}
