//! A vehicle that changes hands.

use chain::Signer;
use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::signing_in::{access, bench, signed_in, wallet};
use crate::support::{Bench, Form, Response, jpeg};

/// Somebody who has signed in.
struct Person {
    wallet: Signer,
    tokens: Value,
}

impl Person {
    async fn new(bench: &Bench) -> Self {
        let wallet = wallet();
        let tokens = signed_in(bench, &wallet).await;
        Self { wallet, tokens }
    }

    fn token(&self) -> &str {
        access(&self.tokens)
    }

    fn user(&self) -> Uuid {
        self.tokens["user_id"].as_str().unwrap().parse().unwrap()
    }
}

async fn vehicle(bench: &Bench, owner: &Person) -> String {
    let made =
        bench.json("POST", "/v1/vehicles", owner.token(), &json!({ "name": "Ada's", "unit": "km" })).await;
    made.json()["vehicle_id"].as_str().unwrap().to_owned()
}

async fn offer(bench: &Bench, owner: &Person, vehicle: &str, to: &Signer) -> Response {
    let path = format!("/v1/vehicles/{vehicle}/transfers");
    bench.json("POST", &path, owner.token(), &json!({ "address": to.address().checksummed() })).await
}

async fn offered(bench: &Bench, owner: &Person, vehicle: &str, to: &Signer) -> String {
    let response = offer(bench, owner, vehicle, to).await;
    assert_eq!(response.status, 201, "{response:?}");
    response.json()["transfer_id"].as_str().unwrap().to_owned()
}

async fn answer(bench: &Bench, person: &Person, transfer: &str, word: &str) -> Response {
    bench.json("POST", &format!("/v1/transfers/{transfer}/{word}"), person.token(), &json!({})).await
}

async fn take_back(bench: &Bench, person: &Person, transfer: &str) -> Response {
    bench.json("DELETE", &format!("/v1/transfers/{transfer}"), person.token(), &json!({})).await
}

async fn transfers(bench: &Bench, person: &Person) -> Vec<Value> {
    let list = bench.get("/v1/transfers", person.token()).await.json();
    list["items"].as_array().unwrap().clone()
}

async fn photo(bench: &Bench, person: &Person, vehicle: &str, n: u32) -> Response {
    bench.post(person.token(), &Form::photo(&jpeg(n)).field("vehicle_id", vehicle)).await
}

/// As `fraud_check` writes it.
async fn decide(bench: &Bench, upload: &Value, effect: &str) {
    sqlx::query(
        "insert into decisions (stage, input_event_id, effect_id, topic, partition, record_offset, rules_version, outcome, evidence,
           output, occurred_at)
         select 'fraud_check', gen_random_uuid(), $1, 'uploads.readings', 0, count(*), '1', 'emit', '{}', '', now() from decisions",
    )
    .bind(format!("{effect}:{}", upload.as_str().unwrap()))
    .execute(&bench.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_vehicle_that_is_offered_and_accepted_is_the_next_owners_alone_and_both_see_it_so() {
    let bench = bench().await;
    let (ada, ben, eve) = (Person::new(&bench).await, Person::new(&bench).await, Person::new(&bench).await);
    let id = vehicle(&bench, &ada).await;
    assert_eq!(photo(&bench, &ada, &id, 1).await.status, 202);
    let transfer = offered(&bench, &ada, &id, &ben.wallet).await;
    let of = |items: &[Value]| (items[0]["offered_by_you"].clone(), items[0]["status"].clone());
    assert_eq!(of(&transfers(&bench, &ada).await), (json!(true), json!("open")));
    let seen = transfers(&bench, &ben).await;
    assert_eq!(of(&seen), (json!(false), json!("open")));
    assert_eq!(seen[0]["from_address"], ada.wallet.address().to_string());
    assert_eq!(seen[0].get("name"), None);
    assert_eq!(transfers(&bench, &eve).await, Vec::<Value>::new());

    // A photo that nobody has decided belongs to whoever sent it: it is waited for.
    answer(&bench, &ben, &transfer, "accept").await.assert_problem(409, "vehicle_undecided");
    let upload = bench.get("/v1/uploads", ada.token()).await.json()["items"][0]["upload_id"].clone();
    decide(&bench, &upload, "verdict").await;
    let accepted = answer(&bench, &ben, &transfer, "accept").await;
    assert_eq!((accepted.status, &accepted.json()["status"]), (200, &json!("accepted")), "{accepted:?}");
    assert_eq!(answer(&bench, &ben, &transfer, "accept").await.body, accepted.body, "again gives the same");

    let theirs = bench.get("/v1/vehicles", ben.token()).await.json();
    let kept = (&theirs["items"][0]["vehicle_id"], &theirs["items"][0]["unit"], &theirs["items"][0]["name"]);
    assert_eq!(kept, (&json!(id), &json!("km"), &json!(null)));
    assert_eq!(bench.get("/v1/vehicles", ada.token()).await.json()["items"], json!([]));
    photo(&bench, &ada, &id, 2).await.assert_problem(404, "vehicle_not_found");
    assert_eq!(photo(&bench, &ben, &id, 3).await.status, 202);
    assert_eq!(of(&transfers(&bench, &ada).await), (json!(true), json!("accepted")));
    answer(&bench, &ben, &transfer, "decline").await.assert_problem(409, "transfer_over");
    take_back(&bench, &ada, &transfer).await.assert_problem(409, "transfer_over");
    let audited: Vec<(Uuid, Value)> = sqlx::query_as(
        "select user_id, action_details -> 'after' -> 'outcome' from system_audit_logs
         where action_details -> 'after' ? 'transfer' order by timestamp",
    )
    .fetch_all(&bench.pool)
    .await
    .unwrap();
    assert_eq!(audited, [(ada.user(), json!("offered")), (ben.user(), json!("accepted"))]);
}

#[tokio::test]
async fn only_the_owner_offers_and_takes_back_and_only_the_owner_of_the_wallet_answers() {
    let bench = bench().await;
    let (ada, ben, eve) = (Person::new(&bench).await, Person::new(&bench).await, Person::new(&bench).await);
    let id = vehicle(&bench, &ada).await;
    offer(&bench, &eve, &id, &eve.wallet).await.assert_problem(404, "vehicle_not_found");
    let own = offer(&bench, &ada, &id, &ada.wallet).await.assert_problem(422, "invalid_address");
    assert_eq!(own["field"], "address");
    let transfer = offered(&bench, &ada, &id, &ben.wallet).await;
    offer(&bench, &ada, &id, &eve.wallet).await.assert_problem(409, "transfer_open");
    for word in ["accept", "decline"] {
        for person in [&eve, &ada] {
            answer(&bench, person, &transfer, word).await.assert_problem(404, "transfer_not_found");
        }
    }
    for person in [&eve, &ben] {
        take_back(&bench, person, &transfer).await.assert_problem(404, "transfer_not_found");
    }
    assert_eq!(take_back(&bench, &ada, &transfer).await.status, 204);
    assert_eq!(take_back(&bench, &ada, &transfer).await.status, 204, "again changes nothing");
    answer(&bench, &ben, &transfer, "accept").await.assert_problem(404, "transfer_not_found");
    let transfer = offered(&bench, &ada, &id, &ben.wallet).await;
    let declined = answer(&bench, &ben, &transfer, "decline").await;
    assert_eq!((declined.status, &declined.json()["status"]), (200, &json!("declined")));
    answer(&bench, &ben, &transfer, "accept").await.assert_problem(409, "transfer_over");
    // One that has expired is over and makes room for the next.
    let transfer = offered(&bench, &ada, &id, &ben.wallet).await;
    sqlx::query("update vehicle_transfers set expires_at = now() where outcome is null")
        .execute(&bench.pool)
        .await
        .unwrap();
    answer(&bench, &ben, &transfer, "accept").await.assert_problem(404, "transfer_not_found");
    assert_eq!(transfers(&bench, &ada).await[0]["status"], "expired");
    offered(&bench, &ada, &id, &ben.wallet).await;
}

#[tokio::test]
async fn whoever_has_not_signed_in_yet_finds_the_offer_when_they_do() {
    let bench = bench().await;
    let (ada, newcomer) = (Person::new(&bench).await, wallet());
    let id = vehicle(&bench, &ada).await;
    let transfer = offered(&bench, &ada, &id, &newcomer).await;
    let tokens = signed_in(&bench, &newcomer).await;
    let ben = Person { wallet: newcomer, tokens };
    assert_eq!(answer(&bench, &ben, &transfer, "accept").await.status, 200);
}

#[tokio::test]
async fn a_retired_vehicle_that_of_the_account_a_locked_owners_and_a_fifty_first_do_not_change_hands() {
    let bench = bench().await;
    let (ada, ben) = (Person::new(&bench).await, Person::new(&bench).await);
    let own = bench.post(ada.token(), &Form::photo(&jpeg(1))).await;
    assert_eq!(own.status, 202);
    let default: Uuid = sqlx::query_scalar("select id from vehicles where user_id = $1")
        .bind(ada.user())
        .fetch_one(&bench.pool)
        .await
        .unwrap();
    offer(&bench, &ada, &default.to_string(), &ben.wallet).await.assert_problem(409, "default_vehicle");
    let id = vehicle(&bench, &ada).await;
    let transfer = offered(&bench, &ada, &id, &ben.wallet).await;
    let retire = async |retired: bool| {
        bench.json("PATCH", &format!("/v1/vehicles/{id}"), ada.token(), &json!({ "retired": retired })).await
    };
    assert_eq!(retire(true).await.status, 200);
    answer(&bench, &ben, &transfer, "accept").await.assert_problem(409, "vehicle_retired");
    take_back(&bench, &ada, &transfer).await;
    offer(&bench, &ada, &id, &ben.wallet).await.assert_problem(409, "vehicle_retired");
    assert_eq!(retire(false).await.status, 200);
    let transfer = offered(&bench, &ada, &id, &ben.wallet).await;
    let active = async |active: bool| {
        let sql = "update users set is_active = $2 where id = $1";
        sqlx::query(sql).bind(ada.user()).bind(active).execute(&bench.pool).await.unwrap();
    };
    active(false).await;
    answer(&bench, &ben, &transfer, "accept").await.assert_problem(409, "transfer_over");
    active(true).await;
    sqlx::query(
        "insert into vehicles (id, user_id) select gen_random_uuid(), $1 from generate_series(1, 50)",
    )
    .bind(ben.user())
    .execute(&bench.pool)
    .await
    .unwrap();
    answer(&bench, &ben, &transfer, "accept").await.assert_problem(409, "vehicle_limit");
    assert_eq!(transfers(&bench, &ben).await[0]["status"], "open", "what is refused changes nothing");
}

#[tokio::test]
async fn a_photo_that_waits_for_a_person_holds_the_transfer_until_the_decision_has_gone_through() {
    let bench = bench().await;
    let (ada, ben) = (Person::new(&bench).await, Person::new(&bench).await);
    let id = vehicle(&bench, &ada).await;
    let upload = photo(&bench, &ada, &id, 1).await.json()["upload_id"].clone();
    decide(&bench, &upload, "verdict").await;
    sqlx::query(
        "insert into reviews (upload_id, user_id, accepted_at, opened_at, reason, detail, signals, record, risk, ranked_at)
         values ($1::text::uuid, $2, now(), now(), 'low_confidence', '', '{}', '{}', 0, now())",
    )
    .bind(upload.as_str().unwrap())
    .bind(ada.user())
    .execute(&bench.pool)
    .await
    .unwrap();
    let transfer = offered(&bench, &ada, &id, &ben.wallet).await;
    answer(&bench, &ben, &transfer, "accept").await.assert_problem(409, "vehicle_undecided");
    sqlx::query("update reviews set decided_at = now(), decision = '{\"decision\": \"expire\"}'")
        .execute(&bench.pool)
        .await
        .unwrap();
    answer(&bench, &ben, &transfer, "accept").await.assert_problem(409, "vehicle_undecided");
    decide(&bench, &upload, "review").await;
    assert_eq!(answer(&bench, &ben, &transfer, "accept").await.status, 200);
}

#[tokio::test]
async fn photos_that_are_sent_while_a_vehicle_changes_hands_are_decided_before_or_refused() {
    let bench = bench().await;
    let (ada, ben) = (Person::new(&bench).await, Person::new(&bench).await);
    let id = vehicle(&bench, &ada).await;
    let first = photo(&bench, &ada, &id, 1).await.json()["upload_id"].clone();
    decide(&bench, &first, "verdict").await;
    for round in 0..8 {
        let (owner, next) = if round % 2 == 0 { (&ada, &ben) } else { (&ben, &ada) };
        let transfer = offered(&bench, owner, &id, &next.wallet).await;
        let numbers: Vec<u32> = (0..6).map(|n| 100 + 10 * round + n).collect();
        let photos = join_all(numbers.iter().map(|n| photo(&bench, owner, &id, *n)));
        let (photos, mut accepted) = tokio::join!(photos, answer(&bench, next, &transfer, "accept"));
        let taken: Vec<Value> = photos
            .iter()
            .filter(|one| one.status == 202)
            .map(|one| one.json()["upload_id"].clone())
            .collect();
        assert!(photos.iter().all(|one| [202, 404].contains(&one.status)), "{photos:?}");
        if accepted.status == 200 {
            assert_eq!(taken, Vec::<Value>::new(), "accepted beside photos that nobody has decided");
        } else {
            accepted.assert_problem(409, "vehicle_undecided");
            for upload in &taken {
                decide(&bench, upload, "verdict").await;
            }
            accepted = answer(&bench, next, &transfer, "accept").await;
        }
        assert_eq!(accepted.status, 200, "{accepted:?}");
        photo(&bench, owner, &id, 900 + round).await.assert_problem(404, "vehicle_not_found");
    }
}
