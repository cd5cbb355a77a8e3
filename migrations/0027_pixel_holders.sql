-- Who sent a picture first, whatever file it was in. Every instant is UTC. No schema is named: tests and replays run these in schemas of
-- their own.

-- odometer_reading: the first upload that was read with these pixels. 32 bytes of SHA-256 and 56 more: 100 million photos are 9 GB, and
-- their index 6.
create table pixel_holders (
    pixel_hash bytea primary key check (length(pixel_hash) = 32),
    user_id uuid not null,
    vehicle_id uuid not null,
    upload_id uuid not null,
    accepted_at timestamptz not null
);
