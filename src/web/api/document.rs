//! `packaging/openapi.json`, made from the functions that answer and their types.

use std::path::Path;

use utoipa::OpenApi;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

use super::{events, mails, replay, rules, status, tickets};
use crate::golden;
use crate::web::problem::{Place, Problem};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "mailbell",
        description = "What became of a mail, and how to steer it. Every refusal is problem+json. With a \
            password set: HTTP Basic with any user name, Bearer with the password, or the session of /login. \
            Changes are taken from the gateway's own pages and from programs, never from other sites' pages."
    ),
    paths(
        mails::search,
        mails::show,
        mails::original,
        mails::reading,
        mails::retry,
        mails::discard,
        mails::retry_all,
        replay::replay,
        replay::test,
        tickets::list,
        status::status,
        rules::list,
        rules::show,
        rules::save,
        rules::attempt,
        events::follow
    ),
    components(schemas(Problem, Place))
)]
struct Document;

#[test]
fn the_document_is_made_from_the_functions_that_answer() {
    let mut document = Document::openapi();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    refusals(&mut document);
    let json = serde_json::to_string(&document).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/openapi.json");
    assert_eq!(golden::difference(&file, &json), None);
}

/// Every operation may be refused.
fn refusals(document: &mut utoipa::openapi::OpenApi) {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let refusal = ResponseBuilder::new()
        .description("Why it was refused (RFC 9457)")
        .content("application/problem+json", content)
        .build();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put];
        for operation in operations.into_iter().flatten() {
            operation
                .responses
                .responses
                .insert("default".to_owned(), RefOr::T(refusal.clone()));
        }
    }
}
