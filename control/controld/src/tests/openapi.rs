//! The API's document is checked in: a change of it is seen in review.

use super::harness::Site;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

#[test]
fn the_document_is_the_one_checked_in() {
    let (_, document) = crate::http::routes::routes();
    let mut text = serde_json::to_string_pretty(&document).expect("json");
    text.push('\n');
    // `BOOTSTORM_BLESS=1` writes the document instead.
    if std::env::var_os("BOOTSTORM_BLESS").is_some() {
        std::fs::write(GOLDEN, &text).expect("written");
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    assert!(
        text == golden,
        "the API's document has changed: look at it, then `BOOTSTORM_BLESS=1 cargo test -p bootstorm-controld openapi`"
    );
    assert!(text.contains(r#""openapi": "3.1.0""#));
}

#[test]
fn every_route_of_the_contract_is_described() {
    let (_, document) = crate::http::routes::routes();
    let paths: Vec<&String> = document.paths.paths.keys().collect();
    for path in [
        "/status",
        "/machines",
        "/machines/{machine}",
        "/machines/{machine}/commission",
        "/machines/allocate",
        "/machines/{machine}/deploy",
        "/machines/{machine}/release",
        "/machines/{machine}/abort",
        "/machines/{machine}/lock",
        "/machines/{machine}/unlock",
        "/machines/{machine}/mark-broken",
        "/machines/{machine}/mark-fixed",
        "/machines/{machine}/power",
        "/machines/{machine}/explain",
        "/operations",
        "/operations/{operation}",
        "/operations/{operation}/cancel",
        "/events",
        "/images",
        "/images/{image}",
        "/boot-environments",
        "/fabrics",
        "/vlans",
        "/subnets",
        "/ranges",
        "/apply",
        "/racks",
    ] {
        assert!(paths.contains(&&format!("/api/v1{path}")), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t19_everything_but_three_paths_needs_a_token() {
    let site = Site::start().await;
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    for open in ["/healthz", "/metrics", "/openapi.json"] {
        let response = client.get(format!("{}{open}", site.base)).send().await.expect("answer");
        assert_eq!(response.status().as_u16(), 200, "{open}");
    }
    let (_, document) = crate::http::routes::routes();
    for (path, item) in &document.paths.paths {
        let path = path.replace("{machine}", "x").replace("{operation}", "x").replace("{image}", "x");
        let methods = [
            ("GET", item.get.is_some()),
            ("POST", item.post.is_some()),
            ("PATCH", item.patch.is_some()),
            ("DELETE", item.delete.is_some()),
        ];
        for (method, _) in methods.iter().filter(|(_, there)| *there) {
            for token in [None, Some("wrong"), Some("")] {
                let mut request = client.request(method.parse().expect("method"), format!("{}{path}", site.base));
                if let Some(token) = token {
                    request = request.bearer_auth(token);
                }
                let response = request.send().await.expect("answer");
                assert_eq!(response.status().as_u16(), 401, "{method} {path} {token:?}");
            }
        }
    }
    // A token that may only read.
    let hash = *blake3::hash(b"reader").as_bytes();
    let (created, scope) = (crate::control::now(), bootstorm_store::TokenScope::Read);
    let token = bootstorm_store::Token { name: "reader".into(), hash, scope, created, expires: None };
    site.control.store.create_token(&token).await.expect("stored");
    let url = format!("{}/api/v1/machines", site.base);
    assert_eq!(client.get(&url).bearer_auth("reader").send().await.expect("answer").status().as_u16(), 200);
    assert_eq!(client.post(&url).bearer_auth("reader").send().await.expect("answer").status().as_u16(), 403);
    let metrics =
        client.get(format!("{}/metrics", site.base)).send().await.expect("answer").text().await.expect("text");
    assert!(metrics.contains("bootstorm_api_requests_total"), "{metrics}");
    site.stop().await;
}
