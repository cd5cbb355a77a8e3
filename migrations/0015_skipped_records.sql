-- Records that an operator has set aside with `milestream records skip`: a role ends such a record as a dead letter instead of
-- halting its partition. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

create table skipped_records (
    -- The stage or sink that skips it; others still process it.
    stage text not null,
    -- With the environment's prefix.
    topic text not null,
    partition integer not null,
    record_offset bigint not null,
    reason text not null check (reason <> ''),
    skipped_at timestamptz not null default now(),
    primary key (stage, topic, partition, record_offset)
);
