//! A person leaves: what they said and were known by is planted in every store, and none holds it afterwards, nor after a rebuild.

use harness::deployment::RoleSpec;
use runtime::snapshot;
use schemas::events::{Event as _, RewardCancelled, UserErased};
use schemas::ids::{RewardId, UploadId};
use schemas::topic::Topic;
use serde_json::json;
use uuid::Uuid;

use crate::search::{self, Mark};
use crate::world::World;

/// Plants marks in the account of the world's driver; the upload that has them, decided.
fn plant(world: &mut World, marks: &[Mark]) -> Uuid {
    let mark = |name: &str| marks.iter().find(|(of, _)| *of == name).unwrap().1.clone();
    let profile = json!({
        "username": mark("name"), "email": mark("email"), "profile_image": format!("https://images.example/{}", mark("image")),
    });
    assert_eq!(world.http("PATCH", "/v1/me", Some(&profile)).0, 200);
    assert_eq!(world.http("POST", "/v1/vehicles", Some(&json!({ "name": mark("vehicle") }))).0, 201);
    let user = world.user().to_string();
    world.deployment.command(&["wallet", "add", "--user", &user, "--address", &mark("wallet")]).unwrap();
    let upload = world.post_named(&format!("{}.jpg", mark("file")), Some("1"));
    world.until("a doubt", |world| {
        world.view(upload).filter(|view| view.verdict.as_deref() == Some("review"))
    });
    let reviewer = Uuid::now_v7().to_string();
    let token = world.deployment.command(&["token", "--user", &reviewer, "--role", "reviewer"]).unwrap();
    let approve = json!({ "decision": "approve", "mileage": "123456", "unit": "km", "notes": mark("notes") });
    assert_eq!(world.decide(&token, upload, &approve), 202);
    let noted = format!("select id::text from mileage_data where manual_review_notes = '{}'", mark("notes"));
    world.until("the notes in the table", |world| world.rows(&noted).pop());
    let documents = "select 1::text from upload_verifications where detected_text is not null";
    world.until("what was read in the table", |world| world.rows(documents).pop());
    upload
}

/// Every place that holds a mark, in clear or as digits of bytes.
fn found(world: &World, marks: &[Mark]) -> Vec<String> {
    let tables = world.rows(
        "select string_agg(format('select t::text from %I t where t::text ~* %%L', table_name), ' union all ')
         from information_schema.tables where table_schema = current_schema() and table_type = 'BASE TABLE'",
    );
    // Every mark has this in it.
    let pattern = format!("{}|{}", &marks[0].1[5..], hex::encode(&marks[0].1[5..]));
    let rows = world.rows(&tables[0].replace("%L", &format!("'{pattern}'")));
    let rows = rows.iter().flat_map(|row| search::marked("a table", row, marks));
    rows.chain(search::in_topics(world, marks))
        .chain(search::in_documents(world, marks))
        .chain(search::in_logs(world, marks))
        .collect()
}

/// Whether a document of the log collections is about the upload.
fn is_logged(world: &World, upload: Uuid) -> bool {
    search::documents(world).iter().any(|(_, document)| document.to_string().contains(&upload.to_string()))
}

fn photos(world: &World) -> usize {
    let url = world.deployment.environment().iter().find(|(key, _)| key == "MILESTREAM_PHOTOS__URL");
    let folder = url::Url::parse(&url.unwrap().1).unwrap().to_file_path().unwrap();
    std::fs::read_dir(folder.join("photos").join(world.user().to_string())).map_or(0, Iterator::count)
}

/// A reward that waits for a claim: in this world nothing is paid.
fn owe(world: &World, upload: Uuid) {
    let reward = RewardId::of(UploadId(upload));
    let inserted = world.rows(&format!(
        "insert into payouts (reward_id, user_id, amount_wei, state, header, stamp, updated_at)
         select '{reward}', user_id, 1500000000000000000, 'waiting', record -> 'header', record -> 'stamp', now()
         from reviews where upload_id = '{upload}' returning reward_id::text"
    ));
    assert_eq!(inserted.len(), 1);
}

/// Has the job run once, to its end.
fn run_job(world: &mut World) {
    world.execute("update timers set due_at = now(), leased_until = '-infinity' where job = 'erase'");
    world.until("the next run", |world| {
        world.rows("select job from timers where job = 'erase' and due_at > now()").pop()
    });
}

/// The roles: as few as have a part in it.
fn world() -> World {
    let stages =
        ["quality_check", "odometer_reading", "fraud_check"].map(|stage| RoleSpec::stage(stage, "a"));
    let sinks = ["postgres", "mongo"].map(RoleSpec::sink);
    let roles = [RoleSpec::ingest(), RoleSpec::timers()].into_iter().chain(stages).chain(sinks);
    World::start("erasure", &roles.collect::<Vec<_>>(), None)
}

fn marks() -> Vec<Mark> {
    let unique = Uuid::now_v7().simple().to_string();
    let mut marks: Vec<Mark> = ["name", "email", "image", "vehicle", "file", "notes"]
        .map(|name| {
            let end = if name == "email" { "@example.org" } else { "" };
            (name, format!("{name}-{unique}{end}"))
        })
        .into();
    // As long as an address is: 0x and 40 digits.
    marks.push(("wallet", format!("0xc0ffee00{unique}")));
    marks
}

#[test]
fn after_an_erasure_no_store_holds_what_a_person_said_and_a_rebuild_brings_nothing_back() {
    let (mut world, marks) = (world(), marks());
    let upload = plant(&mut world, &marks);
    world.until("documents about the upload", |world| is_logged(world, upload).then_some(()));
    assert_eq!(photos(&world), 1);
    let before = found(&world, &marks);
    for (name, _) in &marks {
        assert!(before.iter().any(|place| place.starts_with(name)), "{name} was planted: {before:#?}");
    }

    let (status, archive) = world.http("GET", "/v1/me/export", None);
    assert_eq!(status, 200, "{archive}");
    // Names are in clear in an archive.
    let photo = format!("photos/{upload}.jpg");
    assert!(["logs/", "users.json", &photo].iter().all(|name| archive.contains(name)));
    owe(&world, upload);
    let (status, document) = world.http("DELETE", "/v1/me", None);
    assert_eq!(status, 202, "{document}");
    assert!(document.contains("\"unclaimed\":\"1.5\""), "{document}");
    world.execute("update erasures set due_at = now()");
    world.execute("update payouts set state = 'in_flight'");
    run_job(&mut world);
    assert_eq!(
        world.rows("select user_id::text from erasures where erased_at is not null"),
        Vec::<String>::new()
    );
    assert_eq!(photos(&world), 1, "what is being paid is paid first");
    world.execute("update payouts set state = 'waiting'");
    world.execute("update timers set due_at = now(), leased_until = '-infinity' where job = 'erase'");
    world.until("the erasure", |world| world.rows("select user_id::text from erased_users").pop());
    world.until("its end in the tables", |world| {
        world.rows("select id::text from odometer_uploads where image_url is null").pop()
    });
    // What the outbox kept of records that were published meanwhile goes with the next run.
    world.until("an empty outbox", |world| {
        let waiting = world.rows("select id::text from outbox where published_at is null");
        waiting.is_empty().then_some(())
    });
    run_job(&mut world);
    let none = Vec::<String>::new();
    assert_eq!(found(&world, &marks), none);
    assert_eq!(photos(&world), 0);
    assert!(!is_logged(&world, upload));
    assert_eq!(
        world.rows("select concat_ws(': ', state, reason) from payouts"),
        ["cancelled: cancelled: account_erased"]
    );
    let cancelled = world.records::<RewardCancelled>();
    assert_eq!(cancelled.iter().map(|event| event.granted.to_string()).collect::<Vec<_>>(), ["1.5"]);
    let events = world.records::<UserErased>();
    assert_eq!(events.iter().map(|event| event.user_id.0).collect::<Vec<_>>(), [world.user()]);
    assert_eq!(events[0].key(), world.user().to_string());
    let tombstones = snapshot::read(&world.kafka, &world.topic(Topic::AccountsChanged)).unwrap();
    assert!(tombstones.iter().any(|record| record.payload.is_none()));

    world.deployment.command(&["rebuild"]).unwrap();
    assert_eq!(found(&world, &marks), none, "after a rebuild");
    let rows = world
        .rows("select concat_ws(',', upload_status, image_url, original_filename) from odometer_uploads");
    assert_eq!(rows, ["verified"], "what was decided stands, under a number");
    let texts = "select coalesce(manual_review_notes, detected_text) from mileage_data
                 join upload_verifications using (upload_id) where num_nonnulls(manual_review_notes, detected_text) > 0";
    assert_eq!(world.rows(texts), none);
    world.finish();
}
