//! Serving a gateway.

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use crate::http::cors::Cors;
use crate::http::router::Router;
use crate::http::server::Server;
use crate::routes::table;

/// Serves until `stop`, then lets open requests end within the shutdown budget. Runs the sweeper of reserved uploads beside
/// it: a gateway that takes uploads also sees to those that a crash left behind.
pub async fn serve(listener: TcpListener, gateway: Gateway, stop: CancellationToken) {
    let (timeouts, log) = (gateway.config.timeouts, gateway.log.clone());
    let router = Router::new(gateway.clone(), table(), timeouts, gateway.metrics.clone(), log);
    let server = Server {
        connections: gateway.config.limits.connections,
        timeouts,
        proxy_protocol: gateway.config.proxy_protocol.then(|| gateway.config.trusted_proxies.clone()),
        routes: router.filter(Cors::new(&gateway.config.cors_origins)),
        health: gateway.health.clone(),
    };
    // Before the first request: a gateway that is started in maintenance takes none of what is paused.
    gateway.live.look().await;
    let publisher = gateway.sweeper.publisher.clone();
    let beside = {
        let stop = stop.clone();
        async move {
            let streams = async {
                stop.cancelled().await;
                gateway.streams.stop.cancel();
            };
            tokio::join!(gateway.sweeper.run(stop.clone()), gateway.live.follow(&stop), streams);
        }
    };
    server.run(listener, beside, stop).await;
    // What is left unmarked is published once more by the next gateway.
    let _ = tokio::time::timeout(timeouts.drain, publisher.flush()).await;
}
