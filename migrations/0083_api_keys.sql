-- Keys of services. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- ingest and `milestream keys api`: by which a service acts for an account. The key itself is kept nowhere.
create table api_keys (
    id uuid primary key,
    user_id uuid not null references users (id),
    name text not null,
    key_hash text not null unique,
    scopes text[] not null check (scopes <@ array['read', 'write'] and cardinality(scopes) > 0),
    created_at timestamptz not null,
    expires_at timestamptz not null,
    revoked_at timestamptz,
    -- To the hour.
    last_used_at timestamptz
);
create index on api_keys (user_id, created_at);
