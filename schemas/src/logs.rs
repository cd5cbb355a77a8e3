//! The log documents.
