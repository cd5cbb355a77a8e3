-- Decision and request state: what the pipeline must remember, written by its one owner each.

-- The fence: every record below decided_upto is decided; epoch counts owners.
create table stage_offsets (
    stage text not null,
    topic text not null,
    partition integer not null,
    epoch bigint not null,
    decided_upto bigint not null,
    owner text not null,
    updated_at timestamptz not null,
    primary key (stage, topic, partition)
);

-- One row a consumed record of a deciding stage: its outcome and the bytes that were published.
create table decisions (
    stage text not null,
    input_event_id uuid not null,
    redrive integer not null default 0,
    effect_id text,
    topic text not null,
    partition integer not null,
    record_offset bigint not null,
    rules_version text not null,
    outcome text not null check (outcome in ('emit', 'drop', 'dead_letter')),
    reason text,
    evidence jsonb not null,
    output bytea not null,
    occurred_at timestamptz not null,
    primary key (stage, input_event_id, redrive),
    unique (stage, effect_id),
    unique (stage, topic, partition, record_offset)
);

-- fraud_check: the last verified reading of a vehicle under an owner.
create table vehicle_readings (
    vehicle_id uuid not null,
    user_id uuid not null,
    last_km numeric(16,6) not null,
    highest_km numeric(16,6) not null,
    unit text not null check (unit in ('km', 'miles')),
    last_at timestamptz not null,
    last_upload_id uuid not null,
    primary key (vehicle_id, user_id)
);

-- odometer_reading: answers by photo and reader, so that a redelivery reads nothing again.
create table reading_results (
    image_hash varchar(64) not null,
    reader_version text not null,
    result jsonb not null,
    created_at timestamptz not null default now(),
    primary key (image_hash, reader_version)
);

-- ingest: who owns which vehicle.
create table vehicles (
    id uuid primary key,
    user_id uuid not null references users (id),
    kind text not null default 'unknown'
        check (kind in ('petrol', 'diesel', 'hybrid', 'plug_in', 'lpg', 'electric', 'unknown')),
    created_at timestamptz not null default now()
);
create index on vehicles (user_id);

-- ingest: a photo of a user is reserved with the bytes of its event, then published.
create table photo_hashes (
    user_id uuid not null references users (id),
    image_hash varchar(64) not null,
    upload_id uuid not null unique,
    event_id uuid not null,
    event bytea not null,
    reserved_at timestamptz not null,
    published_at timestamptz,
    primary key (user_id, image_hash)
);
create index on photo_hashes (reserved_at) where published_at is null;

-- ingest: the first published holder of a photo's hash.
create table photo_first_holders (
    image_hash varchar(64) primary key,
    user_id uuid not null,
    upload_id uuid not null,
    published_at timestamptz not null
);

-- ingest: what an Idempotency-Key stood for.
create table idempotency_keys (
    user_id uuid not null references users (id),
    key varchar(255) not null,
    image_hash varchar(64) not null,
    created_at timestamptz not null default now(),
    primary key (user_id, key)
);

-- ingest: the key that opens a user's private text in events; deleting it erases the text.
create table user_keys (
    user_id uuid primary key references users (id),
    key bytea not null check (length(key) = 32)
);

-- What no input record causes, on its way to Kafka.
create table outbox (
    id bigint generated always as identity primary key,
    topic text not null,
    key bytea,
    event_id uuid not null unique,
    payload bytea not null,
    created_at timestamptz not null default now(),
    published_at timestamptz
);
create index on outbox (id) where published_at is null;
