//! Taking a photo: [`post`] ties the way together, [`form`] and [`fields`] read the multipart body, [`store`] hashes and keeps
//! the photo, [`check`] looks at its bytes, [`reserve`] decides in one transaction what the event holds, [`publish`] sends it,
//! and [`sweep`] sends what a crash left behind.

pub mod check;
pub(crate) mod fields;
pub(crate) mod form;
pub(crate) mod post;
pub(crate) mod publish;
pub(crate) mod reserve;
pub mod store;
pub(crate) mod sweep;
