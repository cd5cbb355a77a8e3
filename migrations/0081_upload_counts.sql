-- How many photos were taken. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- ingest: photos of a user and of a vehicle that were accepted in the window that runs. A row each, changed in the statement that
-- reserves a photo, so that a limit holds over restarts and over all gateways, and the table grows with accounts and vehicles alone.
create table upload_counts (
    -- A user's or a vehicle's id: both are random or derived under a namespace of their own, so that none is the other's.
    subject uuid primary key,
    window_start timestamptz not null,
    taken integer not null check (taken > 0),
    -- The limit in force when it was counted last.
    most integer not null
);
