//! Faults that a real node cannot be made to show: a small server that sends one canned response to each connection. How a real
//! node responds is tested against one, in `tests/solo.rs`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;

/// What the fake does after it has read a request's head.
enum Fault {
    /// Writes the bytes and closes.
    Response(Vec<u8>),
    /// Sends nothing for as long as the client waits.
    Silence,
    /// Sends a body without end.
    Flood,
}

fn http(status: &str, content_type: &str, body: &str) -> Fault {
    let length = body.len();
    Fault::Response(
        format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
            .into_bytes(),
    )
}

fn json_response(body: &str) -> Fault {
    http("200 OK", "application/json; charset=utf-8", body)
}

fn act(fault: Fault, mut stream: std::net::TcpStream) {
    let mut head = [0; 4096];
    let _ = stream.read(&mut head);
    match fault {
        Fault::Response(bytes) => {
            let _ = stream.write_all(&bytes);
        }
        Fault::Silence => {
            // Returns when the client gives up and closes.
            let _ = stream.read(&mut head);
        }
        Fault::Flood => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[");
            while stream.write_all(&[b' '; 4096]).is_ok() {}
        }
    }
}

const LIMITS: Limits =
    Limits { connect: Duration::from_secs(2), call: Duration::from_millis(300), body: 64 * 1024 };

/// Starts the fake for one connection and gives a client of it.
fn faulty(fault: Fault) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        act(fault, stream);
    });
    Node::new(&format!("http://{address}"), None, LIMITS).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn genesis_of(fault: Fault) -> NodeError {
    run(faulty(fault).genesis()).unwrap_err()
}

#[test]
fn a_page_instead_of_json_is_reported_with_its_status_and_beginning() {
    let error = genesis_of(http("200 OK", "text/html", "<html><body>Please log in</body></html>"));
    let snippet = Snippet::new("<html><body>Please log in</body></html>");
    assert_eq!(error, NodeError::NotJson { status: 200, snippet });
    assert!(error.is_transient());
}

#[test]
fn a_redirect_is_not_followed() {
    let response = b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".to_vec();
    assert!(matches!(genesis_of(Fault::Response(response)), NodeError::NotJson { status: 302, .. }));
}

#[test]
fn an_empty_or_cut_json_body_is_no_json() {
    for body in ["", "{\"number\":0,\"id\":\"0x00"] {
        assert!(matches!(genesis_of(json_response(body)), NodeError::NotJson { status: 200, .. }), "{body}");
    }
}

#[test]
fn a_connection_lost_within_the_body_is_unavailability() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"number\":".to_vec();
    assert!(matches!(genesis_of(Fault::Response(cut)), NodeError::Unavailable(_)));
    assert!(matches!(genesis_of(Fault::Response(b"".to_vec())), NodeError::Unavailable(_)));
    assert!(matches!(
        genesis_of(Fault::Response(b"\x16\x03\x01garbage".to_vec())),
        NodeError::Unavailable(_)
    ));
}

#[test]
fn an_endless_body_is_refused_at_the_limit() {
    assert_eq!(genesis_of(Fault::Flood), NodeError::TooLarge { limit: LIMITS.body });
}

#[test]
fn a_silent_node_is_given_up_after_the_time_limit() {
    let begun = Instant::now();
    assert!(matches!(genesis_of(Fault::Silence), NodeError::Unavailable(_)));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_refused_connection_is_unavailability() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let node = Node::new(&format!("http://{address}"), None, LIMITS).unwrap();
    assert!(matches!(run(node.genesis()), Err(NodeError::Unavailable(_))));
}

#[test]
fn json_of_another_shape_is_unexpected_and_says_what_is_missing() {
    for body in ["[]", "{}", "\"x\"", "{\"number\":\"0\"}", "null"] {
        let error = genesis_of(json_response(body));
        assert!(matches!(error, NodeError::Unexpected(_)), "{body}: {error}");
    }
    let error = run(faulty(json_response("{\"maxPriorityFeePerGas\":\"0xzz\"}")).priority_fee()).unwrap_err();
    assert!(matches!(error, NodeError::Unexpected(_)), "{error}");
}

#[test]
fn a_response_about_another_transaction_or_block_is_not_believed() {
    let block = |number: u32, id: BlockId| {
        json!({ "number": number, "id": id, "parentID": id, "timestamp": 0, "gasLimit": 0, "gasUsed": 0,
                "isTrunk": true, "isFinalized": true, "transactions": [] })
        .to_string()
    };
    let other = BlockId([1; 32]);
    let asked =
        run(faulty(json_response(&block(other.number(), other))).block(Revision::Id(BlockId([2; 32]))));
    assert!(matches!(asked, Err(NodeError::Unexpected(_))));
    let liar = run(faulty(json_response(&block(7, other))).block(Revision::Best));
    assert!(matches!(liar, Err(NodeError::Unexpected(_))), "the id says another number than the field");

    let receipt = json!({ "gasUsed": 1, "gasPayer": Address::default(), "paid": "0x1", "reward": "0x1", "reverted": false,
        "meta": { "blockID": other, "blockNumber": 1, "blockTimestamp": 1, "txID": TxId([3; 32]), "txOrigin": Address::default() },
        "outputs": [] });
    let asked = run(faulty(json_response(&receipt.to_string())).receipt(TxId([4; 32]), None));
    assert!(matches!(asked, Err(NodeError::Unexpected(_))));
}

#[test]
fn a_simulation_with_too_few_or_too_many_outcomes_is_not_believed() {
    let outcome = |reverted: bool| {
        json!({ "data": "0x", "events": [], "transfers": [], "gasUsed": 1, "reverted": reverted,
                "vmError": if reverted { "execution reverted" } else { "" } })
    };
    let clauses = [Clause::call(Address([1; 20]), vec![]), Clause::call(Address([2; 20]), vec![])];
    let try_out = |outcomes: serde_json::Value| {
        let simulation = Simulation {
            clauses: &clauses,
            caller: Address::default(),
            gas_payer: None,
            gas: None,
            at: Revision::Next,
        };
        run(faulty(json_response(&outcomes.to_string())).simulate(&simulation))
    };
    let ok = outcome(false);
    let failed = outcome(true);
    assert!(matches!(try_out(json!([ok])), Err(NodeError::Unexpected(_))));
    assert!(matches!(try_out(json!([ok, ok, ok])), Err(NodeError::Unexpected(_))));
    assert_eq!(failing_clause(&try_out(json!([ok, ok])).unwrap()), None);
    assert_eq!(
        failing_clause(&try_out(json!([failed])).unwrap()),
        Some((0, Refusal::decode(&[], "execution reverted")))
    );
}

#[test]
fn a_refusal_in_plain_text_is_typed() {
    let response = http("403 Forbidden", "text/plain; charset=utf-8", "tx rejected: known tx\n");
    assert_eq!(run(faulty(response).send(&[1])), Err(NodeError::Rejected(Rejection::Known)));
}

#[test]
fn a_response_of_another_network_is_refused_even_when_the_node_did_not_look_at_our_header() {
    let response = |genesis: BlockId| {
        let body = "{\"maxPriorityFeePerGas\":\"0x1\"}";
        let head =
            format!("HTTP/1.1 200 OK\r\nx-genesis-id: {genesis}\r\ncontent-length: {}\r\n\r\n", body.len());
        Fault::Response([head.as_bytes(), body.as_bytes()].concat())
    };
    let ours = BlockId([1; 32]);
    let on = |genesis| Node { genesis: Some(ours), ..faulty(response(genesis)) };
    assert_eq!(run(on(ours).priority_fee()), Ok(Wei::from(1)));
    assert_eq!(run(on(BlockId([2; 32])).priority_fee()), Err(NodeError::WrongNetwork));
    assert_eq!(
        run(faulty(response(ours)).priority_fee()),
        Ok(Wei::from(1)),
        "any network when none is named"
    );
}

#[test]
fn an_address_that_is_no_http_address_is_refused_and_a_password_in_it_is_never_shown() {
    for address in ["", "127.0.0.1:8669", "ftp://x", "mailto:x@y", "http://"] {
        assert!(matches!(Node::new(address, None, LIMITS), Err(NodeError::Config(_))), "{address}");
    }
    let node = Node::new("http://user:sesame@127.0.0.1:1", None, LIMITS).unwrap();
    assert!(!run(node.genesis()).unwrap_err().to_string().contains("sesame"));
    assert!(!format!("{node:?}").contains("sesame"));
}

#[test]
fn plain_http_is_taken_within_a_private_network_and_refused_beyond_it() {
    for private in [
        "http://localhost:8669",
        "http://thor:8669",
        "http://thor.chain.svc:8669",
        "http://127.0.0.1",
        "http://10.1.2.3",
        "http://192.168.0.7",
        "http://100.64.0.1",
        "http://[::1]:8669",
        "http://[fd00::1]",
        "https://mainnet.vechain.org",
    ] {
        assert!(Node::new(private, None, LIMITS).is_ok(), "{private}");
    }
    for public in
        ["http://mainnet.vechain.org", "http://8.8.8.8:8669", "http://[2001:db8::1]", "http://100.128.0.1"]
    {
        assert!(matches!(Node::new(public, None, LIMITS), Err(NodeError::Config(_))), "{public}");
    }
}

#[test]
fn each_request_is_told_of_without_what_the_address_keeps_secret() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for body in ["{}", "{\"id\":\"0x00\"}"] {
            act(json_response(body), listener.accept().unwrap().0);
        }
    });
    let seen = told.clone();
    let node =
        Node::new(&format!("http://user:hunter2@{address}/hunter2/?key=hunter2"), None, LIMITS).unwrap();
    let node = node.observed(Arc::new(move |asked: &Asked<'_>| {
        let error = asked.error.map(ToString::to_string);
        seen.lock().unwrap().push(format!(
            "{} {} {} {:?} {} {} {error:?}",
            asked.service, asked.method, asked.path, asked.status, asked.received, asked.changes
        ));
    }));
    run(async {
        node.priority_fee().await.unwrap_err();
        node.send(&[1]).await.unwrap_err();
        node.priority_fee().await.unwrap_err();
    });
    let told = told.lock().unwrap();
    assert!(
        told[0].starts_with(&format!("http://{address} GET fees/priority Some(200) 2 false Some(")),
        "{told:?}"
    );
    assert!(
        told[1].starts_with(&format!("http://{address} POST transactions Some(200) 13 true Some(")),
        "{told:?}"
    );
    assert!(
        told[2].starts_with(&format!("http://{address} GET fees/priority None 0 false Some(")),
        "{told:?}"
    );
    assert!(!told.concat().contains("hunter2"), "{told:?}");
}
