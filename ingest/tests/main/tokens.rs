//! `milestream token`: what it writes.

use std::time::Duration;

use ingest::token::{TokenError, issue};
use ingest::{KeySet, Role, SigningKey};
use schemas::ids::{Micros, UserId};
use uuid::Uuid;

use crate::support::{SCHEMAS, database};

const NOW: Micros = Micros(1_770_000_000_000_000);

#[tokio::test]
async fn a_token_makes_the_account_its_session_and_its_preferences_and_announces_them() {
    let (pool, key) = (database().await, SigningKey::generate().unwrap());
    let user = UserId(Uuid::now_v7());
    let ttl = Duration::from_secs(3600);
    let token = issue(&pool, &key, SCHEMAS(), (user, Role::Operator), ttl, NOW).await.unwrap();
    let claims = KeySet::from_jwks(&key.jwks()).unwrap().check(&token, NOW).unwrap();
    assert_eq!((claims.sub, claims.role, claims.exp - claims.iat), (user, Role::Operator, 3600));

    let (name, level): (String, String) =
        sqlx::query_as("select username, verification_level::text from users where id = $1")
            .bind(user.0)
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(name, format!("driver-{}", &user.0.simple().to_string()[..8]));
    assert_eq!(level, "basic");
    let (session, stored): (Uuid, String) =
        sqlx::query_as("select id, session_token from user_sessions").fetch_one(&pool).await.unwrap();
    assert_eq!(session, claims.sid);
    assert!(stored.starts_with("sha256:") && stored.len() == 71 && !stored.contains(&token));
    let auto: bool =
        sqlx::query_scalar("select (reward_preferences ->> 'auto_claim')::boolean from user_preferences")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(auto);

    issue(&pool, &key, SCHEMAS(), (user, Role::Driver), ttl, NOW).await.unwrap();
    let topics: Vec<String> =
        sqlx::query_scalar("select topic from outbox order by id").fetch_all(&pool).await.unwrap();
    assert_eq!(topics, ["accounts.changed", "activity.logs", "activity.logs"], "the account is new once");
}

#[tokio::test]
async fn a_locked_account_and_an_endless_life_get_no_token() {
    let (pool, key) = (database().await, SigningKey::generate().unwrap());
    let user = UserId(Uuid::now_v7());
    sqlx::query("insert into users (id, is_active) values ($1, false)")
        .bind(user.0)
        .execute(&pool)
        .await
        .unwrap();
    let ttl = Duration::from_secs(60);
    let locked = issue(&pool, &key, SCHEMAS(), (user, Role::Driver), ttl, NOW).await;
    assert!(matches!(locked, Err(TokenError::Locked(who)) if who == user));
    let endless = Duration::from_secs(8 * 86_400);
    let refused = issue(&pool, &key, SCHEMAS(), (user, Role::Driver), endless, NOW).await;
    assert!(matches!(refused, Err(TokenError::Ttl)));
    let sessions: i64 =
        sqlx::query_scalar("select count(*) from user_sessions").fetch_one(&pool).await.unwrap();
    assert_eq!(sessions, 0);
}
