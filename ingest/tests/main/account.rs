//! `/v1/me`, preferences, wallets and vehicles.

use chain::Signer;
use chrono::Utc;
use futures::future::join_all;
use rust_decimal::Decimal;
use schemas::events::PersonalLimits;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::signing_in::{access, bench, certificate, login, signed_in, typed, wallet};
use crate::support::{Bench, Form, Response, jpeg};

/// The challenge for linking a wallet to the account of a token.
async fn link_challenge(bench: &Bench, token: &str, wallet: &Signer) -> Value {
    let request = json!({ "address": wallet.address() });
    let response = bench.json("POST", "/v1/wallets/challenge", token, &request).await;
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

/// Adds a wallet by its signature.
pub async fn add(bench: &Bench, token: &str, wallet: &Signer) -> Response {
    let challenge = link_challenge(bench, token, wallet).await;
    bench.json("POST", "/v1/wallets", token, &typed(&challenge, wallet)).await
}

/// Address and whether it is primary, newest first.
pub async fn wallets(bench: &Bench, token: &str) -> Vec<(String, bool)> {
    let list = bench.get("/v1/wallets", token).await.json();
    let wallets = list["items"].as_array().unwrap().iter();
    wallets.map(|w| (w["address"].as_str().unwrap().to_owned(), w["is_primary"].as_bool().unwrap())).collect()
}

pub fn path(wallet: &Value) -> String {
    format!("/v1/wallets/{}", wallet["wallet_id"].as_str().unwrap())
}

/// Actions of the audit log with what was before and after.
pub async fn audited(bench: &Bench) -> Vec<(String, Value, Value)> {
    sqlx::query_as(
        "select action, action_details -> 'before', action_details -> 'after' from system_audit_logs
         where user_id is not null and ip_address = '127.0.0.1' order by timestamp, id",
    )
    .fetch_all(&bench.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn an_account_is_shown_and_changed_by_its_owner_and_the_change_is_audited_without_the_address() {
    let (bench, wallet) = (bench().await, wallet());
    let tokens = signed_in(&bench, &wallet).await;
    let me = bench.get("/v1/me", access(&tokens)).await;
    assert!(me.head.contains("cache-control: no-store"), "{}", me.head);
    let me = me.json();
    assert_eq!((&me["user_id"], &me["role"]), (&tokens["user_id"], &json!("driver")));
    assert_eq!(me["wallet_address"], wallet.address().to_string());
    assert_eq!(
        (&me["is_verified"], &me["email"], &me["total_rewards"]),
        (&json!(true), &json!(null), &json!("0"))
    );
    let change = async |change: Value| bench.json("PATCH", "/v1/me", access(&tokens), &change).await;
    let changed = change(json!({ "username": " Ada Läufer ", "email": "Ada@Example.org" })).await.json();
    assert_eq!((&changed["username"], &changed["email"]), (&json!("Ada Läufer"), &json!("ada@example.org")));
    let image = json!({ "profile_image": "https://images.example/ada.png" });
    let changed = change(image).await.json();
    assert_eq!(changed["username"], "Ada Läufer", "what is left out stays");
    let changed = change(json!({ "email": null })).await.json();
    assert_eq!(
        (&changed["email"], &changed["profile_image"]),
        (&json!(null), &json!("https://images.example/ada.png"))
    );
    for (bad, field) in [
        (json!({ "username": "ab" }), "username"),
        (json!({ "username": "a\u{7}bc" }), "username"),
        (json!({ "username": "n".repeat(101) }), "username"),
        (json!({ "email": "ada" }), "email"),
        (json!({ "email": "ada@example.org\r\nbcc: eve@example.org" }), "email"),
        (json!({ "profile_image": "javascript:alert(1)" }), "profile_image"),
        (json!({ "profile_image": format!("https://images.example/{}", "x".repeat(500)) }), "profile_image"),
    ] {
        assert_eq!(change(bad).await.assert_problem(422, "invalid_field")["field"], field);
    }
    for bad in [json!({ "role": "operator" }), json!({ "is_verified": true }), json!({ "username": 5 })] {
        change(bad).await.assert_problem(400, "malformed_document");
    }
    change(json!({ "email": "ada@example.org" })).await;
    let other = signed_in(&bench, &crate::signing_in::wallet()).await;
    let taken = bench.json("PATCH", "/v1/me", access(&other), &json!({ "email": "ADA@example.org" })).await;
    taken.assert_problem(409, "email_taken");
    let audited = audited(&bench).await;
    assert_eq!(audited.len(), 4);
    assert!(audited[0].0 == "user.update" && audited[0].2["has_email"] == true, "{audited:?}");
    assert!(!format!("{audited:?}").contains("example.org"), "{audited:?}");
}

#[tokio::test]
async fn preferences_are_put_in_as_a_whole_and_decide_over_the_next_photo() {
    let (bench, wallet) = (bench().await, wallet());
    let tokens = signed_in(&bench, &wallet).await;
    let mut preferences = bench.get("/v1/preferences", access(&tokens)).await.json();
    assert_eq!(preferences["reward_preferences"]["auto_claim"], true);
    bench.post(access(&tokens), &Form::photo(&jpeg(1))).await;
    preferences["reward_preferences"] = json!({ "auto_claim": false, "min_claim": "2.5", "personal_limits": { "daily": "30", "weekly": null, "monthly": null } });
    preferences["notification_preferences"]["webhook"] = json!({ "enabled": true, "to": "https://hooks.example/a", "events": ["reward_paid", "security_event"] });
    let put = async |document: &Value| bench.json("PUT", "/v1/preferences", access(&tokens), document).await;
    let stored = put(&preferences).await;
    assert_eq!((stored.status, stored.json()), (200, preferences.clone()));
    assert_eq!(bench.get("/v1/preferences", access(&tokens)).await.json(), preferences);
    bench.post(access(&tokens), &Form::photo(&jpeg(2))).await;
    let events = bench.kafka.events();
    let stamped = events
        .iter()
        .map(|event| (event.stamp.auto_claim, event.stamp.min_claim, event.stamp.personal_limits));
    let daily = PersonalLimits { daily: Some(30.into()), ..PersonalLimits::default() };
    let wanted = [(true, None, None), (false, Some(Decimal::new(25, 1)), Some(daily))];
    assert_eq!(stamped.collect::<Vec<_>>(), wanted);
    let mut bad = preferences.clone();
    bad["reward_preferences"]["personal_limits"]["daily"] = json!("-1");
    let refused = put(&bad).await.assert_problem(422, "invalid_field");
    assert_eq!(refused["field"], "reward_preferences.personal_limits.daily");
    preferences.as_object_mut().unwrap().remove("dashboard_settings");
    put(&preferences).await.assert_problem(400, "malformed_document");
    let audited = audited(&bench).await;
    assert_eq!(audited.len(), 1);
    assert!(!format!("{audited:?}").contains("hooks.example"), "{audited:?}");
}

#[tokio::test]
async fn a_further_wallet_is_added_by_its_signature_made_primary_and_the_one_before_removed() {
    let (bench, first, second) = (bench().await, wallet(), wallet());
    let tokens = signed_in(&bench, &first).await;
    let token = access(&tokens);
    let name = |wallet: &Signer| wallet.address().to_string();
    let added = add(&bench, token, &second).await.json();
    assert_eq!((&added["is_primary"], &added["network"]), (&json!(false), &json!("testnet")));
    assert_eq!(wallets(&bench, token).await, [(name(&second), false), (name(&first), true)]);
    let again = add(&bench, token, &second).await.json();
    assert_eq!(again["wallet_id"], added["wallet_id"], "again changes nothing");

    let change = async |wallet: &Value, primary: bool| {
        bench.json("PATCH", &path(wallet), token, &json!({ "is_primary": primary })).await
    };
    change(&added, false).await.assert_problem(422, "invalid_field");
    assert_eq!(change(&added, true).await.json()["is_primary"], true);
    assert_eq!(wallets(&bench, token).await, [(name(&second), true), (name(&first), false)]);
    assert_eq!(bench.get("/v1/me", token).await.json()["wallet_address"], name(&second));
    bench.post(token, &Form::photo(&jpeg(1))).await;
    assert_eq!(bench.kafka.events()[0].stamp.wallet_id.map(|id| json!(id)), Some(added["wallet_id"].clone()));

    let list = bench.get("/v1/wallets", token).await.json();
    let remove = async |wallet: &Value| bench.json("DELETE", &path(wallet), token, &json!({})).await;
    remove(&added).await.assert_problem(409, "wallet_is_primary");
    let old = &list["items"][1];
    let pay = "insert into payouts (reward_id, user_id, wallet_id, amount_wei, state, header, stamp, updated_at)
               select $1, user_id, id, 10000000000, 'waiting', '{}', '{}', now() from user_wallets where id = $2";
    let old_id: Uuid = old["wallet_id"].as_str().unwrap().parse().unwrap();
    sqlx::query(pay).bind(Uuid::now_v7()).bind(old_id).execute(&bench.pool).await.unwrap();
    remove(old).await.assert_problem(409, "wallet_in_use");
    sqlx::query("update payouts set state = 'final'").execute(&bench.pool).await.unwrap();
    assert_eq!(remove(old).await.status, 204);
    remove(old).await.assert_problem(404, "wallet_not_found");
    change(old, true).await.assert_problem(404, "wallet_not_found");
    remove(&added).await.assert_problem(409, "last_wallet");
    assert_eq!(wallets(&bench, token).await, [(name(&second), true)]);

    // The removed one opens nothing any more, the other does; and it comes back by its signature.
    let challenge = crate::signing_in::challenge(&bench, &first).await;
    login(&bench, &typed(&challenge, &first)).await.assert_problem(409, "wallet_taken");
    assert_eq!(signed_in(&bench, &second).await["user_id"], tokens["user_id"]);
    let back = add(&bench, token, &first).await.json();
    assert_eq!((&back["wallet_id"], &back["is_primary"]), (&old["wallet_id"], &json!(false)));
    let actions: Vec<String> = audited(&bench).await.into_iter().map(|(action, ..)| action).collect();
    assert_eq!(actions, ["wallet.add", "wallet.add", "wallet.set_primary", "wallet.remove", "wallet.add"]);
    bench.relay().await;
    let logs = bench.kafka.documents("auth_logs");
    let of =
        |action: &str| logs.iter().filter(|log| log["action"] == action && log["success"] == true).count();
    assert_eq!((of("wallet_connect"), of("wallet_disconnect")), (3, 1));
}

#[tokio::test]
async fn a_wallet_is_linked_by_a_signature_for_this_account_and_to_one_account_only() {
    let (bench, first, second) = (bench().await, wallet(), wallet());
    let (ours, theirs) = (signed_in(&bench, &first).await, signed_in(&bench, &second).await);
    let third = wallet();
    let post = async |token: &str, proof: &Value| bench.json("POST", "/v1/wallets", token, proof).await;
    // What was signed to sign in links nothing, and what links signs nobody in.
    let sign_in = crate::signing_in::challenge(&bench, &third).await;
    post(access(&ours), &typed(&sign_in, &third)).await.assert_problem(401, "challenge_expired");
    let linking = link_challenge(&bench, access(&ours), &third).await;
    login(&bench, &typed(&linking, &third)).await.assert_problem(401, "challenge_expired");
    assert!(linking["text"].as_str().unwrap().contains(ours["user_id"].as_str().unwrap()), "{linking}");
    // Nor does one that was asked for by somebody else.
    post(access(&theirs), &typed(&linking, &third)).await.assert_problem(401, "challenge_expired");
    let proof = certificate(&linking, &third, "gateway.test", Utc::now().timestamp());
    let responses = join_all((0..3).map(|_| post(access(&ours), &proof))).await;
    assert_eq!(responses.iter().filter(|response| response.status == 200).count(), 1, "{responses:?}");
    add(&bench, access(&theirs), &third).await.assert_problem(409, "wallet_taken");
    add(&bench, access(&theirs), &first).await.assert_problem(409, "wallet_taken");
    assert_eq!(wallets(&bench, access(&theirs)).await.len(), 1);
    // Another's wallet is not there for its neighbour.
    let list = bench.get("/v1/wallets", access(&ours)).await.json();
    for wallet in list["items"].as_array().unwrap() {
        let change = json!({ "is_primary": true });
        bench
            .json("PATCH", &path(wallet), access(&theirs), &change)
            .await
            .assert_problem(404, "wallet_not_found");
        bench
            .json("DELETE", &path(wallet), access(&theirs), &json!({}))
            .await
            .assert_problem(404, "wallet_not_found");
    }
}

#[tokio::test]
async fn a_wallet_that_never_signed_cannot_be_made_primary_and_wallets_moved_at_once_leave_one_primary() {
    let (bench, first) = (bench().await, wallet());
    let tokens = signed_in(&bench, &first).await;
    let user = schemas::ids::UserId(tokens["user_id"].as_str().unwrap().parse().unwrap());
    let (now, linked) = (schemas::ids::Micros(1_770_000_000_000_000), format!("0x{}", "1".repeat(40)));
    let schemas = crate::support::SCHEMAS();
    let id = ingest::wallets::add_wallet(&bench.pool, schemas, user, &linked, "testnet", now).await.unwrap();
    let change = json!({ "is_primary": true });
    let patch =
        async |id: &str| bench.json("PATCH", &format!("/v1/wallets/{id}"), access(&tokens), &change).await;
    patch(&id.to_string()).await.assert_problem(409, "wallet_unproven");
    let mut ids = Vec::new();
    for _ in 0..4 {
        let added = add(&bench, access(&tokens), &wallet()).await.json();
        ids.push(added["wallet_id"].as_str().unwrap().to_owned());
    }
    let responses = join_all(ids.iter().map(|id| patch(id))).await;
    assert!(responses.iter().all(|response| response.status == 200), "{responses:?}");
    let (primaries, shown): (i64, bool) = sqlx::query_as(
        "select count(*), bool_and(u.wallet_address = w.wallet_address) from user_wallets w join users u on u.id = w.user_id
         where w.is_primary",
    )
    .fetch_one(&bench.pool)
    .await
    .unwrap();
    assert_eq!((primaries, shown), (1, true));
}

#[tokio::test]
async fn a_vehicle_is_its_owners_and_its_kind_is_stamped_into_the_next_photo() {
    let (bench, wallet) = (bench().await, wallet());
    let tokens = signed_in(&bench, &wallet).await;
    let new = json!({ "kind": "electric", "unit": "miles", "name": " Van 7 " });
    let made = bench.json("POST", "/v1/vehicles", access(&tokens), &new).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_eq!(
        (&made["kind"], &made["unit"], &made["name"], &made["retired"]),
        (&json!("electric"), &json!("miles"), &json!("Van 7"), &json!(false))
    );
    let id = made["vehicle_id"].as_str().unwrap();
    let upload = bench.post(access(&tokens), &Form::photo(&jpeg(1)).field("vehicle_id", id)).await;
    assert_eq!(upload.status, 202, "{upload:?}");
    assert_eq!(bench.kafka.events()[0].header.vehicle_id.to_string(), id);
    let change = async |change: Value| {
        bench.json("PATCH", &format!("/v1/vehicles/{id}"), access(&tokens), &change).await
    };
    let changed = change(json!({ "name": null, "retired": true })).await.json();
    assert_eq!(
        (&changed["name"], &changed["unit"], &changed["retired"]),
        (&json!(null), &json!("miles"), &json!(true))
    );
    assert_eq!(change(json!({ "retired": false, "kind": "hybrid" })).await.json()["retired"], false);
    for (bad, field) in [
        (json!({ "kind": "steam" }), "kind"),
        (json!({ "unit": "yards" }), "unit"),
        (json!({ "name": " " }), "name"),
        (json!({ "name": "n".repeat(101) }), "name"),
    ] {
        assert_eq!(change(bad.clone()).await.assert_problem(422, "invalid_field")["field"], field);
        let refused = bench.json("POST", "/v1/vehicles", access(&tokens), &bad).await;
        refused.assert_problem(422, "invalid_field");
    }
    let other = signed_in(&bench, &crate::signing_in::wallet()).await;
    let theirs = bench.json("PATCH", &format!("/v1/vehicles/{id}"), access(&other), &json!({})).await;
    theirs.assert_problem(404, "vehicle_not_found");
    let taken = bench.post(access(&other), &Form::photo(&jpeg(2)).field("vehicle_id", id)).await;
    taken.assert_problem(404, "vehicle_not_found");
    assert_eq!(bench.get("/v1/vehicles", access(&other)).await.json()["items"], json!([]));
    for _ in 0..49 {
        assert_eq!(bench.json("POST", "/v1/vehicles", access(&tokens), &json!({})).await.status, 201);
    }
    bench
        .json("POST", "/v1/vehicles", access(&tokens), &json!({}))
        .await
        .assert_problem(409, "vehicle_limit");
}
