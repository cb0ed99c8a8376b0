//! Who may ask.

use std::net::Ipv4Addr;

use mailbell::limits::{HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_PEER_MAX};
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::stage::{Stage, mail};

const FORM: &str = "application/x-www-form-urlencoded";

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

/// What is followed with a session ends with it; what is followed with the password goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_events_ends_with_its_session() {
    let stage = Stage::new("password = 'open sesame'").await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let url = |path: &str| format!("http://{}/{path}", stage.gateway.http);
    let login = client.post(url("login")).header("content-type", FORM);
    let login = login.body("password=open+sesame");
    let login = login.send().await.unwrap();
    let cookie = login.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let events = client.get(url("api/v1/events"));
    let mut of_session = events.header("cookie", &cookie).send().await.unwrap();
    let events = client.get(url("api/v1/events"));
    let mut of_password = events.bearer_auth("open sesame").send().await.unwrap();
    for answer in [&mut of_session, &mut of_password] {
        let first = answer.chunk().await.unwrap().unwrap();
        assert!(first.starts_with(b"event: reload"));
    }
    let logout = client.post(url("logout")).header("cookie", &cookie);
    assert_eq!(status(logout).await, 303);
    let (smtp, raw) = (stage.gateway.smtp, mail(1, "new", "Disk full"));
    let send = move || crate::program::send(smtp, &[crate::stage::TO], &raw);
    tokio::task::spawn_blocking(send).await.unwrap();
    assert_eq!(of_session.chunk().await.unwrap(), None);
    let told = of_password.chunk().await.unwrap().unwrap();
    assert!(told.starts_with(b"event: received"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_request_means_is_not_left_open() {
    let stage = Stage::new("").await;
    for (head, status) in [
        (&b"GET /api/v1/status HTTP/1.1\r\n"[..], 400),
        (
            b"GET /api/v1/status HTTP/1.1\r\nHost: \xfcber.example\r\n",
            421,
        ),
        (b"GET /api/v1/status HTTP/1.0\r\n", 200),
    ] {
        let mut stream = TcpStream::connect(stage.gateway.http).await.unwrap();
        stream.write_all(head).await.unwrap();
        stream
            .write_all(b"Connection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(
            answer.split(' ').nth(1),
            Some(&*status.to_string()),
            "{answer}"
        );
    }
}

/// Where a person may come by a mistyped address or an old page, the answer is a page.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_page_is_told_by_a_page() {
    let stage = Stage::new("").await;
    let get = |path: &str| stage.request(Method::GET, path);
    let untyped = stage.request(Method::POST, "login");
    let form = |path: &str, body: &str| {
        let request = stage.request(Method::POST, path);
        request.header("content-type", FORM).body(body.to_owned())
    };
    let gone = "mails/00000000-0000-7000-8000-000000000000";
    let too_large = "x".repeat(3 << 20);
    for (request, expected) in [
        (get("tickets?changed=abc"), 400),
        (get("rules/desk?saved=abc"), 400),
        (get("rules/%ff"), 404),
        (get("mails/%ff"), 404),
        (form("login", "next=/"), 422),
        (form("language", ""), 422),
        // What is left of it is not read, so its connection ends with the answer.
        (form("login", &too_large).header("connection", "close"), 413),
        (form(&format!("{gone}/retry"), "back=/"), 404),
        (form(&format!("{gone}/drop"), "back=/"), 404),
        (untyped.body("password=x"), 415),
    ] {
        let answer = request.send().await.unwrap();
        let (status, url) = (answer.status().as_u16(), answer.url().to_string());
        let text = answer.text().await.unwrap();
        assert_eq!(status, expected, "{url}: {text}");
        assert!(text.starts_with("<!DOCTYPE html>"), "{url}: {text}");
    }
    // No word is that long, but a ticket's number may be.
    let raw = String::from_utf8(mail(7, "new", "Disk full")).unwrap();
    let raw = raw.replace("[Desk#7]", &format!("[Desk#{}]", "9".repeat(300)));
    let id = stage.take(raw.as_bytes()).await;
    let tickets = get("tickets").send().await.unwrap().text().await.unwrap();
    let mut links = tickets
        .split("href=\"/")
        .filter_map(|rest| rest.split('"').next());
    let its_mails = links.find(|link| link.starts_with("mails?")).unwrap();
    let its_mails = get(its_mails).send().await.unwrap();
    assert_eq!(its_mails.status().as_u16(), 200);
    assert!(its_mails.text().await.unwrap().contains(&id));
}

/// A connection from another address of this machine.
async fn connected(stage: &Stage, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(from), 0).into()).unwrap();
    socket.connect(stage.gateway.http).await.unwrap()
}

/// Silent connections fill every place: others are served as soon as the silent ones are turned out.
/// One peer alone cannot fill them.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_nothing_do_not_keep_others_out() {
    let stage = Stage::new("").await;
    let mut silent = Vec::new();
    for number in 0..HTTP_CONNECTIONS_PER_PEER_MAX {
        let mut stream = connected(&stage, [127, 0, 0, 2]).await;
        if number % 2 == 0 {
            let begun = b"GET /healthz HTTP/1.1\r\nHost: ";
            stream.write_all(begun).await.unwrap();
        }
        silent.push(stream);
    }
    let mut answer = String::new();
    let mut one_more = connected(&stage, [127, 0, 0, 2]).await;
    one_more.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let probe = stage.request(Method::GET, "healthz");
    assert_eq!(status(probe.header("connection", "close")).await, 200);
    for _ in HTTP_CONNECTIONS_PER_PEER_MAX..HTTP_CONNECTIONS_MAX {
        silent.push(connected(&stage, [127, 0, 0, 3]).await);
    }
    let mut asking = Box::pin(status(stage.request(Method::GET, "healthz")));
    let soon = tokio::time::timeout(std::time::Duration::from_millis(200), &mut asking).await;
    assert!(soon.is_err(), "there was a place for one more");
    assert_eq!(asking.await, 200);
}
