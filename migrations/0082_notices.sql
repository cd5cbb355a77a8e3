-- What people are told. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- notices: a row for each notice and way of telling that its receiver wants. Its id follows from the event, the receiver and the way: an
-- event that is read again adds nothing, and a receiver knows a notice that comes twice.
create table notice_deliveries (
    id uuid primary key,
    user_id uuid not null,
    channel text not null check (channel in ('email', 'sms', 'push', 'webhook')),
    kind text not null check (kind in ('upload_settled', 'reward_paid', 'review_needed', 'security_event')),
    -- What is told: ids, amounts and labels. Where it goes to is in the preferences alone.
    document jsonb not null,
    occurred_at timestamptz not null,
    created_at timestamptz not null,
    -- When it is sent next: moved on before it is sent, so that a process that dies leaves it to another.
    due_at timestamptz not null,
    attempts integer not null default 0,
    delivered_at timestamptz,
    given_up_at timestamptz,
    last_error text,
    check (delivered_at is null or given_up_at is null)
);
create index on notice_deliveries (due_at) where delivered_at is null and given_up_at is null;
create index on notice_deliveries (user_id, created_at, id);

-- ingest: what the webhooks of a user are signed with. It can be read, as it signs; whoever has it can make notices, and nothing else.
create table notice_secrets (
    user_id uuid primary key references users (id),
    secret bytea not null check (octet_length(secret) = 32),
    created_at timestamptz not null
);

-- notices: since when a way of telling somebody fails. It is used no more after a day of that, until its owner puts preferences in again.
create table notice_failures (
    user_id uuid not null,
    channel text not null,
    failing_since timestamptz not null,
    disabled_at timestamptz,
    primary key (user_id, channel)
);
