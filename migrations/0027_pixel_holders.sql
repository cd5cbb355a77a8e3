-- Who sent a picture first, whatever file it was in. Every instant is UTC. No schema is named: tests and replays run these in schemas of
-- their own.

-- odometer_reading: the first upload that was read with these pixels. Two SHA-256 and 56 bytes more: 100 million photos are 12 GB, and
-- their index 6.
create table pixel_holders (
    pixel_hash bytea primary key check (length(pixel_hash) = 32),
    user_id uuid not null,
    vehicle_id uuid not null,
    upload_id uuid not null,
    accepted_at timestamptz not null,
    -- SHA-256 of its file: who sent one file first is known since acceptance.
    image_hash bytea not null check (length(image_hash) = 32)
);
