-- What a rule has turned down may be appealed once. Every instant is UTC. No schema is named: tests and replays run these in schemas of
-- their own.

-- fraud_check: an upload that a rule has turned down and that a person may read otherwise, as it was read. The gateway moves a row to
-- `reviews` with the driver's appeal; the role timers takes away what is too old to be appealed.
create table rejections (
    upload_id uuid primary key,
    user_id uuid not null,
    accepted_at timestamptz not null,
    rejected_at timestamptz not null,
    reason text not null,
    detail text not null,
    signals jsonb not null,
    -- `OdometerRead` without its text, attempts and fault.
    record jsonb not null,
    risk smallint not null,
    ranked_at timestamptz not null
);
create index on rejections (rejected_at);

-- When the driver has appealed; null where a rule asked for a person.
alter table reviews add column appealed_at timestamptz;
