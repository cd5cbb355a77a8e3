-- What a replay keeps beside the stages' own tables, in its shadow schema. None of it is in the live schema.

-- What was asked for, and how far it is.
create table if not exists replay (
    singleton boolean primary key default true check (singleton),
    -- The window, the stages and the file of rules: whoever starts the replay again has to ask for the same.
    spec jsonb not null,
    -- Offsets in uploads.received, and how many uploads stand there.
    cut jsonb,
    accepted bigint,
    begun_at timestamptz not null,
    copied_at timestamptz,
    finished_at timestamptz
);

-- What was recorded of the drivers with an upload in the window, as it stands on the topics. `what` is reading, decided, calculated,
-- cancelled, adjusted, granted or adjusted_grant.
create table if not exists replay_records (
    what text not null,
    partition integer not null,
    record_offset bigint not null,
    event_id uuid not null,
    user_id uuid not null,
    timestamp_ms bigint not null,
    in_window boolean not null,
    record bytea not null,
    primary key (what, partition, record_offset)
);
create index if not exists replay_records_event_idx on replay_records (event_id);
create index if not exists replay_records_changed_idx on replay_records (user_id, record_offset) where what in ('cancelled', 'adjusted');
create index if not exists replay_records_adjusted_idx on replay_records (user_id, record_offset) where what = 'adjusted_grant';

-- Per partition of uploads.readings: every record below it is done.
create table if not exists replay_progress (
    partition integer primary key,
    done_upto bigint not null
);

-- What may happen once and has: one verdict, one grant and one refund.
create table if not exists replay_effects (
    effect text primary key
);

-- Of each record of the window: what was recorded of it, and what the replay has made of it.
create table if not exists replay_outcomes (
    effect text primary key,
    partition integer not null,
    record_offset bigint not null,
    upload_id uuid not null,
    user_id uuid not null,
    accepted_at timestamptz not null,
    recorded jsonb not null,
    replayed jsonb not null,
    differs boolean not null,
    -- Whether promoting it cancels the reward, and when that was done.
    cancels boolean not null,
    promoted_at timestamptz
);
-- Set exactly where promoting it lowers or raises the reward: the reward as the replay has worked it out, and why it grants less than that.
-- A replay that a release before has begun gets these columns.
alter table replay_outcomes add column if not exists calculation jsonb;
alter table replay_outcomes add column if not exists grant_detail text;
create index if not exists replay_outcomes_differs_idx on replay_outcomes (partition, record_offset) where differs;
create index if not exists replay_outcomes_cancels_idx on replay_outcomes (effect) where cancels;
create index if not exists replay_outcomes_moves_idx on replay_outcomes (effect) where cancels or calculation is not null;
