-- What `milestream prune` has taken away, where a role must know it. Every instant is UTC. No schema is named: tests and replays run
-- these in schemas of their own.

-- A deciding stage's records below this offset have no stored output any more: a start below it is refused.
alter table stage_offsets add column outputs_from bigint not null default 0;
