-- What fraud_check remembers of a vehicle besides its last reading. Every instant is UTC. No schema is named: tests and replays run these
-- in schemas of their own.

-- The unit that the vehicle's photos have shown; null until one has: its readings count as kilometres then. `unit` is what the last reading
-- was counted in; where it is miles and this is null, a release before has counted by a claim, and the next photo that shows no unit goes
-- to a person.
alter table vehicle_readings add column unit_shown text;
-- The newest verified readings in the order of acceptance, [{"at": microseconds, "km": "50310", "first": true}], at most 16: the neighbours
-- of a reading that comes late. Empty until the vehicle's next verified reading.
alter table vehicle_readings add column recent jsonb not null default '[]';
