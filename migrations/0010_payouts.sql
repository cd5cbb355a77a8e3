-- What paying a reward and following the chain must remember, beyond 0009.
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- ingest: a driver's claim, one a reward; asking again gives this answer again.
create table reward_claims (
    reward_id uuid primary key,
    user_id uuid not null references users (id),
    wallet_id uuid not null references user_wallets (id),
    event_id uuid not null unique,
    claimed_at timestamptz not null
);

-- ingest: how far the watcher of a network has come, in the transaction that takes its steps.
create table chain_cursors (
    genesis_id varchar(66) primary key,
    highest_seq bigint not null,
    checkpoint jsonb not null,
    updated_at timestamptz not null
);

-- chain_submission: claims, also those that came before their grant.
create table payout_claims (
    reward_id uuid primary key,
    wallet_id uuid not null,
    claimed_at timestamptz not null
);

-- chain_submission: the header and the stamp of the grant, which every snapshot of the payout carries on.
alter table payouts
    add column header jsonb not null,
    add column stamp jsonb not null,
    add column ready_at timestamptz,
    add column paid_at timestamptz,
    add column tx_id varchar(66),
    add column updated_at timestamptz not null;
create index on payouts (ready_at) where state = 'ready';
create index on payouts (state);

alter table payout_attempts
    add column contract varchar(42) not null,
    add column app_id varchar(66) not null,
    add column method text not null,
    add column expiration bigint not null,
    add column clause_count integer not null,
    add column batch_wei numeric(38,0) not null,
    add column beneficiary_user uuid,
    add column beneficiary_wallet uuid,
    add column estimated_gas bigint not null,
    add column planned_at timestamptz not null,
    add column signed_at timestamptz,
    add column sent_at timestamptz,
    add column block_timestamp timestamptz,
    add column confirmations integer not null default 0,
    add column confirmed_at timestamptz,
    add column finalized_at timestamptz,
    add column error text,
    -- The stages of its life so far, as transaction_monitoring_logs tells them.
    add column history jsonb not null default '[]';
create index on payout_attempts (state) where state not in ('final', 'reverted_final', 'abandoned');
create index on payout_attempts (block_id);

-- chain_submission: the block tree as far as it was told, and the newest adopted block.
create table payout_blocks (
    genesis_id varchar(66) not null,
    block_id varchar(66) not null,
    number bigint not null,
    parent_id varchar(66) not null,
    adopted boolean not null,
    seq bigint not null,
    primary key (genesis_id, block_id)
);
create table payout_heads (
    genesis_id varchar(66) primary key,
    seq bigint not null,
    block_id varchar(66) not null,
    number bigint not null,
    finalized_number bigint not null
);

-- The lease lapses by the database's clock; the epoch fences an owner that has lost it without noticing.
alter table submitter_leases add column expires_at timestamptz not null default now();

-- postgres sink: which branch a block's events are on; the newest seq counts. Materialized.
create table chain_blocks (
    genesis_id varchar(66) not null,
    block_id varchar(66) not null,
    seq bigint not null,
    canonical boolean not null,
    primary key (genesis_id, block_id)
);
