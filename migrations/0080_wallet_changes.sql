-- Wallets that are to become the primary ones. Every instant is UTC. No schema is named: tests and replays run these in schemas of their
-- own.

-- ingest: at most one for a user. Until it is due `user_wallets.is_primary` stays with the wallet before, which is paid to.
create table wallet_changes (
    user_id uuid primary key references users (id),
    wallet_id uuid not null references user_wallets (id),
    requested_at timestamptz not null,
    due_at timestamptz not null
);
create index on wallet_changes (due_at);
create index on wallet_changes (wallet_id);
