//! A rolling upgrade N-1 → N → N-1 with traffic. Today's roles are N-1, as processes of their own. N is written by the test:
//! everything that stands on the topics is published again as the next release writes it (fields of every type in every record,
//! new symbols of every enum that has a default), and one stage is N's alone for a while. Which schemas N may write is the
//! registry's decision: it registers them under the rule of the topic.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::topics::lag;
use runtime::snapshot;
use runtime::source::RawRecord;
use schemas::codec::{self, HEADER_BYTES};
use schemas::events::{
    EachEvent, Event, Fault, OdometerRead, PayoutUpdated, RewardGranted, Root, UploadDecided, UploadGraded,
    UploadReceived, Verdict, each_event,
};
use schemas::ids::UploadId;
use schemas::reason::Reason;
use schemas::testing::as_next_release;
use schemas::topic::Topic;
use uuid::Uuid;

use crate::READERS;
use crate::world::World;

/// What the paying stage consumes.
const PAYING: [(&str, Topic); 3] = [
    ("chain_submission", Topic::RewardsGranted),
    ("chain_submission", Topic::UploadsDecided),
    ("chain_submission", Topic::ChainEvents),
];

/// Uploads of each phase.
const UPLOADS: usize = 3;

/// The stage that N runs alone for a while.
const STAGE: &str = "quality_check";

/// An event as N writes it, framed.
fn by_next<E: Event>(world: &World, event: &E) -> Vec<u8> {
    let today = codec::encode(0, event).unwrap();
    let (schema, datum) = as_next_release::<E>(&today[HEADER_BYTES..]);
    let id = world.register::<E>(&schema);
    [&[0][..], &id.to_be_bytes(), &datum].concat()
}

/// Publishes again, as N, whatever stands on the topics.
struct Again<'w> {
    world: &'w World,
    published: BTreeMap<&'static str, usize>,
}

impl EachEvent for Again<'_> {
    fn event<E: Event>(&mut self) {
        let topic = self.world.topic(E::TOPIC);
        let today = self.world.register::<E>(E::schema_text());
        for record in snapshot::read(&self.world.kafka, &topic).unwrap() {
            let RawRecord { position, key, payload, .. } = record;
            let payload = payload.unwrap();
            let (id, datum) = codec::unframe(&payload).unwrap();
            if id == today {
                let event: E = codec::decode(E::schema(), id, datum).unwrap();
                let again = by_next(self.world, &event);
                self.world.produce(E::TOPIC, position.partition, &key.unwrap_or_default(), &again, &[]);
                *self.published.entry(E::NAME).or_default() += 1;
            }
        }
    }
}

/// N's own `quality_check`: the photo is good, or bad for a reason that N-1 does not know.
fn grade(world: &World, received: &RawRecord, unknown_reason: bool) {
    let (_, datum) = codec::unframe(received.payload.as_deref().unwrap()).unwrap();
    let event: UploadReceived = codec::decode(UploadReceived::schema(), 0, datum).unwrap();
    let example = include_str!("../../../schemas/examples/uploads.graded/normal-readable.json");
    let mut example: serde_json::Value = serde_json::from_str(example).unwrap();
    let example: UploadGraded = serde_json::from_value(example["event"].take()).unwrap();
    let root = Root { partition: received.position.partition, offset: received.position.offset };
    // N-1 reads N's new reason as processing_failed: the default.
    let fault = Fault { reason: Reason::ProcessingFailed, detail: "told by the next release".into() };
    let graded = UploadGraded {
        header: event.header.next(STAGE, "next", event.header.occurred_at, root),
        stamp: event.stamp,
        fault: unknown_reason.then_some(fault),
        ..example
    };
    let bytes = by_next(world, &graded);
    world.produce(Topic::UploadsGraded, root.partition, graded.key().as_bytes(), &bytes, &[]);
}

fn post_and_decide(world: &mut World) -> Vec<Uuid> {
    let posted: Vec<Uuid> = (0..UPLOADS).map(|_| world.post_sample()).collect();
    until_decided(world, &posted);
    posted
}

fn until_decided(world: &mut World, uploads: &[Uuid]) {
    world.until("every verdict", |world| {
        uploads.iter().all(|id| world.view(*id).is_some_and(|view| view.verdict.is_some())).then_some(())
    });
}

fn until_paid(world: &mut World, rewards: usize) {
    world.until("every payment in the tables", |world| {
        let paid = world.paid().len() == rewards;
        (paid && world.payment_differences().is_empty()).then_some(())
    });
}

fn until_no_lag(world: &mut World) {
    world.until("no lag", |world| {
        let none = |(role, topic): (&str, Topic)| {
            lag(&world.kafka, &world.group(role), &world.topic(topic)).is_ok_and(|lag| lag == 0)
        };
        READERS.into_iter().chain(PAYING).all(none).then_some(())
    });
}

#[test]
fn a_rolling_upgrade_to_the_next_release_and_back_loses_and_dead_letters_nothing() {
    let mut world = World::start_paying("rolling");
    let mut uploads = post_and_decide(&mut world);
    let series = world.post_series();
    until_decided(&mut world, &series);
    uploads.extend(&series);
    until_paid(&mut world, series.len() - 1);
    until_no_lag(&mut world);

    // N beside N-1.
    let mut again = Again { world: &world, published: BTreeMap::new() };
    each_event(&mut again);
    let repeated = again.published;
    until_no_lag(&mut world);

    // N's stage in the place of N-1's, among N-1's other roles.
    world.deployment.terminate("quality_check-a", Duration::from_secs(10)).unwrap();
    let before = snapshot::read(&world.kafka, &world.topic(Topic::UploadsReceived)).unwrap().len();
    let posted: Vec<Uuid> = (0..=UPLOADS).map(|_| world.post_sample()).collect();
    let received = world.until("the uploads on their topic", |world| {
        let all = snapshot::read(&world.kafka, &world.topic(Topic::UploadsReceived)).ok()?;
        (all.len() == before + posted.len()).then_some(all)
    });
    let of = |record: &RawRecord| -> UploadId {
        let (id, datum) = codec::unframe(record.payload.as_deref().unwrap()).unwrap();
        let today: Result<UploadReceived, _> = codec::decode(UploadReceived::schema(), id, datum);
        today.map_or(UploadId(Uuid::nil()), |event| event.header.upload_id)
    };
    let by_next_alone = received.iter().filter(|record| posted.contains(&of(record).0));
    for record in by_next_alone {
        grade(&world, record, of(record).0 == posted[0]);
    }
    until_decided(&mut world, &posted);
    let view = world.view(posted[0]).unwrap();
    assert_eq!(
        (view.verdict.as_deref(), view.reason.as_deref()),
        (Some("failed"), Some("processing_failed"))
    );

    // Back to N-1, which grades N's uploads again: the same events, known to all.
    world.deployment.start_again("quality_check-a").unwrap();
    uploads.extend(post_and_decide(&mut world));
    uploads.extend(&posted[1..]);
    until_no_lag(&mut world);
    check(&world, &uploads, &repeated);
    check_rewards(&world, &series[1..], &repeated);
    check_payments(&world, &series[1..], &repeated);
    world.finish();
}

/// Each distance is granted once, in whichever release's words it was told again: the gateway shows the same.
fn check_rewards(world: &World, earned: &[Uuid], repeated: &BTreeMap<&str, usize>) {
    let mut granted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in world.records::<RewardGranted>() {
        granted.entry(event.reward_id.0).or_default().push(event.granted);
    }
    println!("rewards granted, with each record of them: {granted:?}");
    assert_eq!(granted.len(), earned.len());
    for amounts in granted.values() {
        assert!(amounts.len() > 1 && amounts.iter().all(|amount| *amount == amounts[0]), "{amounts:?}");
    }
    for id in earned {
        let view = world.view(*id).unwrap();
        assert!(view.earns() && view.reward.is_some(), "{view:?}");
    }
    for name in ["milestream.RewardCalculated", "milestream.RewardGranted"] {
        // More than one of each: what N publishes again, N-1 works on again.
        assert!(repeated.get(name).is_some_and(|count| *count >= earned.len()), "{repeated:?}");
    }
}

/// Each reward is paid once by the node's own logs, though N published its grant, its payouts and the chain's events again.
fn check_payments(world: &World, earned: &[Uuid], repeated: &BTreeMap<&str, usize>) {
    let paid = world.paid();
    println!("paid by the node's logs: {paid:?}");
    assert_eq!(paid.len(), earned.len());
    assert_eq!(world.payment_differences(), Vec::<String>::new());
    let payouts = world.records::<PayoutUpdated>();
    assert!(paid.iter().all(|one| payouts.iter().any(|payout| payout.reward_id.0 == one.reward_id)));
    for name in ["milestream.PayoutUpdated", "milestream.BlockAdopted"] {
        assert!(repeated.get(name).is_some_and(|count| *count >= earned.len()), "{name}: {repeated:?}");
    }
}

/// Each upload decided once, by what its photo shows; nothing dead-lettered; what was read is what each release wrote.
fn check(world: &World, uploads: &[Uuid], repeated: &BTreeMap<&str, usize>) {
    for id in uploads {
        let view = world.view(*id).unwrap();
        assert!(["verified", "rejected", "review"].contains(&view.verdict.as_deref().unwrap()), "{view:?}");
    }
    let letters = snapshot::read(&world.kafka, &world.topic(Topic::DeadLetters)).unwrap();
    assert!(letters.is_empty(), "{} dead letters, the first: {:?}", letters.len(), letters[0].headers);
    let decided = world.records::<UploadDecided>();
    let ids: std::collections::BTreeSet<_> = decided
        .iter()
        .filter(|event| event.verdict != Verdict::Review)
        .map(|event| event.header.event_id)
        .collect();
    assert_eq!(ids.len(), uploads.len() + 1, "a final decision per upload");
    let graded = world.records::<UploadGraded>();
    let alone = graded.iter().filter(|event| event.header.stage_version == "next").count();
    println!(
        "{} uploads, {} decided, 0 dead letters; N wrote {} records again ({}), and {alone} of a stage alone; {} readings read",
        uploads.len() + 1,
        ids.len(),
        repeated.values().sum::<usize>(),
        repeated.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", "),
        world.records::<OdometerRead>().len(),
    );
    assert_eq!(alone, UPLOADS + 1);
    assert!(repeated.len() >= 9, "{repeated:?}");
}
