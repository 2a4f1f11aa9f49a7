//! Bodies and queries, read strictly: bounded, UTF-8, no unknown fields, and errors in our own words.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use bootstorm_api::limits::{BODY_BYTES_MAX, PAGE_ROWS_MAX};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::limits;

/// A JSON body; an absent one reads as `{}`.
pub(crate) struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let bytes = bounded(request.into_body()).await?;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(bytes).map(Self).map_err(|error| Error::invalid("body", error))
    }
}

/// A body within the limit of routes that take no uploads.
pub(crate) async fn bounded(mut body: Body) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::invalid("body", "it broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            drain(&mut body).await;
            return Err(Error::TooLarge { what: "a body", max: u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX) });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Reads and drops what is left of a refused body, within a limit.
pub(crate) async fn drain(body: &mut Body) {
    let mut left = limits::DRAINED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let count = frame.data_ref().map_or(0, bytes::Bytes::len);
        match left.checked_sub(u64::try_from(count).unwrap_or(u64::MAX)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// A query.
pub(crate) struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        query.map(|query| Self(query.0)).map_err(|error| Error::invalid("query", error.body_text()))
    }
}

/// Rows of a page: the default, or what was asked for within the limit.
pub(crate) fn rows(limit: Option<u32>) -> Result<u32> {
    match limit {
        None => Ok(limits::PAGE_ROWS_DEFAULT),
        Some(rows) if (1..=PAGE_ROWS_MAX).contains(&rows) => Ok(rows),
        Some(_) => Err(Error::invalid("limit", format!("must be 1 to {PAGE_ROWS_MAX}"))),
    }
}
