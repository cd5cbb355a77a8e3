-- Readings that were verified and then lowered. Every instant is UTC. No schema is named: tests and replays run these in schemas of their
-- own.

-- The Postgres sink: what was verified before the newest correction, in `mileage_unit`, and when it was corrected.
alter table mileage_data
    add column uncorrected_mileage numeric(10,2),
    add column corrected_at timestamptz;

-- chain_submission: rewards that are not paid any more unless they are already, because the reading that they reward was corrected; also
-- those whose grant has not come yet.
create table payout_corrections (
    reward_id uuid primary key,
    event_id uuid not null,
    corrected_at timestamptz not null,
    -- When the reward was cancelled; null while it is not there yet, in a transaction, or paid.
    cancelled_at timestamptz
);
create index on payout_corrections (reward_id) where cancelled_at is null;
