//! The table of routes. A row is all that dispatch, metrics, 404, 405, `Allow` and `/openapi.json` know of a route: method, path, who may
//! call it, summary and handler, whose argument and response types hold the rest, and the problems that the handler itself responds with.

use std::sync::Arc;

use crate::auth::access::{ACCOUNT, Access, PERSON, REVIEWER};
use crate::config::GatewayConfig;
use crate::gateway::Gateway;
use crate::http::handler::{Route, delete, get, patch, post, put};
use crate::http::openapi::{About, document};
use crate::http::problem::{ApiError, BUSY, LIVE_UPDATES_OFF};
use crate::http::reply::{AnyJson, Json};
use crate::http::request::Dependency;
use crate::{
    about as site, chain, claims, erasure, export, login, me, notices, ops, page, proofs, queries, reviews,
    uploads,
};

/// The table.
pub(crate) fn table() -> Vec<Route<Gateway>> {
    [signing_in(), accounts(), photos(), reviewing(), pages(), proving(), operation()]
        .into_iter()
        .flatten()
        .collect()
}

/// Who somebody is.
fn signing_in() -> Vec<Route<Gateway>> {
    vec![
        post("/v1/auth/challenge", Access::Public, "Ask for what a wallet is to sign", login::challenge::post)
            .description("A challenge lasts five minutes and is good for one signature, of this address, for this domain and network.")
            .refuses(login::challenge::REFUSALS),
        post("/v1/auth/login", Access::Public, "Sign in with a wallet's signature", login::sign_in::post)
            .description(
                "The signed challenge as a certificate (VIP-192) or as typed data (EIP-712). The first login makes the account, with \
                 this wallet as its primary one.",
            )
            .refuses(login::proof::REFUSALS)
            .refuses(login::sign_in::REFUSALS),
        post("/v1/auth/refresh", Access::Public, "New tokens for a refresh token", login::refresh::post)
            .description("A refresh token is good once. One that comes again ends its session: somebody else has it too.")
            .refuses(login::refresh::REFUSALS).in_maintenance(),
        post("/v1/auth/logout", PERSON, "End this session", login::sessions::logout).in_maintenance(),
        get("/v1/sessions", PERSON, "Where you are signed in, newest first", login::sessions::list),
        delete("/v1/sessions/{id}", PERSON, "End one of your sessions", login::sessions::delete).in_maintenance(),
        post("/v1/auth/development-signature", Access::Public, "On a developer's machine: a wallet's signature", login::development::post)
            .description("Signs a challenge with a wallet whose key the gateway holds, to try it out without a wallet. Never on mainnet.")
            .refuses(login::development::REFUSALS),
        get("/.well-known/jwks.json", Access::Public, "The public keys of access tokens", login::jwks::get),
    ]
}

/// What somebody has and prefers.
fn accounts() -> Vec<Route<Gateway>> {
    vec![
        get("/v1/me", PERSON, "Your account", me::profile::show),
        patch("/v1/me", PERSON, "Change your account", me::profile::change).refuses(me::profile::REFUSALS),
        post("/v1/me/email/code", PERSON, "Have a code sent to your e-mail address", me::email::ask)
            .description(
                "Six digits that are good for ten minutes and five tries; one that was sent before is good no more. One a minute, and a few a \
                 day.",
            )
            .refuses(me::email::CODE_REFUSALS),
        post("/v1/me/email/proof", PERSON, "Prove your e-mail address by the code that was sent to it", me::email::prove)
            .description("E-mails go to proven addresses alone. An account with a proven address and a wallet that has signed is verified.")
            .refuses(me::email::PROOF_REFUSALS),
        delete("/v1/me", PERSON, "Have your account erased, with all that is kept about you", erasure::ask).description(
            "Some days later, when `erasure_due_at` has come; until then nothing changes and `/v1/me/keep` takes it back. What was paid \
             stays in the books under a number that leads to nobody.",
        ),
        post("/v1/me/keep", PERSON, "Keep your account after all", erasure::keep)
            .refuses(erasure::KEEP_REFUSALS).in_maintenance(),
        get("/v1/me/export", PERSON, "Everything that is kept about you, as a ZIP archive", export::show)
            .description(
                "A file of JSON per store and your photos, made while it is sent; `about.json` says what each file holds. A few a day.",
            )
            .refuses(export::REFUSALS),
        get("/v1/preferences", PERSON, "What you prefer", me::preferences::show),
        put("/v1/preferences", PERSON, "Say what you prefer", me::preferences::put)
            .description("All of it at once; it holds for photos that are accepted from then on.")
            .refuses(me::preferences::REFUSALS),
        get("/v1/notices", PERSON, "What you were told by e-mail and webhook, newest first", notices::list),
        post("/v1/notices/{id}/send", PERSON, "Tell it again, or now where it waits", notices::send),
        post("/v1/notices/secret", PERSON, "What your webhooks are signed with from now on", notices::secret)
            .description(
                "The secret is shown once, and the one before signs no more. Webhooks are those of the Standard Webhooks specification: \
                 HMAC-SHA256 over `webhook-id`, `webhook-timestamp` and body, joined by points. Without a secret none is sent.",
            ),
        get("/v1/wallets", PERSON, "Your wallets, newest first", me::wallets::list),
        post("/v1/wallets/challenge", PERSON, "Ask for what a further wallet is to sign", me::wallets::challenge)
            .refuses(login::challenge::REFUSALS),
        post("/v1/wallets", PERSON, "Add a wallet by its signature", me::wallets::add)
            .description("The signed challenge of /v1/wallets/challenge. An account's first wallet is the one that rewards are paid to.")
            .refuses(login::proof::REFUSALS)
            .refuses(login::sign_in::REFUSALS),
        patch("/v1/wallets/{id}", PERSON, "Have rewards paid to this wallet", me::wallets::change)
            .description(
                "After a cooling time, in which you are told of it and can take it back; rewards of photos that were accepted until then \
                 go to the wallet before.",
            )
            .refuses(me::wallets::CHANGE_REFUSALS),
        delete("/v1/wallets/{id}", PERSON, "Remove a wallet", me::wallets::remove)
            .refuses(me::wallets::REMOVE_REFUSALS),
        get("/v1/vehicles", ACCOUNT, "Your vehicles, newest first", me::vehicles::list),
        post("/v1/vehicles", PERSON, "Add a vehicle", me::vehicles::add).refuses(me::vehicles::ADD_REFUSALS),
        patch("/v1/vehicles/{id}", PERSON, "Change or retire a vehicle", me::vehicles::change)
            .refuses(me::vehicles::CHANGE_REFUSALS),
        post("/v1/vehicles/{id}/transfers", PERSON, "Offer a vehicle to its next owner", me::transfers::offer)
            .description(
                "To whoever signs in with this wallet, for seven days. Nothing changes until they accept it; one offer at a time.",
            )
            .refuses(me::transfers::OFFER_REFUSALS),
        get("/v1/transfers", PERSON, "Vehicles that you offer or are offered, newest first", me::transfers::list),
        post("/v1/transfers/{id}/accept", PERSON, "Become the owner of a vehicle", me::transfers::accept)
            .description(
                "Its verified readings come with it: your first photo is what your distance is counted from, and shows no less than they do. \
                 Accepting again gives the same response.",
            )
            .refuses(me::transfers::ACCEPT_REFUSALS),
        post("/v1/transfers/{id}/decline", PERSON, "Decline a vehicle", me::transfers::decline)
            .refuses(me::transfers::ANSWER_REFUSALS),
        delete("/v1/transfers/{id}", PERSON, "Take an offer back", me::transfers::cancel)
            .refuses(me::transfers::ANSWER_REFUSALS),
    ]
}

/// Photos, and what becomes of them.
fn photos() -> Vec<Route<Gateway>> {
    vec![
        post("/v1/uploads", ACCOUNT, "Send a photo of an odometer", uploads::post::post)
            .description(
                "The photo (JPEG, PNG, WebP or HEIC) is kept as received. The same photo of the same user again \
                 gives the first response, unless that upload failed.",
            )
            .refuses(uploads::post::REFUSALS),
        get("/v1/uploads", ACCOUNT, "Your uploads, newest first", queries::uploads::list),
        get("/v1/uploads/{id}", ACCOUNT, "What became of an upload", queries::uploads::show),
        get("/v1/uploads/{id}/events", ACCOUNT, "An upload's progress as server-sent events", queries::live::events)
            .description(
                "stage, decided, reward, which comes again where it waits for a claim, and payout with each confirmation \
                 until the reward is settled; data is an Upload.",
            )
            .refuses(&[BUSY, LIVE_UPDATES_OFF]),
        post("/v1/uploads/{id}/appeal", PERSON, "Ask for a person to look at a rejected photo", reviews::appeal)
            .description(
                "Once per upload, within 14 days, where a rule has turned it down and a person may read it otherwise. \
                 What `text` says goes to that person. Asking again gives the first response again; what the person decides stands.",
            )
            .refuses(reviews::APPEAL_REFUSALS),
        get("/v1/uploads/{id}/photo", ACCOUNT, "An upload's photo as it was received", queries::photo::show)
            .refuses(queries::photo::REFUSALS),
        get("/v1/rewards", ACCOUNT, "Your rewards, newest first", queries::rewards::list),
        post("/v1/rewards/{id}/claim", PERSON, "Ask for a reward to be paid to your wallet", claims::post)
            .description(
                "Asking again gives the first response again. A reward may be claimed before it shows: as soon \
                 as its upload was accepted, unless that was rejected or failed.",
            )
            .refuses(claims::REFUSALS),
    ]
}

/// What is in doubt.
fn reviewing() -> Vec<Route<Gateway>> {
    vec![
        get("/v1/reviews", REVIEWER, "What waits for a person, the riskiest and oldest first", reviews::list)
            .description("For reviewers: uploads in doubt that nobody has decided yet and nobody else works on, without those of your own."),
        get("/v1/reviews/{id}", REVIEWER, "An upload in doubt, with what speaks for and against it", reviews::show),
        get("/v1/reviews/{id}/photo", REVIEWER, "Its photo as it was received", reviews::photo)
            .refuses(reviews::PHOTO_REFUSALS),
        get("/v1/reviews/{id}/look-alike", REVIEWER, "The photo of another vehicle that it looks like", reviews::look_alike)
            .refuses(reviews::LOOK_ALIKE_REFUSALS),
        post("/v1/reviews/{id}/claim", REVIEWER, "Work on an upload in doubt", reviews::claim)
            .description("For some minutes nobody else is shown it or may decide it. Claiming it again begins them anew.")
            .refuses(reviews::CLAIM_REFUSALS),
        post("/v1/reviews/{id}", REVIEWER, "Decide about an upload in doubt", reviews::post)
            .description(
                "Approve it with the mileage that the photo shows, turn it down with a reason, or ask for another photo. \
                 One decision per upload: the same again gives the same response, another is refused. Where the distance \
                 is large, an approval waits for another person to see the same, and for an operator where they differ.",
            )
            .refuses(reviews::REFUSALS),
    ]
}

/// What browsers show.
fn pages() -> Vec<Route<Gateway>> {
    vec![
        get("/", Access::Public, "The drivers' page", page::drivers),
        get("/review", Access::Public, "The reviewers' page", page::reviewers),
        get(
            "/pages/{release}/{file}",
            Access::Public,
            "A style, script or picture of the pages",
            page::file_of_release,
        )
        .description("Kept by browsers for ever under its release, the hash of all of them."),
        get("/v1/about", Access::Public, "What a page must know before anybody has signed in", site::show),
    ]
}

/// For whoever looks a payment up on the chain.
fn proving() -> Vec<Route<Gateway>> {
    vec![
        get("/proofs/{id}", Access::Public, "The page that a payment links as its proof", proofs::show)
            .description("The verified reading and the payment, without anything about the person.")
            .refuses(proofs::REFUSALS),
    ]
}

/// For programs: the watcher, clients' generators and balancers.
fn operation() -> Vec<Route<Gateway>> {
    vec![
        post("/v1/chain/events", Access::Watcher, "For the watcher of the chain", chain::events::post)
            .description("Blocks as they are adopted and undone, signed: HMAC-SHA256 over time and body.")
            .refuses(chain::events::REFUSALS)
            .in_maintenance(),
        get("/openapi.json", Access::Public, "This document", openapi),
        get("/livez", Access::Public, "Whether every loop makes progress or idles", ops::livez).uncounted(),
        get("/readyz", Access::Public, "Whether the role may take work", ops::readyz).uncounted(),
    ]
}

async fn openapi(Dependency(config): Dependency<Arc<GatewayConfig>>) -> Result<Json<AnyJson>, ApiError> {
    Ok(Json(AnyJson(document(&about(&config), &table()))))
}

fn about(config: &GatewayConfig) -> About {
    About {
        title: "Milestream",
        description: format!(
            "Send a photo of an odometer ({} bytes at most); follow what becomes of it.",
            config.limits.photo_bytes
        ),
        server: config.base_url.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn described() -> Value {
        document(&about(&GatewayConfig::new("http://localhost")), &table())
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            if let Some(target) = value["$ref"].as_str() {
                assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
            }
            let children = value.as_object().map(|map| map.values().collect::<Vec<_>>());
            for child in
                children.or_else(|| value.as_array().map(|list| list.iter().collect())).unwrap_or_default()
            {
                walk(child, document);
            }
        }
        let document = described();
        walk(&document, &document);
    }

    #[test]
    fn a_name_of_a_schema_means_the_same_to_every_operation() {
        let mut known = std::collections::BTreeMap::new();
        for route in table() {
            let mut own = std::collections::BTreeMap::new();
            route.operation().components(&mut own);
            for (name, schema) in own {
                let before = known.entry(name.clone()).or_insert_with(|| schema.clone());
                assert_eq!(*before, schema, "{name} of {} {}", route.method, route.path);
            }
        }
    }

    #[test]
    fn every_row_has_a_template_of_its_own_or_a_method_of_its_own() {
        let (mut paths, mut rows) = (matchit::Router::new(), std::collections::BTreeSet::new());
        for route in table() {
            assert!(rows.insert((route.path, route.method.to_string())), "{} {}", route.method, route.path);
            if !rows.iter().any(|(path, method)| *path == route.path && *method != route.method.as_str()) {
                paths.insert(route.path, ()).unwrap();
            }
        }
    }

    #[test]
    fn a_handler_that_must_know_who_asks_is_in_a_row_that_lets_only_them_pass() {
        for route in table() {
            assert!(
                !route.operation().is_inconsistent(),
                "{} {}: whoever asks is not known",
                route.method,
                route.path
            );
        }
    }

    #[test]
    fn an_operation_says_what_its_handlers_types_say() {
        let document = described();
        let show = &document["paths"]["/v1/uploads/{id}"]["get"];
        assert_eq!(show["parameters"][0]["name"], "id");
        let response = &show["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(response, "#/components/schemas/Upload");
        let refused: Vec<&str> = show["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(refused, ["200", "400", "401", "403", "404", "429", "500", "503"]);
        let upload = &document["components"]["schemas"]["Upload"];
        assert_eq!(upload["properties"]["reading"]["type"], serde_json::json!(["string", "null"]));
        assert_eq!(document["paths"]["/livez"]["get"]["security"], serde_json::json!([]));
    }
}
