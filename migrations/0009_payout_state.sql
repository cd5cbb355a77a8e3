-- Limits, payouts and their attempts: decision state of limit_check and chain_submission.
create table limit_charges (
    reward_id uuid not null,
    limit_type reward_limits_limit_type not null,
    user_id uuid not null,
    period_start timestamptz not null,
    amount numeric(18,8) not null check (amount >= 0),
    refunded boolean not null default false,
    primary key (reward_id, limit_type),
    foreign key (user_id, limit_type, period_start) references reward_limits (user_id, limit_type, period_start)
);

create table limit_refunds (
    reward_id uuid primary key,
    reason text not null,
    event_id uuid not null unique,
    occurred_at timestamptz not null
);

create table payouts (
    reward_id uuid primary key,
    user_id uuid not null,
    wallet_id uuid,
    -- A grant is a multiple of 10^10 wei: 8 decimals of B3TR.
    amount_wei numeric(38,0) not null check (amount_wei > 0 and amount_wei % 10000000000 = 0),
    state text not null
        check (state in ('waiting', 'ready', 'in_flight', 'paid', 'final', 'quarantined', 'cancelled')),
    strikes integer not null default 0,
    max_retries integer not null default 3,
    claimed_at timestamptz,
    reason text,
    revision bigint not null default 0
);

create table payout_attempts (
    tx_id varchar(66) primary key,
    genesis_id varchar(66) not null,
    signer varchar(42) not null,
    gas_payer varchar(42) not null,
    batch_id varchar(66) not null,
    body bytea not null,
    raw bytea,
    block_ref varchar(18) not null,
    last_valid bigint not null,
    nonce numeric(20,0) not null,
    gas_limit bigint not null,
    max_fee_wei numeric(38,0) not null,
    priority_wei numeric(38,0) not null,
    strategy text not null,
    state text not null,
    block_id varchar(66),
    block_number bigint,
    reverted boolean,
    gas_used bigint,
    paid_wei numeric(38,0),
    dead_proof jsonb,
    broadcast_count integer not null default 0,
    fence bigint not null,
    budget_day date not null,
    revision bigint not null default 0,
    check (raw is not null or state in ('planned', 'abandoned'))
);

create table payout_attempt_rewards (
    tx_id varchar(66) not null references payout_attempts (tx_id),
    clause_index integer not null,
    reward_id uuid not null references payouts (reward_id),
    attempt_no integer not null,
    receiver varchar(42) not null,
    amount_wei numeric(38,0) not null,
    gas_weight bigint not null,
    live boolean not null,
    primary key (tx_id, clause_index),
    unique (reward_id, attempt_no)
);
-- At most one transaction that could still pay a reward.
create unique index on payout_attempt_rewards (reward_id) where live;

create table payout_budgets (
    day date primary key,
    ceiling_wei numeric(38,0) not null,
    spent_wei numeric(38,0) not null default 0 check (spent_wei between 0 and ceiling_wei)
);

create table submitter_leases (
    signer varchar(42) primary key,
    epoch bigint not null,
    owner text not null
);
