-- Proven e-mail addresses. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- When the owner of the account has shown by a code that they read what is sent to `email`; null where nobody has.
alter table users add column email_verified_at timestamptz;

-- Another address is unproven, whoever puts it in: a gateway of the release before knows nothing of proofs.
create function users_email_unproven() returns trigger language plpgsql as $$
begin
    new.email_verified_at := null;
    return new;
end $$;
create trigger users_email_unproven before update of email on users
    for each row when (old.email is distinct from new.email) execute function users_email_unproven();

-- ingest and notices: the code that an account has asked for last, a row an account. The gateway asks; the notices role draws the code as
-- it sends it, and keeps its hash alone, so that the code itself is in no table, record or log.
create table email_codes (
    user_id uuid primary key references users (id),
    -- How many were asked for in the window that runs.
    window_start timestamptz not null,
    asked integer not null check (asked > 0),
    asked_at timestamptz not null,
    -- When it is sent next: moved on before it is sent, so that a process that dies leaves it to another. Null once it is sent or given up.
    due_at timestamptz,
    attempts integer not null default 0,
    last_error text,
    -- PBKDF2-HMAC-SHA256 of the code and the address that it was sent to. Null before a code was sent, and once it was used.
    code_hash bytea check (octet_length(code_hash) = 32),
    salt bytea check (octet_length(salt) = 16),
    expires_at timestamptz,
    -- Proofs that were tried with this code.
    tries integer not null default 0,
    check (num_nulls(code_hash, salt, expires_at) in (0, 3))
);
create index on email_codes (due_at) where due_at is not null;
