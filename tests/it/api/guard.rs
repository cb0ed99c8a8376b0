//! Who may ask.

use reqwest::Method;
use tokio::io::AsyncWriteExt;

use super::stage::{Stage, mail};

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_names_and_strangers_pages_are_refused() {
    let stage = Stage::new("hosts = [\"bell.example\"]").await;
    let get = |host: &str| {
        stage
            .request(Method::GET, "api/v1/status")
            .header("host", host)
    };
    assert_eq!(status(get("bell.example")).await, 200);
    assert_eq!(status(get("alerts.example.com")).await, 200);
    assert_eq!(status(get("192.0.2.1:80")).await, 200);
    assert_eq!(status(get("evil.example")).await, 421);
    let probe = stage
        .request(Method::GET, "readyz")
        .header("host", "pod.example");
    assert_eq!(status(probe).await, 200);

    let post = || stage.request(Method::POST, "api/v1/dead-letters/retry");
    assert_eq!(status(post()).await, 200);
    assert_eq!(
        status(post().header("sec-fetch-site", "same-origin")).await,
        200
    );
    assert_eq!(
        status(post().header("sec-fetch-site", "cross-site")).await,
        403
    );
    assert_eq!(
        status(post().header("origin", "http://evil.example")).await,
        403
    );
    let own = format!("http://{}", stage.gateway.http);
    assert_eq!(status(post().header("origin", own)).await, 200);
    let form = stage.request(Method::POST, "api/v1/rules/desk/try");
    let form = form.header("content-type", "text/plain").body("{}");
    assert_eq!(
        status(form).await,
        415,
        "a form of another site could send this"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_the_probes_needs_the_password() {
    let hash: argon2::password_hash::phc::PasswordHash =
        argon2::password_hash::PasswordHasher::hash_password_with_salt(
            &argon2::Argon2::default(),
            b"open sesame",
            b"saltsaltsalt",
        )
        .unwrap();
    let hash = hash.to_string();
    for configured in ["open sesame", hash.as_str()] {
        let stage = Stage::new(&format!("password = '{configured}'")).await;
        let get = |path: &str| stage.request(Method::GET, path);
        for path in ["healthz", "readyz"] {
            assert_eq!(status(get(path)).await, 200, "{path}");
        }
        for path in [
            "metrics",
            "api/v1/status",
            "api/v1/openapi.json",
            "api/v1/events",
        ] {
            let answer = get(path).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 401, "{path}");
            assert!(answer.headers().contains_key("www-authenticate"), "{path}");
        }
        let wrong = get("api/v1/status").basic_auth("any", Some("open"));
        assert_eq!(status(wrong).await, 401);
        // Of our own pages a script asks: the browser must not.
        let script = get("api/v1/status").header("sec-fetch-mode", "cors");
        let answer = script.send().await.unwrap();
        assert!(!answer.headers().contains_key("www-authenticate"));
        // The password is never said again in an answer.
        assert!(!answer.text().await.unwrap().contains("sesame"));
        for _ in 0..2 {
            let right = get("api/v1/status").basic_auth("any", Some("open sesame"));
            assert_eq!(status(right).await, 200, "{configured}");
            let right = get("metrics").bearer_auth("open sesame");
            assert_eq!(status(right).await, 200, "{configured}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_has_a_secret() {
    let stage = Stage::new("password = 'open sesame'").await;
    let get = |path: &str| {
        stage
            .request(Method::GET, path)
            .basic_auth("any", Some("open sesame"))
    };
    let smtp = stage.gateway.smtp;
    let raw = mail(1, "new", "Disk full");
    let send = move || crate::program::send(smtp, &[crate::stage::TO], &raw);
    let reply = tokio::task::spawn_blocking(send).await.unwrap();
    let id = reply.split_whitespace().next_back().unwrap();
    for path in [
        "api/v1/mails".to_owned(),
        format!("api/v1/mails/{id}"),
        format!("api/v1/mails/{id}/reading"),
        "api/v1/status".to_owned(),
        "api/v1/rules/desk".to_owned(),
    ] {
        let text = get(&path).send().await.unwrap().text().await.unwrap();
        assert!(!text.contains("never-shown"), "{path}");
        assert!(!text.contains("sesame"), "{path}");
    }
}

/// Silent connections fill every place: others are served as soon as the silent ones are turned out.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_nothing_do_not_keep_others_out() {
    let stage = Stage::new("").await;
    let mut silent = Vec::new();
    for number in 0..mailbell::limits::HTTP_CONNECTIONS_MAX {
        let mut stream = tokio::net::TcpStream::connect(stage.gateway.http)
            .await
            .unwrap();
        if number % 2 == 0 {
            let begun = b"GET /healthz HTTP/1.1\r\nHost: ";
            stream.write_all(begun).await.unwrap();
        }
        silent.push(stream);
    }
    let mut asking = Box::pin(status(stage.request(Method::GET, "healthz")));
    let soon = tokio::time::timeout(std::time::Duration::from_millis(200), &mut asking).await;
    assert!(soon.is_err(), "there was a place for one more");
    assert_eq!(asking.await, 200);
}
