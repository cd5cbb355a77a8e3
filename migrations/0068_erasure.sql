-- People may have taken away what is kept about them. Every instant is UTC. No schema is named: tests and replays run these in schemas of
-- their own.

-- ingest and timers: who has asked for it. Until `due_at` they may take it back, and the row goes; after `erased_at` it stays for good.
create table erasures (
    user_id uuid primary key references users (id),
    requested_at timestamptz not null,
    due_at timestamptz not null,
    erased_at timestamptz
);
create index on erasures (due_at) where erased_at is null;
create index on erasures (erased_at) where erased_at is not null;

-- postgres sink: who was erased, from `accounts.events`. A rebuild does not empty it, so that it never shows again what was taken away.
create table erased_users (
    user_id uuid primary key,
    erased_at timestamptz not null
);

-- What an entry of the audit log still says once its person is erased: who did what to which row, without the values.
create function system_audit_logs_erased(details jsonb) returns jsonb language sql immutable as $$
    select details || '{"before": null, "after": null, "erased": true}'
$$;

-- The audit log stays append-only; what is taken out of it is what it says about a person who is erased, and nothing else.
create or replace function system_audit_logs_refuse() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE'
        and num_nonnulls(new.ip_address, new.user_agent) = 0
        and new.action_details in (old.action_details, system_audit_logs_erased(old.action_details))
        and (new.id, new.user_id, new.action, new.module, new.timestamp, new.severity)
            is not distinct from (old.id, old.user_id, old.action, old.module, old.timestamp, old.severity)
        and exists (
            select from erasures e
            where e.erased_at is not null and e.user_id::text in (old.user_id::text, old.action_details ->> 'target')
        )
    then
        return new;
    end if;
    raise exception 'system_audit_logs is append-only';
end $$;

-- An operator holds an account: its payouts wait.
alter table users add column held_at timestamptz;
