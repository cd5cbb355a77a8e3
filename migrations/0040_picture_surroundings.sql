-- Copies that were cropped or made anew. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- odometer_reading: what each photo that it has read shows around its number, and the photo of another vehicle that looks like it, as it was
-- found when this one was read. A copy shows the same number, by which it is looked up. 100 million photos are 50 GB, the index of numbers
-- 4 GB.
create table picture_surroundings (
    upload_id uuid primary key,
    user_id uuid not null,
    vehicle_id uuid not null,
    accepted_at timestamptz not null,
    image_hash bytea not null check (length(image_hash) = 32),
    mileage numeric not null,
    surroundings bytea not null check (length(surroundings) = 352),
    look_alike jsonb
);
create index on picture_surroundings (mileage, accepted_at desc);
