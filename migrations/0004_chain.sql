-- Contracts and networks (operator commands); transactions and events (materialized).
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

create type smart_contracts_contract_type as enum ('token', 'reward_distributor', 'governance', 'staking');
create type smart_contracts_network as enum ('mainnet', 'testnet');
create table smart_contracts (
    id uuid primary key,
    contract_name varchar(100),
    contract_address varchar(42),
    contract_type smart_contracts_contract_type,
    network smart_contracts_network,
    abi_version varchar(20),
    deployed_at timestamptz,
    is_active boolean default true,
    total_supply numeric(18,8),
    circulating_supply numeric(18,8),
    created_at timestamptz,
    updated_at timestamptz,
    bytecode text,
    abi jsonb,
    deployed_by varchar(42),
    app_id varchar(66),
    genesis_id varchar(66),
    unique (genesis_id, contract_address),
    check (contract_address ~ '^0x[0-9a-f]{40}$')
);
create unique index on smart_contracts (genesis_id, contract_name) where is_active;

create type blockchain_transactions_transaction_type as enum ('reward_distribution', 'token_transfer', 'contract_interaction');
create type blockchain_transactions_blockchain_network as enum ('vechain_mainnet', 'vechain_testnet');
create type blockchain_transactions_status as enum ('pending', 'confirmed', 'failed', 'reverted');
create table blockchain_transactions (
    id uuid primary key,
    user_id uuid references users (id),
    transaction_type blockchain_transactions_transaction_type,
    tx_hash varchar(66) not null,
    blockchain_network blockchain_transactions_blockchain_network,
    from_address varchar(42),
    to_address varchar(42),
    amount numeric(18,8),
    gas_used integer,
    gas_price numeric(18,8),
    transaction_fee numeric(18,8),
    block_number integer,
    block_timestamp timestamptz,
    confirmation_count integer default 0,
    required_confirmations integer default 12,
    status blockchain_transactions_status,
    error_message text,
    retry_count integer default 0,
    max_retries integer default 3,
    created_at timestamptz,
    confirmed_at timestamptz,
    genesis_id varchar(66),
    block_id varchar(66),
    clause_count integer,
    gas_payer varchar(42),
    gas_price_wei numeric(38,0),
    fee_wei numeric(38,0),
    attempt_state text,
    broadcast_count integer not null default 0,
    finalized_at timestamptz,
    revision bigint not null default 0,
    unique (tx_hash),
    check (from_address ~ '^0x[0-9a-f]{40}$'),
    check (to_address ~ '^0x[0-9a-f]{40}$')
);
create index on blockchain_transactions (block_number) where status = 'pending';
create index on blockchain_transactions (user_id, created_at desc);

create table blockchain_events (
    id uuid primary key,
    contract_address varchar(42),
    event_type varchar(100),
    event_signature varchar(66),
    block_number integer,
    block_timestamp timestamptz,
    tx_hash varchar(66),
    log_index integer,
    event_data jsonb,
    processed boolean,
    processed_at timestamptz,
    created_at timestamptz,
    genesis_id varchar(66),
    block_id varchar(66),
    clause_index integer,
    canonical boolean not null default true,
    unique (genesis_id, block_id, log_index),
    check (contract_address ~ '^0x[0-9a-f]{40}$')
);
create index on blockchain_events (tx_hash);
create index on blockchain_events (contract_address, event_type, block_number) where canonical;

create type network_configs_network_name as enum ('vechain_mainnet', 'vechain_testnet');
create table network_configs (
    id uuid primary key,
    network_name network_configs_network_name,
    rpc_url varchar(500),
    websocket_url varchar(500),
    chain_id integer,
    block_time integer,
    gas_limit integer,
    gas_price numeric(18,8),
    is_active boolean default true,
    created_at timestamptz,
    updated_at timestamptz,
    genesis_id varchar(66),
    priority integer not null default 1,
    unique (genesis_id, rpc_url)
);
