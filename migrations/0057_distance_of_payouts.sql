-- What a payment says of its impact follows from the rewarded distance. No schema is named: tests and replays run these in schemas of
-- their own.

-- chain_submission: the grant's distance, kilometres. None for what a release before has stored, which is paid without an impact.
alter table payouts add column distance_km numeric(10,2);
