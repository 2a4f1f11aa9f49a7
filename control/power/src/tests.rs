use super::*;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A machine behind a web server on loopback: remembers requests, answers from `state`.
struct Fake {
    origin: Origin,
    base: String,
    seen: Arc<Mutex<Vec<String>>>,
}

async fn fake(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Fake {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listener");
    let base = format!("http://{}", listener.local_addr().expect("address"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let head = String::from_utf8_lossy(&head).to_string();
            let reply = answer(head.lines().next().unwrap_or_default());
            requests.lock().expect("lock").push(head);
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    Fake { origin: base.parse().expect("origin"), base, seen }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn status(code: u16) -> String {
    format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn parameters(base: &str) -> Parameters {
    let mut parameters = Parameters::new();
    for verb in ["on", "off", "query"] {
        parameters.insert(format!("power_{verb}_uri"), format!("{base}/{verb}"));
    }
    parameters
}

/// A machine that needs two questions until it has done what it was told.
async fn slow_machine() -> Fake {
    let state = Mutex::new((false, false, 0u32));
    fake(move |line| {
        let mut state = state.lock().expect("lock");
        match line.split(' ').nth(1) {
            Some("/on") => (state.1, state.2) = (true, 2),
            Some("/off") => (state.1, state.2) = (false, 2),
            _ => {
                state.2 = state.2.saturating_sub(1);
                if state.2 == 0 {
                    state.0 = state.1;
                }
                return ok(if state.0 { r#"{"status": "running"}"# } else { r#"{"status": "stopped"}"# });
            }
        }
        ok("")
    })
    .await
}

#[tokio::test]
async fn commands_are_verified_by_queries() {
    let fake = slow_machine().await;
    let fetcher = Fetcher::new([fake.origin.clone()]);
    let driver = driver("webhook", &parameters(&fake.base), &fetcher).expect("driver");
    let time = Duration::from_secs(20);
    assert_eq!(perform(&*driver, Command::Query, time).await, Ok(PowerState::Off));
    assert_eq!(perform(&*driver, Command::On, time).await, Ok(PowerState::On));
    assert_eq!(perform(&*driver, Command::Cycle, time).await, Ok(PowerState::On));
    assert_eq!(perform(&*driver, Command::Off, time).await, Ok(PowerState::Off));
    let seen = fake.seen.lock().expect("lock");
    let posts: Vec<&str> =
        seen.iter().filter(|head| head.starts_with("POST")).filter_map(|head| head.split(' ').nth(1)).collect();
    assert_eq!(posts, ["/on", "/off", "/on", "/off"]);
}

#[tokio::test]
async fn credentials_travel_in_headers() {
    let fake = fake(|_| ok("status: running")).await;
    let fetcher = Fetcher::new([fake.origin.clone()]);
    for (extra, expected) in [
        (vec![("power_user", "u"), ("power_pass", "p")], "Basic dTpw"),
        (vec![("power_user", "u"), ("power_pass", "p"), ("power_token", "t")], "Bearer t"),
    ] {
        let mut parameters = parameters(&fake.base);
        parameters.extend(extra.into_iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let driver = driver("webhook", &parameters, &fetcher).expect("driver");
        assert_eq!(driver.query().await, Ok(PowerState::On));
        let head = fake.seen.lock().expect("lock").pop().expect("a request");
        assert!(head.contains(&format!("authorization: {expected}\r\n")), "{head}");
    }
}

#[tokio::test]
async fn t11_addresses_are_checked_on_every_hop() {
    let inner = fake(|_| ok("status: running")).await;
    let target = inner.base.clone();
    let outer = fake(move |_| {
        format!("HTTP/1.1 302 X\r\nLocation: {target}/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    })
    .await;
    let refused = driver("webhook", &parameters(&outer.base), &Fetcher::default()).expect("driver");
    assert!(matches!(refused.query().await, Err(PowerError::Fetch(fetch::FetchError::Forbidden { .. }))));
    assert!(outer.seen.lock().expect("lock").is_empty());

    let half = Fetcher::new([outer.origin.clone()]);
    let mut with_token = parameters(&outer.base);
    with_token.insert("power_token".into(), "secret".into());
    let driver_half = driver("webhook", &with_token, &half).expect("driver");
    assert!(matches!(driver_half.query().await, Err(PowerError::Fetch(fetch::FetchError::Forbidden { .. }))));
    assert!(inner.seen.lock().expect("lock").is_empty());

    let both = Fetcher::new([outer.origin.clone(), inner.origin.clone()]);
    let driver_both = driver("webhook", &with_token, &both).expect("driver");
    assert_eq!(driver_both.query().await, Ok(PowerState::On));
    assert!(!inner.seen.lock().expect("lock").concat().contains("secret"), "credentials stay with their origin");
    assert!(driver_both.on().await.is_err(), "a POST is not turned into a GET");
}

#[test]
fn t11_which_addresses_are_forbidden() {
    for bad in [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
    ] {
        assert!(fetch::forbidden(bad.parse().expect("address")).is_some(), "{bad}");
    }
    for good in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "2001:db8::1", "fd00::1"] {
        assert!(fetch::forbidden(good.parse().expect("address")).is_none(), "{good}");
    }
}

#[tokio::test]
async fn failures_have_codes_and_know_whether_to_try_again() {
    let answers = Mutex::new(vec![status(500), status(404), ok("what?"), ok(&"x".repeat(limits::REPLY_BYTES_MAX + 1))]);
    let fake = fake(move |_| answers.lock().expect("lock").remove(0)).await;
    let driver = driver("webhook", &parameters(&fake.base), &Fetcher::new([fake.origin.clone()])).expect("driver");
    for (code, retryable) in [
        ("webhook-status-500", true),
        ("webhook-status-404", false),
        ("unclear-answer", true),
        ("reply-too-long", false),
    ] {
        let error = driver.query().await.expect_err("a failure");
        assert_eq!((error.code().as_str(), error.is_retryable()), (code, retryable));
    }
}

#[test]
fn t10_bad_parameters_are_refused_before_anything_is_sent() {
    let good = parameters("http://10.0.0.1");
    assert_eq!(check("webhook", &good), Ok(()));
    assert_eq!(check("manual", &Parameters::new()), Ok(()));
    let cases = [
        ("power_on_uri", "file:///etc/passwd"),
        ("power_on_uri", "http://user:pass@10.0.0.1/"),
        ("power_on_uri", "not a url"),
        ("power_query_uri", "gopher://x"),
        ("power_on_regex", "("),
        ("power_verify_ssl", "maybe"),
        ("power_adress", "x"),
    ];
    for (name, value) in cases {
        let mut bad = good.clone();
        bad.insert(name.to_string(), value.to_string());
        assert_eq!(
            check("webhook", &bad).map_err(|error| error.code()),
            Err("bad-parameters".to_string()),
            "{name}={value}"
        );
    }
    let mut missing = good;
    missing.remove("power_query_uri");
    assert!(check("webhook", &missing).is_err());
    assert!(check("manual", &parameters("http://10.0.0.1")).is_err());
    assert!(check("ipmi", &Parameters::new()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_never_comes_on_times_out() {
    struct Dead;
    impl PowerDriver for Dead {
        fn on(&self) -> Answer<'_, ()> {
            Box::pin(std::future::ready(Ok(())))
        }
        fn off(&self) -> Answer<'_, ()> {
            Box::pin(std::future::ready(Ok(())))
        }
        fn query(&self) -> Answer<'_, PowerState> {
            Box::pin(std::future::ready(Ok(PowerState::Off)))
        }
        fn can_query(&self) -> bool {
            true
        }
    }
    let error = perform(&Dead, Command::On, Duration::from_secs(60)).await.expect_err("it is dead");
    assert!(matches!(error, PowerError::TimedOut { wanted: "on", seconds: 50..=60, .. }), "{error}");
}
