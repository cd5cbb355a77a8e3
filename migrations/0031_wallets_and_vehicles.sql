-- What people may change of their account. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- A wallet that its owner removed. The row stays: payments that went to it, or are on their way, name it.
alter table user_wallets add column removed_at timestamptz;

-- ingest: what an owner says of a vehicle. The unit is that of its odometer, null where it is not known.
alter table vehicles add column unit text check (unit in ('km', 'miles'));
alter table vehicles add column name text;
alter table vehicles add column updated_at timestamptz;
alter table vehicles add column retired_at timestamptz;
