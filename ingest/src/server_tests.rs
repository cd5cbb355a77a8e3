//! The accept loop over real sockets, without a database: what it does before any account is looked up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::clock::SystemClock;
use runtime::health::Health;
use runtime::testing::MemoryOutbound;
use sqlx::postgres::PgPoolOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{ForwardedBy, Proxies, Rate};
use crate::{
    Dependencies, Gateway, GatewayConfig, HeaderCheck, KeySet, PhotoStore, SchemaIds, SigningKey,
    TokenSigner, serve,
};

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
    outbound: Arc<MemoryOutbound>,
    health: Health,
    _folder: tempfile::TempDir,
}

async fn start(change: impl FnOnce(&mut GatewayConfig)) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path()).unwrap();
    let (outbound, health) = (Arc::new(MemoryOutbound::default()), Health::default());
    let mut config = GatewayConfig::new("http://gateway.test");
    config.timeouts.header = Duration::from_millis(200);
    config.timeouts.keep_alive = Duration::from_millis(200);
    change(&mut config);
    let dependencies = Dependencies {
        // Nothing listens there: a test that needs the database shows as 503.
        pool: PgPoolOptions::new()
            .acquire_timeout(Duration::from_millis(200))
            .connect_lazy("postgres://nobody@127.0.0.1:1/none")
            .unwrap(),
        outbound: outbound.clone(),
        photos: PhotoStore::open(url.as_str(), false, []).unwrap(),
        check: Arc::new(HeaderCheck),
        keys: KeySet::from_jwks(&SigningKey::generate().unwrap().jwks()).unwrap(),
        signer: TokenSigner::default(),
        clock: Arc::new(SystemClock),
        metrics: crate::metrics::GatewayMetrics::new().unwrap(),
        health: health.clone(),
        schemas: SchemaIds {
            upload_received: 1,
            activity_logged: 2,
            account_changed: 3,
            reward_claimed: 4,
            block_adopted: 5,
            block_undone: 6,
            odometer_read: 7,
        },
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let served = tokio::spawn(serve(listener, Gateway::new(config, dependencies), stop.clone()));
    Running { address, stop, served, outbound, health, _folder: folder }
}

async fn exchange(address: SocketAddr, bytes: &str) -> (String, Duration) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    (String::from_utf8(response).unwrap(), begun.elapsed())
}

#[tokio::test]
async fn a_head_that_does_not_end_gets_status_408_in_time() {
    let running = start(|_| {}).await;
    let (response, took) = exchange(running.address, "GET /livez HTTP/1.1\r\nx-slow: ").await;
    assert!(
        response.starts_with("HTTP/1.1 408") && response.contains("\"code\":\"header_timeout\""),
        "{response}"
    );
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_as_well() {
    let running = start(|_| {}).await;
    let begun = Instant::now();
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let drip = tokio::spawn(async move {
        let _ = writer.write_all(b"GET /livez HTTP/1.1\r\nx: ").await;
        while writer.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut response = Vec::new();
    let _ = reader.read_to_end(&mut response).await;
    assert!(String::from_utf8_lossy(&response).contains("header_timeout"));
    assert!(begun.elapsed() < Duration::from_secs(2));
    drip.abort();
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let running = start(|_| {}).await;
    let (response, took) = exchange(running.address, "").await;
    assert_eq!(response, "");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (response, took) = exchange(running.address, "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(
        response.starts_with("HTTP/1.1 200") && response.ends_with("ok"),
        "kept alive, then closed: {response}"
    );
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_connection_waits_for_its_next_request_for_longer_than_a_head_may_take() {
    let running = start(|config| config.timeouts.keep_alive = Duration::from_secs(30)).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let mut ask = async |pause: Duration| {
        tokio::time::sleep(pause).await;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut response = vec![0; 1024];
        let count = stream.read(&mut response).await.unwrap();
        String::from_utf8_lossy(&response[..count]).into_owned()
    };
    // Three times the life of a head between two requests of one connection.
    for pause in [0, 600, 600] {
        let response = ask(Duration::from_millis(pause)).await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response:?}");
    }
    let begun = Instant::now();
    stream.write_all(b"GET /livez HTTP/1.1\r\nx-slow: ").await.unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    assert!(String::from_utf8_lossy(&response).contains("header_timeout"), "a later head is timed as well");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn pages_of_configured_origins_may_read_responses_and_no_others() {
    let running = start(|config| config.cors_origins = vec!["https://app.example".to_owned()]).await;
    let ask = async |line: &str, headers: &str| {
        let request = format!("{line} HTTP/1.1\r\nhost: a\r\n{headers}connection: close\r\n\r\n");
        exchange(running.address, &request).await.0.to_ascii_lowercase()
    };
    let ours = "origin: https://app.example\r\n";
    let read = ask("GET /v1/uploads", ours).await;
    assert!(read.starts_with("http/1.1 401"), "{read}");
    for header in ["access-control-allow-origin: https://app.example", "vary: origin", "retry-after"] {
        assert!(read.contains(header), "{header}: {read}");
    }
    let before = ask("OPTIONS /v1/uploads", &format!("{ours}access-control-request-method: POST\r\n")).await;
    assert!(before.contains("access-control-allow-methods: get, head, options, post"), "{before}");
    assert!(before.contains("access-control-allow-headers: authorization, "), "{before}");
    let other = ask("GET /v1/uploads", "origin: https://app.example.evil\r\n").await;
    assert!(other.contains("vary: origin") && !other.contains("access-control"), "{other}");
    let none = start(|_| {}).await;
    let (response, _) = exchange(
        none.address,
        "GET /livez HTTP/1.1\r\nhost: a\r\norigin: https://app.example\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(!response.contains("access-control"), "{response}");
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_rates_of_their_own() {
    let running = start(|config| {
        config.trusted_proxies = Proxies::parse(&["127.0.0.0/8".to_owned()], ForwardedBy::default()).unwrap();
        config.rates.api_per_address = Rate::new(1, Duration::from_secs(60));
    })
    .await;
    let ask = async |client: &str| {
        let request = format!(
            "GET /v1/uploads HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {client}\r\nconnection: close\r\n\r\n"
        );
        exchange(running.address, &request).await.0[9..12].to_owned()
    };
    assert_eq!(ask("203.0.113.1").await, "401");
    assert_eq!(ask("203.0.113.2").await, "401");
    assert_eq!(ask("203.0.113.1").await, "429");
    assert_eq!(ask("198.51.100.1, 203.0.113.2").await, "429", "what the client wrote is not believed");
}

/// Sends bytes and reads to the end.
async fn sent(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // One that is closed with bytes of ours unread is reset.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn clients_behind_a_balancer_of_tcp_have_rates_of_their_own_by_either_version_of_the_proxy_protocol() {
    let running = start(|config| {
        config.trusted_proxies = Proxies::parse(&["127.0.0.0/8".to_owned()], ForwardedBy::default()).unwrap();
        config.proxy_protocol = true;
        config.rates.api_per_address = Rate::new(1, Duration::from_secs(60));
    })
    .await;
    let request =
        b"GET /v1/uploads HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 198.51.100.9\r\nconnection: close\r\n\r\n";
    let ask = async |header: &[u8]| {
        let answer = sent(running.address, &[header, request].concat()).await;
        answer.get(9..12).unwrap_or("closed").to_owned()
    };
    let first = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 50000 80\r\n").into_bytes();
    let second = |last: u8| {
        let addresses = [203, 0, 113, last, 127, 0, 0, 1, 0xc3, 0x50, 0, 80];
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".as_slice(), &addresses].concat()
    };
    assert_eq!(ask(&first("203.0.113.1")).await, "401");
    assert_eq!(ask(&second(2)).await, "401");
    assert_eq!(
        ask(&second(1)).await,
        "429",
        "the address of the first, whatever the client wrote into a header"
    );
    assert_eq!(ask(b"").await, "closed");
    assert_eq!(ask(b"PROXY TCP4 nobody 127.0.0.1 50000 80\r\n").await, "closed");
    let slow = sent(running.address, b"PROXY TCP4 203.0").await;
    assert_eq!(slow, "", "it is closed once the time of a head is over");
}

#[tokio::test]
async fn a_peer_that_is_no_trusted_proxy_is_refused_where_connections_begin_with_a_proxy_header() {
    let running = start(|config| {
        config.trusted_proxies =
            Proxies::parse(&["192.0.2.0/24".to_owned()], ForwardedBy::default()).unwrap();
        config.proxy_protocol = true;
    })
    .await;
    let forged = b"PROXY TCP4 203.0.113.1 127.0.0.1 50000 80\r\nGET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    assert_eq!(sent(running.address, forged).await, "");
}

#[tokio::test]
async fn the_gateways_address_serves_no_metrics() {
    let running = start(|_| {}).await;
    let (response, _) =
        exchange(running.address, "GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 404"), "{response}");
}

#[tokio::test]
async fn unknown_routes_methods_and_missing_tokens_are_problem_documents() {
    let running = start(|_| {}).await;
    for (request, status, code) in [
        ("GET /nowhere", 404, "not_found"),
        ("PUT /v1/uploads", 405, "method_not_allowed"),
        ("GET /v1/uploads", 401, "token_missing"),
        ("GET /v1/uploads/x", 401, "token_missing"),
        ("GET /v1/uploads/x/events", 401, "token_missing"),
        ("POST /v1/uploads", 401, "token_missing"),
    ] {
        let request =
            format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let (response, _) = exchange(running.address, &request).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {response}");
        assert!(response.contains(&format!("\"code\":\"{code}\"")), "{request}: {response}");
        assert!(response.contains("application/problem+json"), "{response}");
        assert!(response.contains("\r\nx-request-id: "), "{response}");
    }
    let sent = running.outbound.sent();
    assert!(
        sent.iter().all(|record| record.topic.ends_with("activity.logs")),
        "how long it took, and nothing else: {sent:?}"
    );
}

#[tokio::test]
async fn every_route_responds_to_head_without_a_body_and_names_its_methods() {
    let running = start(|_| {}).await;
    let ask = async |line: &str| {
        let request = format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        exchange(running.address, &request).await.0.to_ascii_lowercase()
    };
    let head = ask("HEAD /livez").await;
    assert!(head.starts_with("http/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    for (line, status) in [("OPTIONS /v1/uploads", 204), ("PUT /v1/uploads/", 405)] {
        let response = ask(line).await;
        assert!(response.starts_with(&format!("http/1.1 {status}")), "{line}: {response}");
        assert!(response.contains("\r\nallow: get, head, options, post\r\n"), "{line}: {response}");
    }
    let other = ask("GET /v1%2Fuploads").await;
    assert!(other.starts_with("http/1.1 404"), "an encoded slash is part of a name: {other}");
}

#[tokio::test]
async fn an_address_beyond_its_rate_waits() {
    let running = start(|config| {
        config.rates.api_per_address.requests = 2;
        config.rates.api_per_address.burst = 2;
    })
    .await;
    let request = "GET /v1/uploads HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(exchange(running.address, request).await.0[9..12].to_owned());
    }
    assert_eq!(statuses, ["401", "401", "429"]);
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_a_place_and_are_served_then() {
    let running = start(|config| config.limits.connections = 1).await;
    let idle = TcpStream::connect(running.address).await.unwrap();
    let (response, took) =
        exchange(running.address, "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(took >= Duration::from_millis(150), "it waited until the idle one was cut: {took:?}");
    drop(idle);
}

#[tokio::test]
async fn a_stopping_gateway_takes_no_new_connection_and_ends_within_its_budget() {
    let running = start(|config| {
        config.timeouts.header = Duration::from_secs(60);
        config.timeouts.keep_alive = Duration::from_secs(60);
        config.timeouts.shutdown = Duration::from_millis(300);
    })
    .await;
    // A request that never ends.
    let mut open = TcpStream::connect(running.address).await.unwrap();
    open.write_all(b"GET /livez HTTP/1.1\r\nx: ").await.unwrap();
    let (response, _) =
        exchange(running.address, "GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    running.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), running.served).await.unwrap().unwrap();
    assert!(!running.health.is_ready());
    assert!(TcpStream::connect(running.address).await.is_err());
}
