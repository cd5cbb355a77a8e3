-- Offers of vehicles that are told. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- notices: when whoever the wallet belongs to was told, or nobody was, as it belonged to no account then.
alter table vehicle_transfers add column told_at timestamptz;
-- allowed: a row per offer that a person has made by hand
create index on vehicle_transfers (created_at) where outcome is null and told_at is null;
