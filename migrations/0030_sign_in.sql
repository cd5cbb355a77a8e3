-- Signing in with a wallet. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- ingest: what somebody was asked to sign. A row is used once; it is kept for an hour after it ended, so that a replay is told from a guess.
create table wallet_challenges (
    id uuid primary key,
    purpose text not null check (purpose in ('sign_in', 'link_wallet')),
    -- Whose account a wallet is linked to; null where somebody signs in.
    user_id uuid references users (id),
    wallet_address varchar(42) not null check (wallet_address ~ '^0x[0-9a-f]{40}$'),
    domain text not null,
    genesis_id text not null,
    nonce text not null,
    -- The network that asked, as rates count it.
    asked_from text not null,
    issued_at timestamptz not null,
    expires_at timestamptz not null,
    used_at timestamptz
);
create index on wallet_challenges (asked_from, expires_at);
create index on wallet_challenges (expires_at);

-- ingest: refresh tokens that were used, by their SHA-256: one that comes again is in two hands.
create table spent_refresh_tokens (
    token_hash text primary key,
    session_id uuid not null references user_sessions (id) on delete cascade,
    spent_at timestamptz not null
);
create index on spent_refresh_tokens (session_id, spent_at);
create index on spent_refresh_tokens (spent_at);

-- ingest: attempts in vain, by network and by wallet, so that the delay after them holds over restarts and gateways.
create table sign_in_failures (
    key text primary key,
    failures integer not null,
    last_at timestamptz not null,
    delayed_until timestamptz not null
);
create index on sign_in_failures (last_at);

-- What the tokens of an account allow.
alter table users add column role text not null default 'driver' check (role in ('driver', 'reviewer', 'operator'));
-- When the wallet's own signature was seen last; null for one that an operator linked and that never signed.
alter table user_wallets add column verified_at timestamptz;
