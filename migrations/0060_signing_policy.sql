-- What may be signed is bounded. No schema is named: tests and replays run these in schemas of their own.

-- `policy`: a plan that may not be signed was refused.
alter table payout_incidents drop constraint payout_incidents_cause_check;
-- allowed: a row per incident, of which there are few
alter table payout_incidents add constraint payout_incidents_cause_check check (cause in ('incident', 'unknown_payment', 'policy'));

-- chain_submission: what was signed for in a day, by receiver.
-- allowed: a row per payment, once, and nothing but payments waits for it
create index on payout_attempt_rewards (receiver);
