-- analytics sink: what people have said of readings, until the hour in which they said it is closed. No part of a rebuild: the documents of
-- closed hours were written. No schema is named: tests and replays run these in schemas of their own.
create table model_labels (
    event_id uuid not null,
    model_name text not null,
    model_version text not null,
    hour timestamptz not null,
    -- Whether the models had read a mileage, and whether it was the one that the photo shows.
    was_read boolean not null,
    was_right boolean not null,
    primary key (event_id, model_name)
);
create index on model_labels (hour);
