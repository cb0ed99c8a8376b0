//! What the pages load besides themselves: style, script, icon. Inside the program, under names
//! that change with their bytes, so that browsers may keep them for ever.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// A file and where it is served.
#[derive(Debug)]
pub struct Asset {
    pub url: String,
    media_type: &'static str,
    bytes: &'static [u8],
}

pub static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "style",
        "css",
        "text/css",
        include_bytes!("assets/style.css"),
    )
});
pub static LIVE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "live",
        "js",
        "text/javascript",
        include_bytes!("assets/live.js"),
    )
});
pub static PLAYGROUND: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "playground",
        "js",
        "text/javascript",
        include_bytes!("assets/playground.js"),
    )
});
pub static ICON: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "bell",
        "svg",
        "image/svg+xml",
        include_bytes!("assets/bell.svg"),
    )
});

fn all() -> [&'static Asset; 4] {
    [&STYLE, &LIVE, &ICON, &PLAYGROUND]
}

impl Asset {
    fn new(stem: &str, ending: &str, media_type: &'static str, bytes: &'static [u8]) -> Asset {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Asset {
            url: format!("/assets/{stem}-{:016x}.{ending}", hasher.finish()),
            media_type,
            bytes,
        }
    }
}

/// Open to everybody: the login page needs them.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>) -> Response {
    let found = all()
        .into_iter()
        .find(|asset| asset.url.strip_prefix("/assets/") == Some(name.as_str()));
    match found {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(asset) => {
            let headers = [
                (
                    header::CONTENT_TYPE,
                    format!("{}; charset=utf-8", asset.media_type),
                ),
                (
                    header::CACHE_CONTROL,
                    "public, max-age=31536000, immutable".to_owned(),
                ),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
            ];
            (headers, asset.bytes).into_response()
        }
    }
}
