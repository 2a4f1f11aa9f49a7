//! The one table from errors to status codes.
//!
//! | status | when |
//! |---|---|
//! | 400 | the request cannot be understood, or holds what is not allowed |
//! | 401, 403 | no token, or not one for this |
//! | 404 | no such thing |
//! | 405 | no such method |
//! | 409 | not in this state of affairs: the lifecycle, a flag, a duplicate, something in use, no address |
//! | 413 | too many bytes |
//! | 422 | an `Idempotency-Key` for another request |
//! | 502 | a BMC refused or failed |
//! | 503 | the database or a role is away for a moment |
//! | 500 | our fault; the log says more |

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bootstorm_api::native::Problem;

use crate::error::Error;

/// The status and body of an error.
pub(crate) fn problem(error: &Error) -> (StatusCode, Problem) {
    let (status, code) = class(error);
    let message = if status == StatusCode::INTERNAL_SERVER_ERROR {
        "something went wrong in control; its log says what".to_string()
    } else {
        error.to_string()
    };
    (status, Problem { code, message })
}

fn class(error: &Error) -> (StatusCode, String) {
    use bootstorm_store::Error as Store;
    let (status, code) = match error {
        Error::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid"),
        Error::TooLarge { .. } | Error::Store(Store::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        Error::NotFound { what, .. } | Error::Store(Store::NotFound { what, .. }) => {
            return (StatusCode::NOT_FOUND, format!("{}-not-found", what.to_lowercase().replace(' ', "-")));
        }
        Error::Conflict { code: code @ "idempotency-key-reused", .. } => (StatusCode::UNPROCESSABLE_ENTITY, *code),
        Error::Conflict { code, .. } => (StatusCode::CONFLICT, *code),
        Error::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
        Error::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
        Error::Refused(bootstorm_model::Refused::Locked { .. }) => (StatusCode::CONFLICT, "machine-locked"),
        Error::Refused(bootstorm_model::Refused::Held { .. }) => (StatusCode::CONFLICT, "machine-held"),
        Error::Refused(bootstorm_model::Refused::Illegal { .. }) => (StatusCode::CONFLICT, "state"),
        Error::Power(failure) => {
            let status =
                if failure.code == "bmc-role-away" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_GATEWAY };
            return (status, failure.code.clone());
        }
        Error::Store(Store::Duplicate { .. }) => (StatusCode::CONFLICT, "duplicate"),
        Error::Store(Store::Conflict { .. }) => (StatusCode::CONFLICT, "changed-meanwhile"),
        Error::Store(Store::InUse { .. }) => (StatusCode::CONFLICT, "in-use"),
        Error::Store(Store::Address(_)) => (StatusCode::CONFLICT, "address"),
        Error::Store(
            store @ (Store::Database(_)
            | Store::Gap { .. }
            | Store::Migration(_)
            | Store::Library { .. }
            | Store::Corrupt { .. }),
        ) => {
            if store.is_retryable() {
                (StatusCode::SERVICE_UNAVAILABLE, "database-away")
            } else {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        }
        Error::Stream(_) => (StatusCode::BAD_REQUEST, "broken-off"),
        Error::Content(_)
        | Error::File { .. }
        | Error::Frame(_)
        | Error::Link(_)
        | Error::Certificate(_)
        | Error::Unseal
        | Error::Random(_)
        | Error::Task => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    };
    (status, code.to_string())
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, body) = problem(&self);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "a request failed");
        }
        (status, Json(body)).into_response()
    }
}

/// The answer where there is no route.
pub(crate) async fn no_route() -> Response {
    let body = Problem {
        code: "no-route".to_string(),
        message: "there is nothing at this path; see `/openapi.json`".to_string(),
    };
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

/// The answer where the route has no such method.
pub(crate) async fn no_method() -> Response {
    let body = Problem {
        code: "no-method".to_string(),
        message: "this path has no such method; see `/openapi.json`".to_string(),
    };
    (StatusCode::METHOD_NOT_ALLOWED, Json(body)).into_response()
}
