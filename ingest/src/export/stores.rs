//! What is kept about a person, store by store: a file of the archive each. A new table that holds something about people needs a row here
//! and one in [`crate::erasure`].

/// A file of the archive.
pub(super) struct Store {
    /// The file, without `.json`.
    pub(super) name: &'static str,
    /// What it holds, for the person.
    pub(super) holds: &'static str,
    /// Rows about the user `$1`: `key`, a text of its own per row, and `row`, JSON. Secrets and other people are left out.
    pub(super) rows: &'static str,
}

/// The files, in their order.
pub(super) const STORES: &[Store] = &[
    Store {
        name: "users",
        holds: "your account",
        rows: "select id::text as key, to_jsonb(u) as row from users u where id = $1",
    },
    Store {
        name: "user_preferences",
        holds: "what you prefer",
        rows: "select id::text as key, to_jsonb(p) as row from user_preferences p where user_id = $1",
    },
    Store {
        name: "user_wallets",
        holds: "your wallets, those too that you removed",
        rows: "select id::text as key, to_jsonb(w) as row from user_wallets w where user_id = $1",
    },
    Store {
        name: "wallet_changes",
        holds: "the wallet that is to be paid to, and from when on",
        rows: "select wallet_id::text as key, to_jsonb(c) as row from wallet_changes c where user_id = $1",
    },
    Store {
        name: "vehicles",
        holds: "your vehicles",
        rows: "select id::text as key, to_jsonb(v) as row from vehicles v where user_id = $1",
    },
    Store {
        name: "vehicle_readings",
        holds: "the last verified reading of each vehicle",
        rows: "select vehicle_id::text as key, to_jsonb(r) as row from vehicle_readings r where user_id = $1",
    },
    Store {
        name: "driver_conduct",
        holds: "when your newest uploads were accepted, and which of the last month were turned down for fraud",
        rows: "select user_id::text as key, to_jsonb(c) as row from driver_conduct c where user_id = $1",
    },
    Store {
        name: "vehicle_transfers",
        holds: "vehicles that you offered, and those that were offered to you and that you answered",
        rows: "select id::text as key, to_jsonb(t) - '{from_user,to_user}'::text[]
                 || jsonb_build_object('offered_by_you', from_user = $1) as row
               from vehicle_transfers t where from_user = $1 or to_user = $1",
    },
    Store {
        name: "user_sessions",
        holds: "where you signed in, without the hashes of your tokens",
        rows: "select id::text as key, to_jsonb(s) - '{session_token,refresh_token}'::text[] as row
               from user_sessions s where user_id = $1",
    },
    Store {
        name: "api_keys",
        holds: "keys by which services act for you, without their hashes",
        rows: "select id::text as key, to_jsonb(k) - 'key_hash' as row from api_keys k where user_id = $1",
    },
    Store {
        name: "email_codes",
        holds: "when a code was sent to your e-mail address last, without the code",
        rows: "select user_id::text as key, to_jsonb(c) - '{code_hash,salt}'::text[] as row from email_codes c where user_id = $1",
    },
    Store {
        name: "uploads",
        holds: "your photos' particulars, the mileage that was read, and how well it could be read",
        rows: "select u.id::text as key, to_jsonb(u) - '{status_rank}'::text[] || jsonb_build_object(
                 'mileage_data', to_jsonb(m) - '{reviewed_by,status_rank}'::text[],
                 'upload_verifications', to_jsonb(v)) as row
               from odometer_uploads u
                 left join mileage_data m on m.upload_id = u.id
                 left join upload_verifications v on v.upload_id = u.id
               where u.user_id = $1",
    },
    Store {
        name: "fraud_results",
        holds: "what was decided about each photo, and by which checks",
        rows: "select d.input_event_id::text || '/' || d.redrive as key, jsonb_build_object('upload_id', u.id,
                 'rules_version', d.rules_version, 'occurred_at', d.occurred_at, 'evidence', d.evidence) as row
               from odometer_uploads u
                 join decisions d on d.stage = 'fraud_check' and d.effect_id = 'verdict:' || u.id
               where u.user_id = $1",
    },
    Store {
        name: "reviews",
        holds: "photos that a person was asked about, your appeals among them, and what was decided",
        rows: "select upload_id::text as key, jsonb_build_object('upload_id', upload_id, 'accepted_at', accepted_at,
                 'opened_at', opened_at, 'reason', reason, 'detail', detail, 'signals', signals,
                 'appealed_at', appealed_at, 'decided_at', decided_at, 'decision', decision) as row
               from reviews where user_id = $1",
    },
    Store {
        name: "appeals",
        holds: "photos that were turned down and that you can still appeal for",
        rows: "select upload_id::text as key, jsonb_build_object('upload_id', upload_id, 'accepted_at', accepted_at,
                 'rejected_at', rejected_at, 'reason', reason, 'detail', detail, 'signals', signals) as row
               from rejections where user_id = $1",
    },
    Store {
        name: "rewards",
        holds: "your rewards",
        rows: "select id::text as key, to_jsonb(r) as row from rewards r where user_id = $1",
    },
    Store {
        name: "reward_limits",
        holds: "what of the budgets of day, week and month you have used",
        rows: "select id::text as key, to_jsonb(l) as row from reward_limits l where user_id = $1",
    },
    Store {
        name: "claims",
        holds: "rewards that you asked to be paid",
        rows: "select reward_id::text as key, to_jsonb(c) as row from reward_claims c where user_id = $1",
    },
    Store {
        name: "payouts",
        holds: "how each reward is paid",
        rows: "select reward_id::text as key, jsonb_build_object('reward_id', reward_id, 'amount_wei', amount_wei::text,
                 'state', state, 'reason', reason, 'claimed_at', claimed_at, 'paid_at', paid_at, 'tx_id', tx_id) as row
               from payouts where user_id = $1",
    },
    Store {
        name: "reward_transactions",
        holds: "payments on the chain",
        rows: "select id::text as key, to_jsonb(t) as row from reward_transactions t where user_id = $1",
    },
    Store {
        name: "notice_deliveries",
        holds: "what you were told by e-mail and webhook",
        rows: "select id::text as key, to_jsonb(n) as row from notice_deliveries n where user_id = $1",
    },
    Store {
        name: "upload_counts",
        holds: "how many photos of yours and of your vehicles were accepted in the window that runs",
        rows: "select subject::text as key, to_jsonb(c) as row from upload_counts c
               where subject = $1 and not of_vehicle or of_vehicle and subject in (select id from vehicles where user_id = $1)",
    },
    Store {
        name: "upload_origins",
        // The code would say of two people who show each other their archives that they share a device.
        holds: "when you sent photos from each of your devices and networks last, without the code that it is known by",
        rows: "select encode(origin, 'hex') as key, to_jsonb(o) - 'origin' as row from upload_origins o where user_id = $1",
    },
    Store {
        name: "analytics_data",
        holds: "sums over your photos and rewards",
        rows: "select id::text as key, to_jsonb(a) - 'dimension_hash' as row from analytics_data a where user_id = $1",
    },
    Store {
        name: "system_audit_logs",
        holds: "what you changed of your account, and what operators changed of it",
        rows: "select id::text as key, to_jsonb(l) || jsonb_build_object('action_details', l.action_details - 'principal') as row
               from system_audit_logs l where user_id = $1
               union all
               select id::text, to_jsonb(l) - '{user_id,ip_address,user_agent}'::text[]
                 || jsonb_build_object('action_details', l.action_details - 'principal')
               from system_audit_logs l
               where module = 'users' and action_details ->> 'target' = $1::text and user_id is distinct from $1",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_files_have_a_name_in_common() {
        let names: std::collections::BTreeSet<&str> = STORES.iter().map(|store| store.name).collect();
        assert_eq!(names.len(), STORES.len());
    }
}
