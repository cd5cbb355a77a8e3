-- What bonuses are for. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- fraud_check: in which of the last 64 ISO weeks a driver has verified photos. Folded from the verified uploads in `uploads.decided`.
create table driver_weeks (
    user_id uuid primary key,
    -- The newest, counted from that of 1970-01-01.
    newest integer not null,
    -- Bit n: n weeks before the newest there was a verified photo, or one that earned something.
    verified bigint not null,
    earning bigint not null
);
