//! The HTTP side of the gateway, which knows nothing of uploads: connections, requests, the table of routes with its dispatch, responses,
//! problem documents and the OpenAPI document.

pub(crate) mod body;
pub(crate) mod cors;
pub(crate) mod handler;
pub(crate) mod head;
pub(crate) mod objects;
pub(crate) mod openapi;
pub(crate) mod operation;
pub(crate) mod pieces;
pub(crate) mod places;
pub mod problem;
pub(crate) mod proxy_protocol;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod request_id;
pub(crate) mod router;
pub(crate) mod server;
pub(crate) mod shares;
