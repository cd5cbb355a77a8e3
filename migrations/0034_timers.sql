-- Work that is due at a time. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- timers: a row a job. `due_at` moves on when a run has ended well; `leased_until` lapses by the database's clock, so that one process at a
-- time runs a job, and a run that failed is tried again when it has lapsed.
create table timers (
    job text primary key,
    due_at timestamptz not null,
    owner text not null default '',
    epoch bigint not null default 0,
    leased_until timestamptz not null default '-infinity'
);

-- Nobody has decided a review whose time has run out: it has no reviewer.
alter table reviews drop constraint reviews_check;
-- allowed: a row per upload in doubt, of which there are few before anybody can decide them
alter table reviews add constraint reviews_decided check (
    (decided_at is null) = (decision is null) and (reviewer_id is null or decided_at is not null)
);
-- Those that nobody has decided, by the time at which they run out.
-- allowed: a row per upload in doubt, of which there are few before anybody can decide them
create index on reviews (opened_at) where decided_at is null;
