-- Several people at one queue, and two of them about a large distance. No schema is named: tests and replays run these in schemas of
-- their own.

-- fraud_check: how much speaks for fraud, and by it and the upload's age its place in the queue; null of what a release before has opened.
-- The gateway: who works on it until when, and what people have said who do not decide alone: an array in their order.
alter table reviews
    add column risk smallint not null default 0,
    add column ranked_at timestamptz,
    add column claimed_by uuid,
    add column claimed_until timestamptz,
    add column opinions jsonb not null default '[]';
-- The queue, in its order.
-- allowed: a row per upload in doubt, of which there are few before anybody can decide them
create index on reviews (coalesce(ranked_at, accepted_at), upload_id) where decided_at is null;
