-- Accounts: request state, written by the gateway; the three totals of users by the sinks.
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

create type users_verification_level as enum ('basic', 'verified', 'premium');
create table users (
    id uuid primary key,
    wallet_address varchar(42),
    email varchar(255),
    username varchar(100),
    profile_image varchar(500),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_login_at timestamptz,
    is_active boolean not null default true,
    is_verified boolean not null default false,
    verification_level users_verification_level not null default 'basic',
    total_mileage numeric(10,2) not null default 0,
    total_rewards numeric(18,8) not null default 0,
    sustainability_score integer,
    unique (wallet_address),
    check (wallet_address ~ '^0x[0-9a-f]{40}$'),
    check (total_mileage >= 0),
    check (total_rewards >= 0),
    check (sustainability_score between 0 and 100)
);
create unique index on users (lower(email));

create table user_sessions (
    id uuid primary key,
    user_id uuid not null references users (id),
    session_token varchar(255),
    refresh_token varchar(255),
    expires_at timestamptz,
    created_at timestamptz,
    ip_address varchar(45),
    user_agent text,
    is_active boolean,
    last_activity timestamptz,
    unique (session_token),
    unique (refresh_token)
);
create index on user_sessions (user_id) where is_active;
create index on user_sessions (expires_at);

create table user_preferences (
    id uuid primary key,
    user_id uuid not null references users (id),
    notification_preferences jsonb,
    dashboard_settings jsonb,
    reward_preferences jsonb,
    created_at timestamptz,
    updated_at timestamptz,
    unique (user_id)
);

create type user_wallets_wallet_type as enum ('vechain', 'ethereum', 'polygon');
create type user_wallets_network as enum ('mainnet', 'testnet');
create table user_wallets (
    id uuid primary key,
    user_id uuid not null references users (id),
    wallet_address varchar(42),
    wallet_type user_wallets_wallet_type,
    network user_wallets_network,
    is_primary boolean,
    balance numeric(18,8),
    last_sync_at timestamptz,
    created_at timestamptz,
    updated_at timestamptz,
    unique (wallet_type, network, wallet_address),
    check (wallet_address ~ '^0x[0-9a-f]{40}$'),
    check (not is_primary or wallet_type = 'vechain')
);
create unique index on user_wallets (user_id) where is_primary;
