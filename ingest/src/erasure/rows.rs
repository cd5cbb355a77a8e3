//! The rows of a person, table by table. A new table that holds something about people needs a line here, and one in `crate::export`.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// In this order; `$1` is the user, and `$2` the time where one is noted. Each may be repeated, and what is pseudonymous stays: ids,
/// amounts, instants, hashes.
const STATEMENTS: &[&str] = &[
    // What they signed in with. Used refresh tokens go with their session.
    "delete from user_sessions where user_id = $1",
    "delete from api_keys where user_id = $1",
    "delete from email_codes where user_id = $1",
    "delete from wallet_challenges c where (user_id = $1 or exists (
        select from user_wallets w where w.user_id = $1 and w.wallet_address = c.wallet_address))",
    "delete from sign_in_failures where key in (
        select 'wallet/' || wallet_address from user_wallets where user_id = $1)",
    // Offers of vehicles, by and to them.
    "update vehicle_transfers t set to_address = null, outcome = coalesce(outcome, 'cancelled'), ended_at = coalesce(ended_at, $2)
        where to_address is not null and (from_user = $1 or to_user = $1 or exists (
            select from user_wallets w where w.user_id = $1 and w.wallet_address = t.to_address))",
    "delete from wallet_changes where user_id = $1",
    // A claim names its wallet, and the books name the claim: the row stays without its address.
    "delete from user_wallets w where user_id = $1
        and not exists (select from reward_claims c where c.wallet_id = w.id)",
    "update user_wallets set wallet_address = null, is_primary = false, balance = null, last_sync_at = null, verified_at = null,
        removed_at = coalesce(removed_at, $2), updated_at = $2 where user_id = $1 and wallet_address is not null",
    // What they were told, how many photos they sent, and from how many places.
    "delete from notice_deliveries where user_id = $1",
    "delete from notice_failures where user_id = $1",
    "delete from notice_secrets where user_id = $1",
    "delete from upload_counts where subject = $1 and not of_vehicle
        or of_vehicle and subject in (select id from vehicles where user_id = $1)",
    "delete from upload_origins where user_id = $1",
    // What they said of themselves and of what they drive.
    "delete from user_preferences where user_id = $1",
    "update vehicles set name = null, retired_at = coalesce(retired_at, $2), updated_at = $2
        where user_id = $1 and (name is not null or retired_at is null)",
    // What was read from their photos, and what they sent. Who had a picture first stays, by its hash: or it would be paid a second time.
    "delete from reading_results r where image_hash in (
        select image_hash from photo_hashes where user_id = $1
        union select image_hash from odometer_uploads where user_id = $1)",
    "delete from photo_hashes where user_id = $1",
    "delete from idempotency_keys where user_id = $1",
    "delete from rejections where user_id = $1",
    // Sums over one person.
    "delete from analytics_data where user_id = $1",
    // Copies of records that are published: what is in the topics is sealed, or gone with their retention. Ids are text in a record.
    "delete from outbox where published_at is not null and topic <> 'chain.events'
        and position(convert_to($1::text, 'UTF8') in payload) > 0",
    // By this key alone the sealed texts in topics, reviews and kept outputs can be read.
    "delete from user_keys where user_id = $1",
    "update users set wallet_address = null, email = null, username = null, profile_image = null, last_login_at = null,
        is_active = false, is_verified = false, verification_level = 'basic', role = 'driver', held_at = null, updated_at = $2
        where id = $1 and (is_active or num_nonnulls(wallet_address, email, username, profile_image, last_login_at) > 0)",
    "update system_audit_logs set ip_address = null, user_agent = null,
        action_details = case when module in ('users', 'wallets', 'vehicles', 'auth') or action_details ->> 'target' = $1::text
            then system_audit_logs_erased(action_details) else action_details end
        where (user_id = $1 or action_details ->> 'target' = $1::text)
            and (num_nonnulls(ip_address, user_agent) > 0 or not action_details ? 'erased')",
];

/// Takes them away. The row of `erasures` says already that they are: the audit log lets values go of nobody else.
pub(super) async fn erase(tx: &mut PgConnection, user: Uuid, at: DateTime<Utc>) -> Result<(), sqlx::Error> {
    for statement in STATEMENTS {
        let of_user = sqlx::query(*statement).bind(user);
        let query = if statement.contains("$2") { of_user.bind(at) } else { of_user };
        query.execute(&mut *tx).await?;
    }
    Ok(())
}
