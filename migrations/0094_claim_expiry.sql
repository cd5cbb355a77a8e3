-- Rewards that nobody claims in time, and what more people are told. Every instant is UTC. No schema is named: tests and replays run these
-- in schemas of their own.

-- timers: rewards whose driver was told until when they can be claimed. None is cancelled that is not here.
create table claim_expiries (
    reward_id uuid primary key,
    told_at timestamptz not null,
    expires_at timestamptz not null check (expires_at > told_at),
    -- When it was cancelled, or found to be claimed or cancelled otherwise.
    ended_at timestamptz
);
create index on claim_expiries (expires_at) where ended_at is null;
-- What waits for its driver alone, by the time of its grant.
-- allowed: a row per reward, of which a million are read within some seconds; chain_submission alone writes here, and waits for it
create index on payouts (((header->>'occurred_at')::bigint))
    where state = 'waiting' and stamp->>'auto_claim' = 'false' and claimed_at is null;

-- notices: a reward is about to expire, or has.
-- allowed: the old rule is a part of the new one, and no row has to be read again for it
alter table notice_deliveries drop constraint notice_deliveries_kind_check;
-- allowed: it is not validated: no row is read
alter table notice_deliveries add constraint notice_deliveries_kind_check
    check (kind in ('upload_settled', 'reward_paid', 'review_needed', 'security_event', 'reward_expiring', 'reward_expired',
        'vehicle_offered')) not valid;
