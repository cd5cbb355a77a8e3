-- Rewards that are worked out anew by a replay that is promoted. Every instant is UTC. No schema is named: tests and replays run these in
-- schemas of their own.

-- chain_submission: the newest adjustment that the amount has taken, or that was refused; 0 where there is none.
alter table payouts add column adjustment integer not null default 0;

-- Operator commands begin an adjustment, chain_submission ends it with the grant that answers it. A raise that is open keeps its reward from
-- being planned. It may come before its payout, where nothing was granted until now. Kept for good: a few rows per promoted replay.
create table payout_adjustments (
    reward_id uuid not null,
    number integer not null check (number > 0),
    -- The replay that is promoted.
    promotion text not null,
    granted_before numeric(18,8) not null,
    granted numeric(18,8) not null check (granted > 0 and granted <> granted_before),
    begun_at timestamptz not null,
    -- How often its record was put into the outbox.
    published integer not null default 1,
    ended_at timestamptz,
    -- lowered, raised, refused or late.
    outcome text check ((outcome is null) = (ended_at is null)),
    -- Why it was refused.
    detail text,
    primary key (reward_id, number)
);
create unique index on payout_adjustments (reward_id) where ended_at is null;

-- The Postgres sink: the newest adjustment that the calculated columns are of; 0 for the first calculation.
alter table rewards add column adjustment integer not null default 0;
