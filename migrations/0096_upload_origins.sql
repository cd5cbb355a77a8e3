-- Where accounts send photos from. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- ingest: a row for each account that sent a photo from a device or, while the account was young, from an address; counted as the next
-- photo from there is accepted. Gone 30 days after it was last seen, or with the account.
create table upload_origins (
    user_id uuid not null,
    -- HMAC-SHA256 of the device's id, or of the client's address, under a secret that follows from the key that signs tokens: by the row
    -- alone nobody can tell which device or address it is, also not by trying all addresses.
    origin bytea not null check (octet_length(origin) = 32),
    -- When a photo came from there last, to the hour.
    seen_at timestamptz not null,
    -- Begins with the user, so that an erasure and an export find an account's rows by it.
    primary key (user_id, origin)
);
-- How many accounts an origin has: the newest first, so that the count stops at the 64th.
create index on upload_origins (origin, seen_at);
-- What is old is taken away from its oldest end.
create index on upload_origins (seen_at);
