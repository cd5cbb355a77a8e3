//! The pages, as a browser gets them.

use crate::support::{Bench, Response};

async fn ask(bench: &Bench, method: &str, path: &str, headers: &str) -> Response {
    bench.send(&format!("{method} {path} HTTP/1.1{headers}"), b"").await
}

/// The value of a header.
fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
}

/// Paths of all that the two pages are made of: the pages, and what they name.
async fn paths(bench: &Bench) -> Vec<String> {
    let mut paths = vec!["/".to_owned(), "/review".to_owned()];
    for page in ["/", "/review"] {
        let html = ask(bench, "GET", page, "").await.body;
        let named = html.split('"').filter(|text| text.starts_with("/pages/"));
        paths.extend(named.map(str::to_owned));
    }
    assert!(paths.len() > 6, "{paths:?}");
    paths
}

#[tokio::test]
async fn every_file_of_the_pages_is_the_gateways_own_and_may_ask_nobody_else() {
    let bench = Bench::start().await;
    for path in paths(&bench).await {
        let response = ask(&bench, "GET", &path, "").await;
        assert_eq!(response.status, 200, "{path}");
        let policy = header(&response, "content-security-policy").unwrap();
        for needed in
            ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(needed), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"));
        assert_eq!(header(&response, "referrer-policy"), Some("no-referrer"));
        assert_eq!(header(&response, "content-encoding"), None);
        let length = response.bytes.len().to_string();
        assert_eq!(header(&response, "content-length"), Some(length.as_str()));
    }
}

#[tokio::test]
async fn a_page_is_asked_for_anew_each_time_and_what_it_names_is_kept_for_ever() {
    let bench = Bench::start().await;
    for path in paths(&bench).await {
        let first = ask(&bench, "GET", &path, "").await;
        let expected = match path.strip_prefix("/pages/") {
            Some(_) => "public, max-age=31536000, immutable",
            None => "no-cache",
        };
        assert_eq!(header(&first, "cache-control"), Some(expected), "{path}");
        let tag = header(&first, "etag").unwrap();
        let again = ask(&bench, "GET", &path, &format!("\r\nif-none-match: \"other\", {tag}")).await;
        assert_eq!((again.status, again.bytes.len()), (304, 0));
        assert_eq!(header(&again, "etag"), Some(tag));
        assert!(header(&again, "content-security-policy").is_some());
        assert_eq!(ask(&bench, "GET", &path, "\r\nif-none-match: \"other\"").await.status, 200);
        let head = ask(&bench, "HEAD", &path, "").await;
        assert_eq!((head.status, head.bytes.len()), (200, 0));
        assert_eq!(header(&head, "content-length"), header(&first, "content-length"));
        assert_eq!(ask(&bench, "POST", &path, "\r\ncontent-length: 0").await.status, 405);
    }
    let other = ask(&bench, "GET", "/pages/0000000000000000/base.css", "").await;
    assert_eq!(
        (other.status, header(&other, "cache-control")),
        (200, Some("no-cache")),
        "of another release"
    );
    ask(&bench, "GET", "/pages/0000000000000000/none.css", "").await.assert_problem(404, "file_not_found");
    for none in ["/pages/0000000000000000/../base.css", "/pages/base.css"] {
        ask(&bench, "GET", none, "").await.assert_problem(404, "not_found");
    }
}

#[tokio::test]
async fn files_of_the_pages_are_compressed_for_those_who_take_it_and_each_form_has_its_tag() {
    let bench = Bench::start().await;
    for path in paths(&bench).await {
        let plain = ask(&bench, "GET", &path, "").await;
        let zipped = ask(&bench, "GET", &path, "\r\naccept-encoding: br, gzip").await;
        assert_eq!(header(&zipped, "content-encoding"), Some("gzip"), "{path}");
        assert!(zipped.bytes.starts_with(&[0x1f, 0x8b]) && zipped.bytes.len() < plain.bytes.len(), "{path}");
        for form in [&plain, &zipped] {
            assert_eq!(header(form, "vary"), Some("accept-encoding"));
        }
        let tag = header(&plain, "etag").unwrap();
        assert_ne!(header(&zipped, "etag"), Some(tag));
        let asked = format!("\r\naccept-encoding: gzip\r\nif-none-match: {tag}");
        assert_eq!(ask(&bench, "GET", &path, &asked).await.status, 200);
    }
}
