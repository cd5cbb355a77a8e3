-- Photos in HEIC. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- Every row that is there keeps to it, as it kept to the narrower one: the next migration says so to the planner, without a lock that
-- writers wait for.
alter table odometer_uploads
    drop constraint odometer_uploads_mime_type_check,
    add constraint odometer_uploads_mime_type_check
        check (mime_type in ('image/jpeg', 'image/png', 'image/webp', 'image/heic')) not valid;
