//! How many requests are taken in how much time: `system_config.rate_limits`.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Most requests of a limit, and its longest window in seconds.
const REQUESTS: u64 = 1_000_000;
const WINDOW_S: u64 = 604_800;

/// So many requests in so much time, `burst` of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// 1 to 1,000,000.
    pub requests: u32,
    /// The window, 1 s to 7 days.
    pub window: Duration,
    /// 1 to `requests`.
    pub burst: u32,
}

impl Rate {
    /// A rate that may be used up at once.
    #[must_use]
    pub const fn new(requests: u32, window: Duration) -> Self {
        Self { requests, window, burst: requests }
    }

    /// The rate as its row has it.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({ "requests": self.requests, "window_s": self.window.as_secs(), "burst": self.burst })
    }

    /// The rate of a row; `burst` may be left out.
    ///
    /// # Errors
    /// What is not as it must be.
    pub fn of(document: &Value) -> Result<Self, String> {
        let known = |key: &String| ["requests", "window_s", "burst"].contains(&key.as_str());
        let object = document.as_object().filter(|object| object.keys().all(known));
        let object = object.ok_or("it is not {requests, window_s, burst}")?;
        let number = |key: &str, most: u64| {
            let number = object.get(key).and_then(Value::as_u64).filter(|number| (1..=most).contains(number));
            number.ok_or_else(|| format!("{key} is not 1 to {most}"))
        };
        let requests = number("requests", REQUESTS)?;
        let burst = if object.contains_key("burst") { number("burst", requests)? } else { requests };
        let whole = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let window = Duration::from_secs(number("window_s", WINDOW_S)?);
        Ok(Self { requests: whole(requests), window, burst: whole(burst) })
    }
}

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Requests of a user.
    pub api_per_user: Rate,
    /// Requests of an address, before its token is looked at.
    pub api_per_address: Rate,
    /// Photos of a user that are accepted, counted in Postgres for all gateways in fixed windows, whose `burst` is all of them.
    pub uploads_per_user: Rate,
    /// Uploads of an address.
    pub uploads_per_address: Rate,
    /// Photos of a vehicle that are accepted, counted in Postgres: two owners in a day share them.
    pub uploads_per_vehicle: Rate,
    /// Claims of a user.
    pub claims_per_user: Rate,
    /// Logins of an address.
    pub login_per_address: Rate,
    /// Logins of a wallet that succeed: what others try in its name keeps nobody out.
    pub login_per_wallet: Rate,
    /// Exports of all that is kept about a user: each reads all of their photos.
    pub exports_per_user: Rate,
    /// Codes that are sent to a user's e-mail address, counted in Postgres for all gateways; a window begins with its first code.
    pub email_codes_per_user: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        let (minute, hour, day) =
            (Duration::from_secs(60), Duration::from_secs(3_600), Duration::from_secs(86_400));
        Self {
            api_per_user: Rate::new(120, minute),
            api_per_address: Rate::new(300, minute),
            uploads_per_user: Rate::new(20, day),
            uploads_per_address: Rate::new(60, hour),
            uploads_per_vehicle: Rate::new(20, day),
            claims_per_user: Rate::new(10, hour),
            login_per_address: Rate::new(20, minute * 5),
            login_per_wallet: Rate::new(10, minute * 5),
            exports_per_user: Rate::new(4, day),
            email_codes_per_user: Rate::new(5, day),
        }
    }
}

/// A limit of `rate_limits`: what is counted, by what, and where its rate is kept.
pub struct Limit {
    /// The first key: the route.
    pub route: &'static str,
    /// The second key: whose requests are counted together.
    pub by: &'static str,
    /// Its rate.
    pub rate: fn(&mut Rates) -> &mut Rate,
}

/// Every limit.
pub const LIMITS: [Limit; 10] = [
    Limit { route: "api", by: "per_user", rate: |rates| &mut rates.api_per_user },
    Limit { route: "api", by: "per_address", rate: |rates| &mut rates.api_per_address },
    Limit { route: "uploads", by: "per_user", rate: |rates| &mut rates.uploads_per_user },
    Limit { route: "uploads", by: "per_address", rate: |rates| &mut rates.uploads_per_address },
    Limit { route: "uploads", by: "per_vehicle", rate: |rates| &mut rates.uploads_per_vehicle },
    Limit { route: "claims", by: "per_user", rate: |rates| &mut rates.claims_per_user },
    Limit { route: "login", by: "per_address", rate: |rates| &mut rates.login_per_address },
    Limit { route: "login", by: "per_wallet", rate: |rates| &mut rates.login_per_wallet },
    Limit { route: "exports", by: "per_user", rate: |rates| &mut rates.exports_per_user },
    Limit { route: "email_codes", by: "per_user", rate: |rates| &mut rates.email_codes_per_user },
];

impl Limit {
    /// `uploads.per_user`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.route, self.by)
    }
}

impl Rates {
    /// All of them as `rate_limits` has them.
    #[must_use]
    pub fn document(mut self) -> Value {
        let mut document = Map::new();
        for limit in &LIMITS {
            let of_route = document.entry(limit.route).or_insert_with(|| json!({}));
            of_route[limit.by] = (limit.rate)(&mut self).document();
        }
        Value::Object(document)
    }

    /// These, with those of a `rate_limits` in their place.
    ///
    /// # Errors
    /// The limit that is none, or whose rate is not usable.
    pub fn with(mut self, document: Option<&Value>) -> Result<Self, String> {
        let none = Map::new();
        let routes = match document {
            None | Some(Value::Null) => &none,
            Some(routes) => routes.as_object().ok_or("rate_limits is no object")?,
        };
        for (route, limits) in routes {
            let limits = limits.as_object().ok_or_else(|| format!("rate_limits.{route} is no object"))?;
            for (by, rate) in limits {
                let known = LIMITS.iter().find(|limit| limit.route == route && limit.by == by);
                let limit = known.ok_or_else(|| format!("rate_limits.{route}.{by} is no limit"))?;
                *(limit.rate)(&mut self) =
                    Rate::of(rate).map_err(|error| format!("rate_limits.{route}.{by}: {error}"))?;
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_row_says_takes_the_place_of_the_default_and_the_rest_stays() {
        let row = json!({ "uploads": { "per_user": { "requests": 5, "window_s": 60 } } });
        let rates = Rates::default().with(Some(&row)).unwrap();
        assert_eq!(rates.uploads_per_user, Rate::new(5, Duration::from_secs(60)));
        assert_eq!(Rates { uploads_per_user: Rates::default().uploads_per_user, ..rates }, Rates::default());
        assert_eq!(Rates::default().with(Some(&Rates::default().document())).unwrap(), Rates::default());
    }

    #[test]
    fn an_unknown_limit_and_a_rate_out_of_its_range_are_refused_by_name() {
        for (row, part) in [
            (json!({ "upload": { "per_user": {} } }), "upload.per_user"),
            (json!({ "api": { "per_user": { "requests": 0, "window_s": 60 } } }), "requests"),
            (json!({ "api": { "per_user": { "requests": 1, "window_s": 604_801 } } }), "window_s"),
            (json!({ "api": { "per_user": { "requests": 1, "window_s": 1, "burst": 2 } } }), "burst"),
            (json!({ "api": { "per_user": { "requests": 1, "window_s": 1, "bust": 1 } } }), "api.per_user"),
            (json!([]), "rate_limits"),
        ] {
            let error = Rates::default().with(Some(&row)).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
