-- How far chain and books are known to be equal. No schema is named: tests and replays run these in schemas of their own.

-- timers: of one app on one pool, the final block up to which every payment of the chain was found in the books and the reverse; it only
-- rises. The next comparison begins behind it. Another pool or app begins anew.
create table payout_reconciliations (
    genesis_id varchar(66) not null,
    contract varchar(42) not null,
    app_id varchar(66) not null,
    equal_upto bigint not null,
    compared_at timestamptz not null,
    primary key (genesis_id, contract, app_id)
);
