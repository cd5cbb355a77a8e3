//! What the gateway's section says of those in front of it: proxies, and pages of other origins.

use ingest::config::{ForwardedBy, Proxies};
use url::Url;

use super::{ConfigError, Ingest};

impl Ingest {
    /// The proxies that are believed.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for an entry that is no address and no network, and for another header.
    pub fn proxies(&self) -> Result<Proxies, ConfigError> {
        let by = match self.forwarded_header.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => ForwardedBy::XForwardedFor,
            "forwarded" => ForwardedBy::Forwarded,
            other => {
                let complaint = format!("{other:?} is neither x-forwarded-for nor forwarded");
                return Err(ConfigError::Value { key: "ingest.forwarded_header", complaint });
            }
        };
        Proxies::parse(&self.trusted_proxies, by).map_err(|error| ConfigError::Value {
            key: "ingest.trusted_proxies",
            complaint: error.to_string(),
        })
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.proxies()?;
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            let complaint = "names nobody who may connect with a PROXY header: name the balancers".to_owned();
            return Err(ConfigError::Value { key: "ingest.trusted_proxies", complaint });
        }
        if self.keep_alive_timeout_ms < self.header_timeout_ms {
            let complaint = format!(
                "{} must be at least ingest.header_timeout_ms ({}): a connection waits through its head too",
                self.keep_alive_timeout_ms, self.header_timeout_ms
            );
            return Err(ConfigError::Value { key: "ingest.keep_alive_timeout_ms", complaint });
        }
        for origin in &self.cors_origins {
            // A browser sends the origin in its normal form, and compares the response's with it byte by byte.
            let normal = Url::parse(origin).map(|url| url.origin().ascii_serialization());
            if normal.as_ref() != Ok(origin) {
                let complaint =
                    format!("{origin:?} is no origin: write e.g. \"https://app.example\", without a slash");
                return Err(ConfigError::Value { key: "ingest.cors_origins", complaint });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Ingest)) -> String {
        let mut section = Ingest::default();
        section.check().unwrap();
        change(&mut section);
        section.check().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_work_at_the_edge_is_refused_by_its_key() {
        let nobody = refused(|section| section.proxy_protocol = true);
        assert!(nobody.contains("ingest.trusted_proxies: names nobody who may connect"), "{nobody}");
        let proxy = refused(|section| section.trusted_proxies = vec!["proxy.internal".into()]);
        assert!(proxy.contains("ingest.trusted_proxies: \"proxy.internal\" is no address"), "{proxy}");
        let header = refused(|section| section.forwarded_header = "x-real-ip".into());
        assert!(header.contains("ingest.forwarded_header"), "{header}");
        let timeout = refused(|section| section.keep_alive_timeout_ms = 5_000);
        assert!(timeout.contains("at least ingest.header_timeout_ms (10000)"), "{timeout}");
        for origin in ["https://app.example/", "*", "HTTPS://app.example", "https://app.example:443", "null"]
        {
            let text = refused(|section| section.cors_origins = vec![origin.into()]);
            assert!(text.contains("ingest.cors_origins"), "{text}");
        }
    }
}
