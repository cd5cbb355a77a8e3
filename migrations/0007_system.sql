-- Configuration and audit.
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

create type system_config_environment as enum ('development', 'staging', 'production');
create table system_config (
    id uuid primary key,
    environment system_config_environment not null,
    version varchar(20),
    maintenance_mode boolean default false,
    feature_flags jsonb,
    rate_limits jsonb,
    created_at timestamptz,
    updated_at timestamptz,
    revision bigint not null default 1,
    unique (environment)
);

create type system_audit_logs_severity as enum ('info', 'warning', 'error', 'critical');
create table system_audit_logs (
    id uuid primary key,
    user_id uuid,
    action varchar(100),
    module varchar(50),
    action_details jsonb,
    ip_address varchar(45),
    user_agent text,
    timestamp timestamptz,
    severity system_audit_logs_severity
);
create index on system_audit_logs (module, action, timestamp);
create index on system_audit_logs (user_id, timestamp);
create index on system_audit_logs (severity, timestamp);

-- The audit log is append-only; the owner nulls addresses and agents through a function of its own after 400 days.
create function system_audit_logs_refuse() returns trigger language plpgsql as $$
begin
    raise exception 'system_audit_logs is append-only';
end $$;
create trigger system_audit_logs_append_only before update or delete on system_audit_logs
    for each row execute function system_audit_logs_refuse();
