-- How drivers behave. Every instant is in microseconds since 1970, UTC. No schema is named: tests and replays run these in schemas of their
-- own.

-- fraud_check: what its limits on uploads and its look at a driver's standing count. Folded from `uploads.readings` with `uploads.decided`; a
-- release before writes none, and counts begin with the first decision of one that does.
create table driver_conduct (
    user_id uuid primary key,
    -- When uploads that could be read were accepted: those of the day up to the newest, at most 128, ascending.
    uploads jsonb not null,
    -- What was turned down for fraud in the 30 days up to the newest: at most 16 of {"accepted_at", "upload_id"}, ascending.
    frauds jsonb not null
);
