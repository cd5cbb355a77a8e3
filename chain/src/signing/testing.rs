//! A local server that signs with a real key, by the protocols of a remote signer, a fee sponsor and AWS KMS, and misbehaves when it is
//! told to. A key in the real KMS costs an account and its credentials, which no test may need; a solo node takes the signatures, so that
//! what the fake makes is not only what we expect.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k256::ecdsa::{Signature as EcdsaSignature, SigningKey};
use serde_json::{Value, json};

use crate::hash::blake2b256;
use crate::id::Address;
use crate::signer::Signer;
use crate::tx::UnsignedTx;

/// What the server does with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Signs.
    Well,
    /// Signs with s in the upper half of the order.
    HighS,
    /// Signs with another key.
    OtherKey,
    /// Gives this status and body.
    Says(u16, String),
    /// Never responds.
    Silent,
    /// Sends a body without end.
    Endless,
}

/// A question as it came.
#[derive(Clone, Debug)]
pub struct Question {
    /// Method and path.
    pub line: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Question {
    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The server. Its thread lives as long as the process.
#[derive(Clone, Debug)]
pub struct SigningServer {
    /// Its address, ending in `/`.
    pub url: String,
    /// Whose key it has.
    pub address: Address,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    key: SigningKey,
    mood: Mutex<Mood>,
    asked: Mutex<Vec<Question>>,
}

impl SigningServer {
    /// A server that signs with the key in these 64 hex digits.
    ///
    /// # Errors
    /// Those of listening, and for what is no key.
    pub fn start(key: &str) -> std::io::Result<Self> {
        let other = |_| std::io::Error::other("no key");
        let address = Signer::from_hex(key).map_err(|_| std::io::Error::other("no key"))?.address();
        let digits = key.strip_prefix("0x").unwrap_or(key);
        let bytes = hex::decode(digits).map_err(|_| std::io::Error::other("no key"))?;
        let key = SigningKey::from_slice(&bytes).map_err(other)?;
        let shared = Arc::new(Shared { key, mood: Mutex::new(Mood::Well), asked: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/", listener.local_addr()?);
        let serving = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = serving.clone();
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Ok(Self { url, address, shared })
    }

    /// How it responds from now on.
    pub fn be(&self, mood: Mood) {
        *lock(&self.shared.mood) = mood;
    }

    /// All questions so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Question> {
        lock(&self.shared.asked).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn serve(&self, stream: &TcpStream) {
        let Some(question) = read(stream) else { return };
        let mood = lock(&self.mood).clone();
        lock(&self.asked).push(question.clone());
        let (status, body) = match &mood {
            Mood::Silent => {
                // Returns when the client gives up and closes.
                let _ = (&*stream).read(&mut [0]);
                return;
            }
            Mood::Endless => {
                let _ = (&*stream).write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{");
                while (&*stream).write_all(&[b' '; 4096]).is_ok() {}
                return;
            }
            Mood::Says(status, body) => (*status, body.clone()),
            Mood::Well | Mood::HighS | Mood::OtherKey => match self.response(&question, &mood) {
                Some(body) => (200, body),
                None => (400, r#"{"__type":"ValidationException"}"#.to_owned()),
            },
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        let _ = (&*stream).write_all(format!("{head}{body}").as_bytes());
    }

    fn response(&self, question: &Question, mood: &Mood) -> Option<String> {
        let body = question.json();
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        match question.headers.get("x-amz-target").map(String::as_str) {
            Some("TrentService.GetPublicKey") => {
                let point = self.key.verifying_key().to_encoded_point(false);
                let mut spki = hex::decode("3056301006072a8648ce3d020106052b8104000a034200").ok()?;
                spki.extend_from_slice(point.as_bytes());
                let public = STANDARD.encode(spki);
                let json = json!({"KeyId": text("KeyId")?, "PublicKey": public, "KeySpec": "ECC_SECG_P256K1",
                    "KeyUsage": "SIGN_VERIFY", "SigningAlgorithms": ["ECDSA_SHA_256"]});
                Some(json.to_string())
            }
            Some("TrentService.Sign") => {
                let known = text("MessageType")? == "DIGEST" && text("SigningAlgorithm")? == "ECDSA_SHA_256";
                let digest = STANDARD.decode(text("Message")?).ok().filter(|_| known)?;
                let signature = self.signed(&digest, mood)?.0;
                let json = json!({"KeyId": text("KeyId")?, "Signature": STANDARD.encode(signature.to_der())});
                Some(json.to_string())
            }
            Some(_) => None,
            None => {
                // A signer works out for itself what it signs: a hash that does not fit the bytes is refused.
                let raw = hex::decode(text("raw")?.strip_prefix("0x")?).ok()?;
                let unsigned = UnsignedTx::decode_unsigned(&raw).ok()?;
                let origin: Address = text("origin")?.parse().ok()?;
                let digest = match text("role").as_deref() {
                    Some("origin") => blake2b256(&[&raw]),
                    Some("gas_payer") | None => *unsigned.id(origin).as_bytes(),
                    Some(_) => return None,
                };
                if text("hash").is_some_and(|hash| hash != format!("0x{}", hex::encode(digest))) {
                    return None;
                }
                let (signature, v) = self.signed(&digest, mood)?;
                let bytes = [signature.to_bytes().as_slice(), &[v]].concat();
                Some(json!({"signature": format!("0x{}", hex::encode(bytes))}).to_string())
            }
        }
    }

    fn signed(&self, digest: &[u8], mood: &Mood) -> Option<(EcdsaSignature, u8)> {
        let other;
        let key = if *mood == Mood::OtherKey {
            other = SigningKey::from_slice(&[0x33; 32]).ok()?;
            &other
        } else {
            &self.key
        };
        let (signature, recovery): (EcdsaSignature, _) = key.sign_prehash_recoverable(digest).ok()?;
        if *mood == Mood::HighS {
            let high = EcdsaSignature::from_scalars(signature.r(), -signature.s()).ok()?;
            return Some((high, recovery.to_byte() ^ 1));
        }
        Some((signature, recovery.to_byte()))
    }
}

fn read(stream: &TcpStream) -> Option<Question> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Question { line, headers, body })
}
