//! A notice as an e-mail over SMTP. Its `Message-ID` follows from the notice's id, so that one that is sent twice is known.

use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use runtime::one_time::OneTimeCode;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use uuid::Uuid;

use super::config::Smtp;
use super::service::Delivery;

/// Why settings of a mail server are not usable.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// The sender.
    #[error("notices.from {0:?} is no address such as `Milestream <notices@example.org>`")]
    From(String),
    /// The URL.
    #[error(
        "notices.smtp_url is none such as `smtps://mail.example.org` or `smtp://mail.example.org?tls=required`"
    )]
    Url,
}

/// Sends e-mails.
#[derive(Clone)]
pub(super) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    public_url: String,
}

/// An e-mail. It is not printed: it holds an address, and may hold a code.
pub(super) struct Mail {
    id: Uuid,
    subject: &'static str,
    text: String,
}

impl Mail {
    /// A notice.
    pub(super) fn notice(delivery: &Delivery) -> Self {
        let (subject, text) = words(&delivery.kind, &delivery.document);
        Self { id: delivery.id, subject, text: format!("{text}\r\n\r\nYour account, and what you are told:") }
    }

    /// A code that proves the address that it is sent to.
    pub(super) fn code(id: Uuid, code: &OneTimeCode) -> Self {
        let text = format!(
            "Your code: {}\r\n\r\nIt shows that this address is yours, and is good for ten minutes. If you have not asked for it, somebody \
             has put your address into their account: without the code nothing is sent to you there.\r\n\r\nWhere to type it:",
            code.expose()
        );
        Self { id, subject: "Your code", text }
    }
}

/// Why an e-mail was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum EmailError {
    #[error("unusable: the address or the text makes no e-mail")]
    Unusable,
    // The server's own words may hold the address.
    #[error("refused: the mail server refuses with {0}")]
    Refused(String),
    #[error("no_response: the mail server does not respond")]
    NoResponse,
}

impl Mailer {
    pub(super) fn new(smtp: &Smtp, public_url: &str, timeout: Duration) -> Result<Self, SmtpError> {
        let from = smtp.from.parse().map_err(|_| SmtpError::From(smtp.from.clone()))?;
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(&smtp.url)
            .map_err(|_| SmtpError::Url)?
            .timeout(Some(timeout));
        if let Some((user, password)) = &smtp.credentials {
            builder =
                builder.credentials(Credentials::new(user.clone(), password.expose_secret().to_owned()));
        }
        Ok(Self { transport: builder.build(), from, public_url: public_url.to_owned() })
    }

    /// Sends it; the server's code where it has taken it.
    pub(super) async fn send(&self, mail: Mail, to: &str) -> Result<u16, EmailError> {
        let text = format!("{} {}/\r\n", mail.text, self.public_url);
        let message = Message::builder()
            .from(self.from.clone())
            .to(to.parse().map_err(|_| EmailError::Unusable)?)
            .message_id(Some(format!("<{}@{}>", mail.id, self.from.email.domain())))
            .subject(mail.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(text)
            .map_err(|_| EmailError::Unusable)?;
        match self.transport.send(message).await {
            Ok(response) => Ok(response.code().into()),
            Err(error) => Err(error
                .status()
                .map_or(EmailError::NoResponse, |code| EmailError::Refused(code.to_string()))),
        }
    }
}

/// What an e-mail says. Values are ids, amounts and labels of ours; nothing that anybody else has typed.
fn words(kind: &str, document: &Value) -> (&'static str, String) {
    let text = |name: &str| document[name].as_str().unwrap_or("-");
    let unclaimed = |what: &str| {
        format!("{} B3TR {what}: {}.\r\nReward: {}", text("amount"), text("detail"), text("reward_id"))
    };
    match kind {
        "reward_paid" => (
            "Your reward is paid",
            format!(
                "{} B3TR are in your wallet.\r\nTransaction: {}\r\nReward: {}",
                text("amount"),
                text("tx_id"),
                text("reward_id")
            ),
        ),
        "reward_expiring" => ("A reward waits for you", unclaimed("wait for you")),
        "reward_expired" => ("A reward is cancelled", unclaimed("are cancelled")),
        "vehicle_offered" => (
            "A vehicle is offered to you",
            format!(
                "Somebody wants to hand a vehicle over to you. Accept or decline it on the page of your vehicles before {}.\r\nTransfer: {}",
                text("expires_at"),
                text("transfer_id")
            ),
        ),
        "review_needed" => (
            "A photo goes to a person",
            format!("A person looks at the photo.\r\nUpload: {}", text("upload_id")),
        ),
        "security_event" if document["event_type"] == "wallet_change" => (
            "Another wallet is to be paid",
            "Somebody who has signed in as you has asked for your rewards to be paid to another wallet of your account. They are, after \
             some time; until then they are paid to the wallet before.\r\nIf this was not you, take it back on the page of your account, \
             and end your sessions there."
                .to_owned(),
        ),
        "security_event" => (
            "Something happened to your account",
            format!(
                "We have noted: {} ({}).\r\nIf this was not you, end your sessions on the page of your account.",
                text("event_type"),
                text("severity")
            ),
        ),
        _ => {
            let reason = document["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let verdict = text("verdict");
            (
                "Your photo is decided",
                format!("Your photo is {verdict}{reason}.\r\nUpload: {}", text("upload_id")),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn that_another_wallet_is_to_be_paid_is_said_in_words_and_names_none() {
        let (subject, text) =
            words("security_event", &json!({ "event_type": "wallet_change", "severity": "medium" }));
        assert_eq!(subject, "Another wallet is to be paid");
        assert!(text.contains("until then they are paid to the wallet before"), "{text}");
        assert!(text.contains("take it back on the page of your account"), "{text}");
    }
}
