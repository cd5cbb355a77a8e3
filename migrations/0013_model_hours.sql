-- analytics sink: what is needed for the hourly documents of models until the hour is closed. No part of a rebuild: the documents
-- of closed hours were written.
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- Every hour that begins before it is closed. One row.
create table model_hours_closed (
    only_row boolean primary key default true check (only_row),
    upto timestamptz not null
);
insert into model_hours_closed (upto) values ('0001-01-01T00:00:00Z');

-- The newest acceptance of each partition of uploads.readings.
create table model_hours_seen (
    partition integer primary key,
    newest timestamptz not null
);

-- The tries of open hours, one row a model of the reader.
create table model_tries (
    event_id uuid not null,
    attempt integer not null,
    model_name text not null,
    model_version text not null,
    hour timestamptz not null,
    outcome text not null,
    several_readings boolean not null,
    processing_time_ms integer not null,
    cpu_ms integer,
    rss_mb integer,
    primary key (event_id, attempt, model_name)
);
create index on model_tries (hour);
