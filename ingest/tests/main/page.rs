//! `/review`: the reviewers' page, as a browser gets it.

use crate::support::{Bench, Response};

async fn ask(bench: &Bench, method: &str, path: &str, headers: &str) -> Response {
    bench.send(&format!("{method} {path} HTTP/1.1{headers}"), b"").await
}

/// The value of a header.
fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
}

const FILES: [(&str, &str); 3] = [
    ("/review", "text/html; charset=utf-8"),
    ("/review/review.css", "text/css; charset=utf-8"),
    ("/review/review.js", "text/javascript; charset=utf-8"),
];

#[tokio::test]
async fn every_file_of_the_page_is_the_gateways_own_and_may_ask_nobody_else() {
    let bench = Bench::start().await;
    for (path, kind) in FILES {
        let response = ask(&bench, "GET", path, "\r\naccept-encoding: gzip, br").await;
        assert_eq!((response.status, header(&response, "content-type")), (200, Some(kind)), "{path}");
        let policy = header(&response, "content-security-policy").unwrap();
        for needed in
            ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(needed), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"));
        assert_eq!(header(&response, "referrer-policy"), Some("no-referrer"));
        assert_eq!(header(&response, "content-encoding"), None, "files of a few kB go as they are");
        let length = response.bytes.len();
        assert_eq!(header(&response, "content-length"), Some(length.to_string().as_str()));
        assert!(length > 1_000, "{path}: {length} bytes");
    }
}

#[tokio::test]
async fn a_browser_asks_each_time_and_gets_a_file_again_only_where_it_has_changed() {
    let bench = Bench::start().await;
    for (path, _) in FILES {
        let first = ask(&bench, "GET", path, "").await;
        assert_eq!(header(&first, "cache-control"), Some("no-cache"));
        let tag = header(&first, "etag").unwrap();
        let again = ask(&bench, "GET", path, &format!("\r\nif-none-match: \"other\", {tag}")).await;
        assert_eq!((again.status, again.bytes.len()), (304, 0));
        assert_eq!(header(&again, "etag"), Some(tag));
        assert!(header(&again, "content-security-policy").is_some());
        assert_eq!(ask(&bench, "GET", path, "\r\nif-none-match: \"other\"").await.status, 200);
        let head = ask(&bench, "HEAD", path, "").await;
        assert_eq!((head.status, head.bytes.len()), (200, 0));
        assert_eq!(header(&head, "content-length"), header(&first, "content-length"));
        assert_eq!(ask(&bench, "POST", path, "\r\ncontent-length: 0").await.status, 405);
    }
}
