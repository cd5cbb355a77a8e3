-- Corrections of readings that nothing can come of any more. Every instant is UTC. No schema is named: tests and replays run these in
-- schemas of their own.

-- chain_submission: when the reward was found to be paid for good, or cancelled for another reason. Most corrected rewards are paid:
-- without this each stayed among those that are looked at every few seconds.
alter table payout_corrections add column settled_at timestamptz;
-- What is looked at. The index that only leaves out what was cancelled serves the release before.
-- allowed: a row for each correction that was made by hand
create index on payout_corrections (reward_id) where cancelled_at is null and settled_at is null;
