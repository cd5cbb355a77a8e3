-- Rules of rewards in versions. Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- Operator commands: a version of tariff, bonuses and budgets as its file was written. It holds for what is accepted from `in_force_from`
-- until the next one's. Kept for ever: what was accepted under a version is decided by it in every replay.
create table reward_rules (
    version text primary key,
    in_force_from timestamptz not null unique,
    document text not null,
    applied_at timestamptz not null,
    check (in_force_from > applied_at)
);

create function reward_rules_refuse() returns trigger language plpgsql as $$
begin
    raise exception 'reward_rules is append-only';
end $$;
create trigger reward_rules_append_only before update or delete on reward_rules
    for each row execute function reward_rules_refuse();
