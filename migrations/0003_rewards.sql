-- Rewards and their payment: materialized, and the limits that limit_check charges.
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

create type rewards_status as enum ('calculated', 'pending', 'distributed', 'failed', 'cancelled');
create table rewards (
    id uuid primary key,
    user_id uuid not null references users (id),
    upload_id uuid not null references odometer_uploads (id),
    base_amount numeric(18,8),
    bonus_amount numeric(18,8),
    total_amount numeric(18,8) generated always as (coalesce(granted_amount, base_amount + bonus_amount)) stored,
    reward_rate numeric(10,4),
    distance_traveled numeric(10,2),
    calculation_factors jsonb,
    status rewards_status,
    calculated_at timestamptz,
    distributed_at timestamptz,
    created_at timestamptz,
    updated_at timestamptz,
    granted_amount numeric(18,8),
    status_reason text,
    revision bigint not null default 0,
    unique (upload_id),
    check (base_amount >= 0),
    check (bonus_amount >= 0),
    check (granted_amount >= 0),
    check (distance_traveled >= 0)
);
create index on rewards (user_id, created_at desc);
create index on rewards (status, calculated_at) where status in ('calculated', 'pending', 'failed');

create type reward_transactions_blockchain_network as enum ('vechain_mainnet', 'vechain_testnet');
create type reward_transactions_status as enum ('pending', 'confirmed', 'failed', 'reverted');
create table reward_transactions (
    id uuid primary key,
    reward_id uuid not null references rewards (id),
    user_id uuid not null references users (id),
    blockchain_tx_hash varchar(66) not null,
    blockchain_network reward_transactions_blockchain_network,
    contract_address varchar(42),
    from_address varchar(42),
    to_address varchar(42),
    amount numeric(18,8),
    gas_used integer,
    gas_price numeric(18,8),
    transaction_fee numeric(18,8),
    block_number integer,
    confirmation_count integer,
    status reward_transactions_status,
    error_message text,
    retry_count integer default 0,
    max_retries integer default 3,
    created_at timestamptz,
    confirmed_at timestamptz,
    clause_index integer,
    attempt_no integer,
    amount_wei numeric(38,0),
    block_id varchar(66),
    revision bigint not null default 0,
    unique (reward_id, blockchain_tx_hash),
    check (retry_count <= max_retries),
    check (contract_address ~ '^0x[0-9a-f]{40}$'),
    check (from_address ~ '^0x[0-9a-f]{40}$'),
    check (to_address ~ '^0x[0-9a-f]{40}$')
);
create index on reward_transactions (blockchain_tx_hash);
create index on reward_transactions (user_id, created_at desc);

create type reward_limits_limit_type as enum ('daily', 'weekly', 'monthly');
create table reward_limits (
    id uuid primary key,
    user_id uuid not null references users (id),
    limit_type reward_limits_limit_type not null,
    limit_amount numeric(18,8) not null,
    current_amount numeric(18,8) not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    is_active boolean not null,
    created_at timestamptz,
    updated_at timestamptz,
    unique (user_id, limit_type, period_start),
    check (current_amount between 0 and limit_amount),
    check (period_end > period_start)
);
create unique index on reward_limits (user_id, limit_type) where is_active;
