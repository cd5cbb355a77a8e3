//! Taking a photo: [`post`] ties the way together, [`form`], [`disposition`] and [`fields`] read the multipart body and hash the photo,
//! [`look`] asks what is known of the upload, [`check`] looks at the photo's bytes, [`store`] keeps them, [`origin`] counts who else sends
//! from there, [`reserve`] decides what the event holds ([`plain`] where nothing stands in its way) and [`counts`] it, [`publish`] sends
//! it, and [`sweep`] sends what a crash left behind.

pub mod check;
pub(crate) mod counts;
pub(crate) mod disposition;
pub(crate) mod fields;
pub(crate) mod form;
pub(crate) mod look;
pub(crate) mod origin;
pub(crate) mod plain;
pub(crate) mod post;
pub(crate) mod publish;
pub(crate) mod reserve;
pub mod store;
pub(crate) mod sweep;
