-- What waits for a person. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- fraud_check: an upload in doubt, as it was read, with the checks that doubt it. The gateway: who has decided it, and how. A row is never
-- taken away: by it a decision is explained, and an upload is decided by one person once.
create table reviews (
    upload_id uuid primary key,
    user_id uuid not null,
    accepted_at timestamptz not null,
    opened_at timestamptz not null,
    reason text not null,
    detail text not null,
    signals jsonb not null,
    -- `OdometerRead` without its text and attempts: it comes a second time with what the person has decided.
    record jsonb not null,
    reviewer_id uuid,
    decided_at timestamptz,
    decision jsonb,
    check ((decided_at is null) = (reviewer_id is null) and (decided_at is null) = (decision is null))
);
-- The queue, oldest first.
create index on reviews (accepted_at, upload_id) where decided_at is null;
