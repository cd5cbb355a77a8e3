//! `GET /v1/about`: what a page must know before anybody has signed in.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::config::GatewayConfig;
use crate::http::problem::ApiError;
use crate::http::reply::Json;
use crate::http::request::Dependency;
use crate::login::SignIn;

/// What holds here for everybody
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct About {
    /// The network whose wallets sign in and are paid; null where none is configured
    network: Option<AboutNetwork>,
    /// Bytes of a photo at most
    photo_bytes: u64,
    /// Whether a photo may name only a vehicle that was added before
    vehicles_must_be_registered: bool,
    /// Wallets that the gateway signs for; none but on a developer's machine
    development_wallets: Vec<AboutWallet>,
}

/// A network
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AboutNetwork {
    /// Its genesis block, which wallets know it by
    #[schema(pattern = "^0x[0-9a-f]{64}$")]
    genesis_id: String,
    /// mainnet or testnet
    name: &'static str,
}

/// A wallet on a developer's machine
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AboutWallet {
    name: String,
    address: String,
}

/// The route.
pub(crate) async fn show(
    Dependency(config): Dependency<Arc<GatewayConfig>>,
    Dependency(sign_in): Dependency<Arc<SignIn>>,
) -> Result<Json<About>, ApiError> {
    let network = |network: &crate::login::Network| AboutNetwork {
        genesis_id: network.genesis_id.clone(),
        name: network.label,
    };
    let wallets = sign_in.development_wallets.iter();
    Ok(Json(About {
        network: sign_in.network.as_ref().map(network),
        photo_bytes: config.limits.photo_bytes,
        vehicles_must_be_registered: config.vehicles_must_be_registered,
        development_wallets: wallets
            .map(|wallet| AboutWallet { name: wallet.name.clone(), address: wallet.address().to_string() })
            .collect(),
    }))
}
