use std::time::{Duration, SystemTime, UNIX_EPOCH};

use secrecy::SecretString;

use super::testing::{Mood, SigningServer};
use super::*;
use crate::amount::Wei;
use crate::tx::{BlockRef, Clause, Fees};

const K1: &str = "7582be841ca040aa940fff6c05773129e135623e41acce3e0b8ba520dc1ae26a";
const K2: &str = "321d6443bc6177273b5abf54210fe806d451d6b7973bccc2384ef78bbcd0bf51";
const LIMITS: SignerLimits =
    SignerLimits { connect: Duration::from_secs(2), call: Duration::from_millis(300) };
const TOKEN: &str = "token-of-the-signer";

/// The body of `TestDelegatedTx` in Thor's `tx/transaction_test.go`.
fn golden() -> UnsignedTx {
    let to: Address = "0x7567d83b7b8d80addcb281a71d54fc7b3364ffed".parse().unwrap();
    let clause = |value: u128| Clause {
        to: Some(to),
        value: Wei::from(value),
        data: hex::decode("000000606060").unwrap(),
    };
    UnsignedTx {
        chain_tag: 0xa4,
        block_ref: BlockRef(0xaabb_ccdd),
        expiration: 32,
        clauses: vec![clause(10_000), clause(20_000)],
        fees: Fees::Legacy { gas_price_coef: 128 },
        gas: 210_000,
        depends_on: None,
        nonce: 12_345_678,
        delegated: true,
    }
}

/// The bytes that Thor's test has for it, signed by K1 with K2 as the gas payer.
const GOLDEN: &str = "f8db81a484aabbccdd20f840df947567d83b7b8d80addcb281a71d54fc7b3364ffed82271086000000606060df947567d83b7b8d80addcb281a71d54fc7b3364ffed824e20860000006060608180830334508083bc614ec101b882bad4d4401b1fb1c41d61727d7fd2aeb2bb3e65a27638a5326ca98404c0209ab159eaeb37f0ac75ed1ac44d92c3d17402d7d64b4c09664ae2698e1102448040c000f043fafeaf60343248a37e4f1d2743b4ab9116df6d627b4d8a874e4f48d3ae671c4e8d136eb87c544bea1763673a5f1762c2266364d1b22166d16e3872b5a9c700";

fn plain() -> UnsignedTx {
    UnsignedTx { delegated: false, ..golden() }
}

fn server(key: &str) -> SigningServer {
    SigningServer::start(key).unwrap()
}

fn remote(server: &SigningServer) -> RemoteSigner {
    RemoteSigner::new(&server.url, server.address, Some(TOKEN.to_owned().into()), LIMITS).unwrap()
}

fn sponsor(server: &SigningServer) -> FeeSponsor {
    FeeSponsor::new(&format!("{}by/key-1", server.url), server.address, LIMITS).unwrap()
}

fn credentials() -> AwsCredentials {
    let secret = |text: &str| SecretString::from(text.to_owned());
    AwsCredentials::fixed(secret("AKIDEXAMPLE"), secret("secret-of-aws"), Some(secret("session-of-aws")))
}

async fn kms(server: &SigningServer, credentials: AwsCredentials) -> Result<KmsSigner, SigningError> {
    let key = KmsKey {
        key_id: "alias/distributor".to_owned(),
        region: "eu-central-1".to_owned(),
        endpoint: Some(server.url.clone()),
    };
    let now = || -> SystemTime { UNIX_EPOCH + Duration::from_secs(1_700_000_000) };
    KmsSigner::open(key, credentials, LIMITS, std::sync::Arc::new(now)).await
}

fn error(signed: Result<SignedTx, SignError>) -> SigningError {
    match signed {
        Err(SignError::Signer { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_sponsor_and_signers_of_every_kind_give_the_bytes_of_thors_own_vector() {
    let (origin, payer) = (server(K1), server(K2));
    let local = [K1, K2].map(|key| Signer::from_hex(key).unwrap());
    let kms = kms(&origin, credentials()).await.unwrap();
    let signers: [&dyn TransactionSigner; 3] = [&local[0], &remote(&origin), &kms];
    let payers: [&dyn TransactionSigner; 3] = [&local[1], &remote(&payer), &sponsor(&payer)];
    for signer in signers {
        for payer in payers {
            let signed = sign(golden(), signer, Some(payer)).await.unwrap();
            assert_eq!(hex::encode(signed.encode()), GOLDEN, "{signer:?} {payer:?}");
        }
    }
    let asked = payer.asked();
    let sponsored = asked.iter().find(|asked| asked.line == "POST /by/key-1").unwrap();
    assert_eq!(sponsored.json().as_object().unwrap().len(), 2, "origin and raw alone");
    let of_signer =
        origin.asked().into_iter().find(|asked| !asked.headers.contains_key("x-amz-target")).unwrap();
    assert_eq!(of_signer.headers["authorization"], format!("Bearer {TOKEN}"));
    let question = of_signer.json();
    assert_eq!((&question["role"], &question["version"]), (&"origin".into(), &1.into()));
    assert_eq!(question["id"], "0x956577b09b2a770d10ea129b26d916955df3606dc973da0043d6321b922fdef9");
    assert_eq!(question["hash"], "0x96c4cd08584994f337946f950eca5511abe15b152bc879bf47c2227901f9f2af");
    assert_eq!(question["transaction"]["reserved"]["features"], 1);
    assert_eq!(question["transaction"]["clauses"][1]["value"], "0x4e20");
}

#[tokio::test]
async fn who_is_asked_fits_whether_the_transaction_is_delegated() {
    let local = [K1, K2].map(|key| Signer::from_hex(key).unwrap());
    let delegation = Err(SignError::Tx(TxError::Delegation));
    assert_eq!(sign(golden(), &local[0], None).await, delegation);
    assert_eq!(sign(plain(), &local[0], Some(&local[1])).await, delegation);
    let server = server(K1);
    assert!(matches!(error(sign(plain(), &sponsor(&server), None).await), SigningError::Config(_)));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn what_a_signer_outside_does_wrong_is_told_apart_and_never_signed_with() {
    let server = server(K1);
    let kms = kms(&server, credentials()).await.unwrap();
    let remote = remote(&server);
    let html = Mood::Says(200, "<html>Sign in</html>".to_owned());
    let short = Mood::Says(200, r#"{"signature":"0x00"}"#.to_owned());
    let exception =
        |name: &str| Mood::Says(400, format!(r#"{{"__type":"com.amazonaws.kms#{name}","message":"m"}}"#));
    for signer in [&remote as &dyn TransactionSigner, &kms] {
        let ask = async |mood: Mood| {
            server.be(mood);
            error(sign(plain(), signer, None).await)
        };
        assert!(matches!(ask(Mood::Silent).await, SigningError::Unavailable(_)), "{signer:?}");
        assert!(matches!(ask(Mood::OtherKey).await, SigningError::Wrong(_)), "{signer:?}");
        assert!(matches!(ask(html.clone()).await, SigningError::Wrong(_)), "{signer:?}");
        assert!(matches!(ask(short.clone()).await, SigningError::Wrong(_)), "{signer:?}");
        assert!(matches!(ask(Mood::Endless).await, SigningError::Wrong(_)), "{signer:?}");
        assert!(matches!(ask(Mood::Says(302, String::new())).await, SigningError::Refused(_)), "{signer:?}");
        assert!(matches!(ask(Mood::Says(401, String::new())).await, SigningError::Refused(_)), "{signer:?}");
        for later in [429, 503] {
            assert!(
                matches!(ask(Mood::Says(later, String::new())).await, SigningError::Unavailable(_)),
                "{signer:?}"
            );
        }
    }
    // A signature with a high s is as good as its mirror; Thor's pool takes the mirror alone. KMS knows nothing of that, so it is turned.
    server.be(Mood::HighS);
    let refused = error(sign(plain(), &remote, None).await);
    assert!(refused.to_string().contains("upper half"), "{refused}");
    let signed = sign(plain(), &kms, None).await.unwrap();
    assert_eq!(signed, SignedTx::sign(plain(), &Signer::from_hex(K1).unwrap()).unwrap());

    server.be(exception("ThrottlingException"));
    assert_eq!(error(sign(plain(), &kms, None).await), SigningError::unavailable("ThrottlingException"));
    server.be(exception("AccessDeniedException"));
    assert_eq!(error(sign(plain(), &kms, None).await), SigningError::refused("AccessDeniedException"));
    server.be(Mood::Well);
    assert!(sign(plain(), &remote, None).await.is_ok());
}

#[tokio::test]
async fn a_signature_of_another_transaction_is_not_used() {
    let (other, digest) = (UnsignedTx { nonce: 1, ..plain() }, Signer::from_hex(K1).unwrap());
    let foreign = digest.sign_prehash(other.signing_hash().as_bytes()).unwrap();
    let server = server(K1);
    server.be(Mood::Says(200, format!(r#"{{"signature":"0x{}"}}"#, hex::encode(foreign.0))));
    assert!(matches!(error(sign(plain(), &remote(&server), None).await), SigningError::Wrong(_)));
}

#[tokio::test]
async fn where_the_gas_payer_refuses_the_origin_is_not_asked() {
    let (origin, payer) = (server(K1), server(K2));
    payer.be(Mood::Says(403, r#"{"message":"not sponsored"}"#.to_owned()));
    let refused = sign(golden(), &remote(&origin), Some(&sponsor(&payer))).await.unwrap_err();
    assert!(
        refused.to_string().starts_with(&format!("the gas payer {}: it refuses", payer.address)),
        "{refused}"
    );
    assert!(origin.asked().is_empty());
}

#[tokio::test]
async fn aws_is_asked_with_a_signature_of_the_region_the_body_and_the_session() {
    let server = server(K1);
    let kms = kms(&server, credentials()).await.unwrap();
    assert_eq!(kms.address(), server.address);
    sign(plain(), &kms, None).await.unwrap();
    for asked in server.asked() {
        let authorization = &asked.headers["authorization"];
        let scope =
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20231114/eu-central-1/kms/aws4_request, SignedHeaders=";
        assert!(authorization.starts_with(scope), "{authorization}");
        assert!(authorization.contains("x-amz-target") && authorization.contains("x-amz-security-token"));
        assert_eq!(asked.headers["x-amz-security-token"], "session-of-aws");
        assert_eq!(asked.headers["x-amz-date"], "20231114T221320Z");
        assert!(!authorization.contains("secret-of-aws"));
    }
    let signatures: Vec<String> =
        server.asked().iter().map(|asked| asked.headers["authorization"].clone()).collect();
    assert_eq!(signatures.len(), 2);
    assert_ne!(signatures[0], signatures[1], "the body is signed too");
}

#[tokio::test]
async fn a_key_of_another_kind_in_kms_is_refused_at_the_start() {
    let server = server(K1);
    let of = |spec: &str, usage: &str, public: &str| {
        Mood::Says(
            200,
            serde_json::json!({"PublicKey": public, "KeySpec": spec, "KeyUsage": usage}).to_string(),
        )
    };
    server.be(of("ECC_NIST_P256", "SIGN_VERIFY", ""));
    assert!(matches!(kms(&server, credentials()).await, Err(SigningError::Config(_))));
    server.be(of("ECC_SECG_P256K1", "KEY_AGREEMENT", ""));
    assert!(matches!(kms(&server, credentials()).await, Err(SigningError::Config(_))));
    for public in ["", "!", "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAE"] {
        server.be(of("ECC_SECG_P256K1", "SIGN_VERIFY", public));
        assert!(matches!(kms(&server, credentials()).await, Err(SigningError::Wrong(_))), "{public}");
    }
}

/// The metadata service of an instance: three questions, of which the last two carry the session's token.
fn metadata(role: &'static str) -> (String, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let heads = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = heads.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..length]).to_lowercase();
            let body = match head.lines().next().unwrap() {
                line if line.starts_with("put ") => "session-1",
                line if line.contains("credentials/ ") => role,
                _ => {
                    r#"{"Code":"Success","AccessKeyId":"AKIDOFROLE","SecretAccessKey":"s","Token":"t","Expiration":"2026-01-01T00:00:00Z"}"#
                }
            };
            kept.lock().unwrap().push(head);
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                .unwrap();
        }
    });
    (url, heads)
}

#[tokio::test]
async fn the_credentials_of_an_instances_role_are_asked_for_once_in_a_while() {
    let (url, heads) = metadata("payer-role\n");
    let server = server(K1);
    let kms = kms(&server, AwsCredentials::instance(&url).unwrap()).await.unwrap();
    sign(plain(), &kms, None).await.unwrap();
    assert!(server.asked().iter().all(|asked| asked.headers["authorization"].contains("AKIDOFROLE")));
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 3, "{heads:?}");
    assert!(heads[0].contains("x-aws-ec2-metadata-token-ttl-seconds: 60"));
    assert!(heads[2].starts_with("get /latest/meta-data/iam/security-credentials/payer-role "));
    assert!(heads[1..].iter().all(|head| head.contains("x-aws-ec2-metadata-token: session-1")));
}

#[tokio::test]
async fn an_instance_without_a_role_says_so() {
    let (url, _) = metadata("");
    let found = kms(&server(K1), AwsCredentials::instance(&url).unwrap()).await.unwrap_err();
    assert!(matches!(found, SigningError::Config(_)), "{found}");
}

#[test]
fn without_tls_only_a_signer_of_this_machine_is_asked() {
    let address = Address([1; 20]);
    let open = |url: &str| RemoteSigner::new(url, address, None, LIMITS).is_ok();
    for good in ["https://signer.example/v1", "http://127.0.0.1:9/", "http://localhost:9", "http://[::1]:9/"]
    {
        assert!(open(good), "{good}");
    }
    for bad in [
        "http://signer.example/",
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "ftp://127.0.0.1/",
        "signer",
        "",
    ] {
        assert!(!open(bad), "{bad}");
    }
    let bad = RemoteSigner::new("https://a/", address, Some("a\nb".to_owned().into()), LIMITS).unwrap_err();
    assert!(matches!(bad, SigningError::Config(_)));
}

#[tokio::test]
async fn nothing_shows_a_token_a_key_or_an_address_that_may_carry_one() {
    let server = server(K1);
    let signer = RemoteSigner::new(
        &format!("{}?key=in-the-url", server.url),
        server.address,
        Some(TOKEN.to_owned().into()),
        LIMITS,
    );
    let (signer, kms) = (signer.unwrap(), kms(&server, credentials()).await.unwrap());
    server.be(Mood::Says(401, format!("Bearer {TOKEN} is unknown")));
    let refused = sign(plain(), &signer, None).await.unwrap_err();
    let shown =
        format!("{signer:?} {kms:?} {refused:?} {refused} {:?} {:?}", credentials(), sponsor(&server));
    for secret in [TOKEN, "in-the-url", "secret-of-aws", "session-of-aws", "AKIDEXAMPLE", "key-1", K1] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
