//! What is wrong in a file of rules, with its line.

use std::fmt;
use std::ops::Range;

use rust_decimal::Decimal;
use schemas::impact::VEHICLE_KINDS;
use toml::Spanned;

/// Most B3TR of an amount: no programme has more, and every column holds it.
const AMOUNT_MAX: Decimal = Decimal::from_parts(1_000_000_000, 0, 0, false, 0);
/// Decimals of an amount.
const AMOUNT_DECIMALS: u32 = 8;

/// What is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong, without a point at its end.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// What is found while a file is read.
pub(super) struct Faults<'a> {
    text: &'a str,
    found: Vec<Fault>,
}

impl<'a> Faults<'a> {
    /// None yet, of this text.
    pub fn of(text: &'a str) -> Self {
        Self { text, found: Vec::new() }
    }

    /// What was noted, in the order of the lines.
    pub fn found(mut self) -> Vec<Fault> {
        self.found.sort();
        self.found
    }

    /// Notes what is wrong with something at this place.
    pub fn note(&mut self, at: Range<usize>, text: impl Into<String>) {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        self.found.push(Fault { line, text: text.into() });
    }

    /// A decimal from 0 to `most`, or above 0 where `positive`.
    pub fn number(
        &mut self,
        name: &str,
        written: &Spanned<String>,
        (most, decimals, positive): (Decimal, u32, bool),
    ) -> Decimal {
        let text = written.get_ref();
        let plain = text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let value = Decimal::from_str_exact(text).ok().filter(|_| plain && !text.starts_with('.'));
        let wrong = match value {
            None => format!("{name} {text:?} is no number such as \"0.25\""),
            Some(value) if value.is_sign_negative() => format!("{name} {text} is negative"),
            Some(value) if positive && value.is_zero() => format!("{name} is 0"),
            Some(value) if value > most => format!("{name} {text} is above {most}"),
            Some(value) if value.normalize().scale() > decimals => {
                format!("{name} {text} has more than {decimals} decimals")
            }
            Some(value) => return value.normalize(),
        };
        self.note(written.span(), wrong);
        Decimal::ZERO
    }

    /// An amount of B3TR above 0.
    pub fn amount(&mut self, name: &str, written: &Spanned<String>) -> Decimal {
        self.number(name, written, (AMOUNT_MAX, AMOUNT_DECIMALS, true))
    }

    /// Whether this is a vehicle's kind.
    pub fn kind(&mut self, written: &Spanned<String>) {
        let kind = written.get_ref();
        if !VEHICLE_KINDS.contains(&kind.as_str()) {
            let text =
                format!("{kind:?} is no kind of vehicle: a kind is one of {}", VEHICLE_KINDS.join(", "));
            self.note(written.span(), text);
        }
    }
}
