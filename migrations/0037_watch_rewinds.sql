-- Orders to tell blocks of the chain again. No schema is named: tests and replays run these in schemas of their own.

-- Blocks after `to_number` that were told are told once more; the watcher's checkpoint says which order is carried out, and how far.
create table watch_rewinds (
    order_id bigint generated always as identity primary key,
    genesis_id varchar(66) not null,
    to_number bigint not null check (to_number >= 0),
    reason text not null,
    ordered_at timestamptz not null default now()
);
