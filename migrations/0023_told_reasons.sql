-- What a grant told a driver of a cut stands beside what its payout says later. Every instant is UTC. No schema is named: tests and
-- replays run these in schemas of their own.

-- postgres sink: the grant's own reason, from which status_reason is worked out together with the payout's. Materialized. Null in a row
-- that the release before wrote: at revision 1 its status_reason is the grant's, and later a rebuild brings it back.
alter table rewards add column grant_reason text;
