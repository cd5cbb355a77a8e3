//! The table of routes. A row is all that dispatch, metrics, 404, 405, `Allow` and `/openapi.json` know of a route: method, path, summary
//! and handler, whose argument and response types hold the rest, and the problems that the handler itself responds with.

use std::sync::Arc;

use crate::config::GatewayConfig;
use crate::gateway::Gateway;
use crate::http::handler::{Route, get, post};
use crate::http::openapi::{About, document};
use crate::http::problem::{ApiError, BUSY};
use crate::http::reply::{AnyJson, Json};
use crate::http::request::Dependency;
use crate::{chain, claims, ops, queries, reviews, uploads};

/// The table.
pub(crate) fn table() -> Vec<Route<Gateway>> {
    vec![
        post("/v1/uploads", "Send a photo of an odometer", uploads::post::post)
            .description(
                "The photo (JPEG, PNG or WebP) is kept as received. The same photo of the same user again \
                 gives the first response, unless that upload failed.",
            )
            .refuses(uploads::post::REFUSALS),
        get("/v1/uploads", "Your uploads, newest first", queries::uploads::list),
        get("/v1/uploads/{id}", "What became of an upload", queries::uploads::show),
        get("/v1/uploads/{id}/events", "An upload's progress as server-sent events", queries::live::events)
            .description(
                "stage, decided, reward, and payout with each confirmation until the reward is settled; \
                 data is an Upload.",
            )
            .refuses(&[BUSY]),
        get("/v1/rewards", "Your rewards, newest first", queries::rewards::list),
        post("/v1/rewards/{id}/claim", "Ask for a reward to be paid to your wallet", claims::post)
            .description(
                "Asking again gives the first response again. A reward may be claimed before it shows: as soon \
                 as its upload was accepted, unless that was rejected or failed.",
            )
            .refuses(claims::REFUSALS),
        get("/v1/reviews", "What waits for a person, the riskiest and oldest first", reviews::list)
            .description("For reviewers: uploads in doubt that nobody has decided yet and nobody else works on, without those of your own."),
        get("/v1/reviews/{id}", "An upload in doubt, with what speaks for and against it", reviews::show),
        get("/v1/reviews/{id}/photo", "Its photo as it was received", reviews::photo)
            .refuses(reviews::PHOTO_REFUSALS),
        post("/v1/reviews/{id}/claim", "Work on an upload in doubt", reviews::claim)
            .description("For some minutes nobody else is shown it or may decide it. Claiming it again begins them anew.")
            .refuses(reviews::CLAIM_REFUSALS),
        post("/v1/reviews/{id}", "Decide about an upload in doubt", reviews::post)
            .description(
                "Approve it with the mileage that the photo shows, turn it down with a reason, or ask for another photo. \
                 One decision per upload: the same again gives the same response, another is refused. Where the distance \
                 is large, an approval waits for another person to see the same, and for an operator where they differ.",
            )
            .refuses(reviews::REFUSALS),
        post("/v1/chain/events", "For the watcher of the chain", chain::events::post)
            .description("Blocks as they are adopted and undone, signed: HMAC-SHA256 over time and body.")
            .refuses(chain::events::REFUSALS),
        get("/openapi.json", "This document", openapi),
        get("/livez", "Whether every loop makes progress or idles", ops::livez).uncounted(),
        get("/readyz", "Whether the role may take work", ops::readyz).uncounted(),
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
