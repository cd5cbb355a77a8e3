-- What gives each payout an end. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- Final reverts without a culprit so far: its next batch holds at most the usual number of rewards halved so often.
alter table payouts add column splits integer not null default 0;

-- What a person must look at before anything more is signed for: a transaction or block that should not be.
create table payout_incidents (
    genesis_id varchar(66) not null,
    tx_id varchar(66) not null,
    what text not null,
    found_at timestamptz not null,
    resolved_at timestamptz,
    resolution text,
    primary key (genesis_id, tx_id, what)
);

-- A row while an operator has stopped planning and signing on a network.
create table payout_pauses (
    genesis_id varchar(66) primary key,
    reason text not null,
    since timestamptz not null default now()
);
