-- What was paid is held against the chain's own logs. No schema is named: tests and replays run these in schemas of their own.

-- chain_submission: the books hold every payment of a distributor from `began_at` up to the final block `checked_upto`, which only rises.
create table payout_checkpoints (
    genesis_id varchar(66) not null,
    signer varchar(42) not null,
    began_at bigint not null,
    checked_upto bigint not null check (checked_upto >= began_at),
    primary key (genesis_id, signer)
);

-- `unknown_payment`: the chain shows a payment that the books cannot explain. `incident`: one of theirs did what it was not made for.
alter table payout_incidents add column cause text not null default 'incident' check (cause in ('incident', 'unknown_payment'));
