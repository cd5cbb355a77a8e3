//! `milestream records` and `milestream offsets`, run as an operator runs them, on real roles that halt at a record whose type
//! this release does not know.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod own;

use std::time::{Duration, Instant};

use devstack::Stack;
use harness::deployment::{Deployment, RoleSpec};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::producer::Message;
use runtime::registry::{Registry, RegistryConfig, subject};
use runtime::stored::pack;
use schemas::events::registry_subjects;
use schemas::topic::Topic;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::runtime::Runtime;
use uuid::Uuid;

use own::Own;

/// Longest wait for anything: a role starts in two seconds, and looks for a skip every five.
const TIMEOUT: Duration = Duration::from_secs(90);
/// A record type of a later release, with a sealed field.
const LATER: &str = r#"{"type": "record", "name": "Guessed", "namespace": "milestream", "fields": [
    {"name": "user_id", "type": "string"}, {"name": "note", "type": ["null", "string"], "doc": "sealed"}]}"#;

/// Topics, a database and roles of a test's own.
struct World {
    runtime: Runtime,
    stack: Stack,
    deployment: Deployment,
    prefix: String,
    pool: PgPool,
}

impl World {
    fn new(name: &str) -> Self {
        let Own { runtime, stack, deployment, prefix, pool } = Own::prepare(name);
        Self { runtime, stack, deployment, prefix, pool }
    }

    fn run(&self, command: &[&str]) -> String {
        self.deployment.command(command).unwrap()
    }

    fn refused(&self, command: &[&str]) -> String {
        self.deployment.command(command).unwrap_err().to_string()
    }

    fn kafka(&self) -> ClientConfig {
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", self.stack.kafka_brokers());
        kafka
    }

    /// Writes a record of this type; returns its offset.
    fn write(&self, topic: Topic, name: &str, schema: &str, datum: &[u8]) -> i64 {
        let registry = Registry::new(&RegistryConfig::open(self.stack.schema_registry_url())).unwrap();
        let subject = subject(&self.prefix, topic, name);
        let id = self.runtime.block_on(registry.register(&subject, schema)).unwrap();
        let payload = [&[0][..], &id.to_be_bytes(), datum].concat();
        let name = format!("{}{}", self.prefix, topic.name());
        let record = FutureRecord::to(&name).partition(0).key("driver").payload(&payload);
        self.runtime
            .block_on(async {
                let producer: FutureProducer = self.kafka().create().unwrap();
                producer.send(record, TIMEOUT).await
            })
            .unwrap()
            .offset
    }

    /// Writes this many records, and has the stage's decisions of them stored as of a day, each with one record to publish.
    fn decided(&self, count: i64, days_ago: i32) {
        let topic = format!("{}{}", self.prefix, Topic::UploadsReadings.name());
        let out = format!("{}{}", self.prefix, Topic::UploadsDecided.name());
        let mut output = Vec::new();
        pack(
            &mut output,
            &Message { topic: &out, key: Some(b"driver"), payload: Some(b"decided"), headers: &[] },
        );
        let producer: FutureProducer = self.kafka().create().unwrap();
        let decisions = "
            insert into decisions (stage, input_event_id, topic, partition, record_offset, rules_version, outcome, evidence,
                output, occurred_at)
            select 'fraud_check', gen_random_uuid(), $1, 0, n, 'rules', 'emit', '{}', $2, now() - make_interval(days => $3)
            from generate_series(0, $4 - 1) n";
        let offsets = "
            insert into stage_offsets (stage, topic, partition, epoch, decided_upto, owner, updated_at)
            values ('fraud_check', $1, 0, 1, $2, 'a', now())";
        self.runtime.block_on(async {
            let sent: Vec<_> = (0..count)
                .map(|_| FutureRecord::to(&topic).partition(0).key("driver").payload("read"))
                .map(|record| producer.send_result(record).unwrap())
                .collect();
            for acknowledged in sent {
                acknowledged.await.unwrap().unwrap();
            }
            let stored = sqlx::query(decisions).bind(&topic).bind(&output).bind(days_ago).bind(count);
            stored.execute(&self.pool).await.unwrap();
            sqlx::query(offsets).bind(&topic).bind(count).execute(&self.pool).await.unwrap();
            self.set_offset("fraud_check", topic, count).await;
        });
    }

    async fn set_offset(&self, stage: &str, topic: String, offset: i64) {
        let group = format!("{}{stage}", self.prefix);
        runtime::offsets::set(&self.kafka(), &group, vec![(topic, 0, offset)]).await.unwrap();
    }

    /// Records on a topic's partitions.
    fn records(&self, topic: Topic) -> i64 {
        let (client, name) =
            (self.kafka().create::<BaseConsumer>().unwrap(), format!("{}{}", self.prefix, topic.name()));
        let metadata = client.fetch_metadata(Some(&name), TIMEOUT).unwrap();
        let partitions = metadata.topics()[0].partitions();
        partitions.iter().map(|one| client.fetch_watermarks(&name, one.id(), TIMEOUT).unwrap().1).sum()
    }

    /// The group has forgotten where it was.
    fn forget(&self, stage: &str) {
        let group = format!("{}{stage}", self.prefix);
        self.runtime.block_on(async {
            let admin: AdminClient<DefaultClientContext> = self.kafka().create().unwrap();
            admin.delete_groups(&[&group], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        });
    }

    fn later(&self, topic: Topic) -> i64 {
        self.write(topic, "milestream.Guessed", LATER, &[2, b'u', 2, 6, b'x', b'y', b'z'])
    }

    fn one(&self, sql: &'static str) -> Value {
        self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(&self.pool)).unwrap()
    }

    fn execute(&self, sql: &'static str) {
        self.runtime.block_on(sqlx::query(sql).execute(&self.pool)).unwrap();
    }

    fn until(&mut self, what: &str, look: impl Fn(&Self) -> bool) {
        let until = Instant::now() + TIMEOUT;
        while !look(self) {
            assert!(Instant::now() < until, "waited {TIMEOUT:?} for {what}");
            std::thread::park_timeout(Duration::from_millis(200));
        }
    }

    fn is_halted(&self, role: &str, stage: &str, topic: Topic) -> bool {
        let line = format!(
            "milestream_partition_halted{{partition=\"0\",stage=\"{stage}\",topic=\"{}{}\"}} 1",
            self.prefix,
            topic.name()
        );
        self.deployment.metrics(role).is_ok_and(|metrics| metrics.contains(&line))
    }

    /// What `offsets show` says of partition 0.
    fn place(&self, stage: &str, topic: Topic) -> String {
        let start = format!("{stage} {}{}/0 ", self.prefix, topic.name());
        let shown = self.run(&["offsets", "show", stage]);
        shown.lines().find_map(|line| line.strip_prefix(&start)).unwrap().to_owned()
    }

    /// Ends a stage and waits until its group has no member: that of an instance with a name leaves with its session's end.
    fn stop(&mut self, stage: &str) {
        self.deployment.terminate(&format!("{stage}-a"), Duration::from_secs(20)).unwrap();
        let (client, group) =
            (self.kafka().create::<BaseConsumer>().unwrap(), format!("{}{stage}", self.prefix));
        self.until("the end of the session", |_| {
            let groups = client.fetch_group_list(Some(&group), TIMEOUT).unwrap();
            groups.groups().iter().all(|group| group.state() == "Empty")
        });
    }

    fn finish(self) {
        self.deployment.stop();
        self.stack.stop();
    }
}

/// A record type that this release writes to a topic: its name and schema.
fn known(topic: Topic) -> (&'static str, &'static str) {
    let (_, name, schema) = registry_subjects().into_iter().find(|(on, ..)| *on == topic).unwrap();
    (name, schema)
}

fn skip<'a>(stage: &'a str, topic: &'a str, offset: &'a str) -> [&'a str; 8] {
    ["records", "skip", stage, topic, "0", offset, "--reason", "the release that knows it comes next week"]
}

#[test]
fn a_record_of_an_unknown_type_halts_every_kind_of_role_until_an_operator_sets_it_aside_as_a_dead_letter() {
    let mut world = World::new("skipped");
    let cases = [
        ("quality_check", Topic::UploadsReceived, "quality_check-a"),
        ("fraud_check", Topic::UploadsReadings, "fraud_check-a"),
        ("postgres", Topic::UploadsReceived, "postgres-sink"),
    ];
    for topic in [Topic::UploadsReceived, Topic::UploadsReadings] {
        assert_eq!(world.later(topic), 0);
    }
    for role in [
        RoleSpec::stage("quality_check", "a"),
        RoleSpec::stage("fraud_check", "a"),
        RoleSpec::sink("postgres"),
    ] {
        world.deployment.start(role).unwrap();
    }
    world.deployment.wait_ready().unwrap();

    let shown: Value =
        serde_json::from_str(&world.run(&["records", "show", "uploads.readings", "0", "0"])).unwrap();
    assert_eq!(shown["record"], "milestream.Guessed");
    assert_eq!(shown["fields"], json!({"user_id": "u", "note": "[sealed]"}));
    assert_eq!((&shown["key"], &shown["offset"]), (&json!("driver"), &json!(0)));

    for (stage, topic, role) in cases {
        world.until("the halt", |world| world.is_halted(role, stage, topic));
        let log = std::fs::read_to_string(world.deployment.log_file(role)).unwrap();
        let command =
            format!("milestream records skip {stage} {}{} 0 0 --reason", world.prefix, topic.name());
        assert!(log.contains(&command), "{log}");
        // The name as the message has it, with the environment's prefix.
        world.run(&skip(stage, &format!("{}{}", world.prefix, topic.name()), "0"));
        world.until("the record's end", |world| world.place(stage, topic).starts_with("next 1 end 1 lag 0"));
        world.until("the halt's end", |world| !world.is_halted(role, stage, topic));
        let listed = world.run(&["dead-letters", "list", "--stage", stage]);
        assert!(listed.contains("operator_skip") && listed.contains("comes next week"), "{listed}");
        let again = world.refused(&skip(stage, topic.name(), "0"));
        assert!(again.contains("its next record is 1"), "{again}");
    }
    let stored = world.one("select to_jsonb(d) from decisions d where stage = 'fraud_check'");
    assert_eq!((&stored["outcome"], &stored["reason"]), (&json!("dead_letter"), &json!("operator_skip")));
    assert!(world.place("fraud_check", Topic::UploadsReadings).ends_with("decided_upto 1"));
    let audited = world.one(
        "select jsonb_agg(jsonb_build_array(action_details->'before'->>'record', action_details->'after'->>'reason'))
         from system_audit_logs where module = 'pipeline' and action = 'record.skip'",
    );
    let one = json!(["milestream.Guessed", "the release that knows it comes next week"]);
    assert_eq!(audited, json!([one, one, one]));
    world.finish();
}

#[test]
fn a_record_is_refused_for_skipping_where_it_is_known_absent_or_of_another_topic() {
    let world = World::new("refused");
    let (name, schema) = known(Topic::ActivityLogs);
    let event = schemas::events::ActivityLogged {
        event_id: schemas::ids::EventId(Uuid::now_v7()),
        collection: "error_logs".into(),
        ordinal: 0,
        occurred_at: schemas::ids::Micros(1),
        document: "{}".into(),
    };
    let framed = schemas::codec::encode(0, &event).unwrap();
    world.write(Topic::ActivityLogs, name, schema, &framed[schemas::codec::HEADER_BYTES..]);
    let known = world.refused(&skip("mongo", "activity.logs", "0"));
    assert!(
        known.contains("milestream.ActivityLogged is known to this release: skipped, it would be lost"),
        "{known}"
    );
    let absent = world.refused(&skip("mongo", "activity.logs", "1"));
    assert!(absent.contains("holds the offsets 0 to 0, not 1"), "{absent}");
    let other = world.refused(&skip("fraud_check", "uploads.graded", "0"));
    assert!(other.contains("fraud_check does not read uploads.graded: it reads uploads.readings"), "{other}");
    assert_eq!(world.one("select to_jsonb(count(*)) from skipped_records"), 0);
    world.finish();
}

#[test]
fn offsets_go_back_for_a_stopped_role_and_nowhere_else_and_are_aligned_with_what_a_stage_has_decided() {
    let mut world = World::new("offsets");
    let reset = |stage| ["offsets", "reset", stage, "--reason", "a bug is mended"];
    for topic in [Topic::UploadsReceived, Topic::UploadsReadings] {
        let (name, schema) = known(topic);
        world.write(topic, name, schema, &[]);
    }
    for stage in ["quality_check", "fraud_check"] {
        world.deployment.start(RoleSpec::stage(stage, "a")).unwrap();
    }
    world.deployment.wait_ready().unwrap();
    // A datum that does not decode is a dead letter of its own.
    world.until("both records' end", |world| {
        world.place("quality_check", Topic::UploadsReceived).starts_with("next 1")
            && world.place("fraud_check", Topic::UploadsReadings).starts_with("next 1")
    });
    let running = world.refused(&reset("quality_check"));
    assert!(running.contains("Stop every instance of the stage"), "{running}");
    let deciding = world.refused(&reset("fraud_check"));
    assert!(deciding.contains("`milestream offsets align fraud_check`"), "{deciding}");
    world.stop("quality_check");
    world.stop("fraud_check");

    let forward =
        [&reset("quality_check")[..], &["--topic", "uploads.received", "--partition", "0", "--to", "7"]]
            .concat();
    let forward = world.refused(&forward);
    assert!(forward.contains("7 lies ahead of the next record, 1: 6 records would be lost"), "{forward}");
    world.run(&reset("quality_check"));
    assert_eq!(world.place("quality_check", Topic::UploadsReceived), "next 0 end 1 lag 1");
    let audited = world.one(
        "select action_details from system_audit_logs where module = 'pipeline' and action = 'offsets.reset'",
    );
    assert_eq!(audited["before"]["offsets"][0]["offset"], 1);
    assert_eq!(
        (&audited["after"]["offsets"][0]["offset"], &audited["after"]["reason"]),
        (&json!(0), &json!("a bug is mended"))
    );

    assert!(world.run(&["offsets", "align", "fraud_check"]).contains("is aligned"));
    assert!(world.refused(&["offsets", "align", "quality_check"]).contains("stores no decisions"));
    // The group has forgotten: what may not have been published is published again.
    world.forget("fraud_check");
    assert!(world.place("fraud_check", Topic::UploadsReadings).starts_with("next - end 1 lag 1"));
    world.run(&["offsets", "align", "fraud_check"]);
    assert!(world.place("fraud_check", Topic::UploadsReadings).starts_with("next 0 end 1"));
    world.deployment.start_again("fraud_check-a").unwrap();
    world.until("what is published again", |world| {
        world.place("fraud_check", Topic::UploadsReadings).starts_with("next 1")
    });
    world.stop("fraud_check");
    // The database is older than the group.
    world.execute("delete from decisions");
    world.execute("update stage_offsets set decided_upto = 0");
    world.run(&["offsets", "align", "fraud_check"]);
    assert!(
        world.place("fraud_check", Topic::UploadsReadings).starts_with("next 0 end 1 lag 1 decided_upto 0")
    );
    world.finish();
}

#[test]
fn what_was_pruned_is_audited_and_a_group_is_aligned_with_what_is_left_which_is_then_published_again() {
    let mut world = World::new("pruned");
    world.decided(300, 31);
    let zero = world.refused(&["prune", "--outputs-days", "0"]);
    assert!(zero.contains("0 days would take away what is needed now"), "{zero}");
    let dry = world.run(&["prune", "--dry-run"]);
    assert!(dry.lines().any(|line| line == "decisions.output: 100"), "{dry}");
    let filled = "select to_jsonb(count(*)) from decisions where output <> ''";
    let audited =
        "select coalesce(jsonb_agg(jsonb_build_array(action, action_details->'after') order by timestamp), '[]')
        from system_audit_logs where module = 'pipeline' and action like 'prune%'";
    assert_eq!((world.one(filled), world.one(audited)), (json!(300), json!([])));
    for (arguments, emptied) in [(&["--outputs-days", "32"][..], 0), (&[][..], 100), (&[][..], 0)] {
        let pruned = world.run(&[&["prune"], arguments].concat());
        assert!(pruned.lines().any(|line| line == format!("decisions.output: {emptied}")), "{pruned}");
    }
    assert_eq!(world.one(filled), json!(200));
    let audited = world.one(audited);
    let steps: Vec<_> = audited.as_array().unwrap().iter().map(|step| step[0].as_str().unwrap()).collect();
    assert_eq!(steps, ["prune", "prune.done"].repeat(3));
    assert_eq!(
        (&audited[0][1]["days"]["decisions.output"], &audited[3][1]["rows"]["decisions.output"]),
        (&json!(32), &json!(100))
    );

    // Behind what is left: the stage would have to publish what is gone.
    let topic = format!("{}{}", world.prefix, Topic::UploadsReadings.name());
    world.runtime.block_on(world.set_offset("fraud_check", topic, 40));
    world.run(&["offsets", "align", "fraud_check"]);
    assert!(world.place("fraud_check", Topic::UploadsReadings).starts_with("next 100 end 300"));
    // The same where the group has forgotten.
    world.forget("fraud_check");
    world.run(&["offsets", "align", "fraud_check"]);
    assert!(world.place("fraud_check", Topic::UploadsReadings).starts_with("next 100 end 300"));
    assert!(world.run(&["offsets", "align", "fraud_check"]).contains("is aligned"));
    world.deployment.start(RoleSpec::stage("fraud_check", "a")).unwrap();
    world.until("what is published again", |world| {
        world.place("fraud_check", Topic::UploadsReadings).starts_with("next 300")
    });
    assert_eq!(world.records(Topic::UploadsDecided), 200);
    world.finish();
}
