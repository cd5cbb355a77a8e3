-- Vehicles that change hands. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- fraud_check: the readings of a vehicle are one row, whoever owns it; `user_id` is whose upload the newest verified one was. A vehicle has
-- had one owner for ever until now, and so one row. Were there more, the newest would stay, with the highest reading of all.
-- allowed: no vehicle has two rows, so that nothing is changed
update vehicle_readings r set highest_km = h.km
from (select vehicle_id, max(highest_km) as km from vehicle_readings group by vehicle_id having count(*) > 1) h
where h.vehicle_id = r.vehicle_id;
-- allowed: no vehicle has two rows, so that nothing is deleted
delete from vehicle_readings r using vehicle_readings n
where n.vehicle_id = r.vehicle_id and (n.last_at, n.user_id) > (r.last_at, r.user_id);
-- allowed: a row per vehicle, of which a million are indexed within some seconds; fraud_check alone writes here, and waits for it
create unique index on vehicle_readings (vehicle_id);

-- ingest: the vehicle of a reserved photo; null where a release before has reserved it.
alter table photo_hashes add column vehicle_id uuid;

-- ingest: offers of a vehicle to whoever a wallet belongs to.
create table vehicle_transfers (
    id uuid primary key,
    vehicle_id uuid not null references vehicles (id),
    from_user uuid not null references users (id),
    -- Null where the account of either was erased.
    to_address varchar(42) check (to_address ~ '^0x[0-9a-f]{40}$'),
    -- Who has accepted or declined it.
    to_user uuid references users (id),
    created_at timestamptz not null,
    expires_at timestamptz not null,
    ended_at timestamptz,
    outcome text check (outcome in ('accepted', 'declined', 'cancelled', 'expired')),
    check ((outcome is null) = (ended_at is null))
);
create unique index on vehicle_transfers (vehicle_id) where outcome is null;
create index on vehicle_transfers (from_user);
create index on vehicle_transfers (to_user) where to_user is not null;
create index on vehicle_transfers (to_address) where outcome is null;
