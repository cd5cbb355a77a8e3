-- How many photos were taken. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- ingest: photos of a user and of a vehicle that were accepted in the window that runs. A row each, changed in the statement that
-- reserves a photo, so that a limit holds over restarts and over all gateways, and the table grows with accounts and vehicles alone.
create table upload_counts (
    -- A user's or a vehicle's id. A form may name any vehicle, also one with a user's id.
    subject uuid not null,
    of_vehicle boolean not null,
    window_start timestamptz not null,
    taken integer not null check (taken > 0),
    -- The limit in force when it was counted last.
    most integer not null,
    primary key (subject, of_vehicle)
);
