-- Models that read photos, and how services and models perform.
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

-- odometer_reading: when a version of a model took over, so that every start says the same of it.
create table model_deployments (
    model_name text not null,
    model_version text not null,
    first_deployed_at timestamptz not null,
    deployed_at timestamptz not null,
    -- What its manifest says.
    facts jsonb not null,
    primary key (model_name, model_version)
);

-- analytics sink: the exact sum that metric_value is the mean of.
alter table ai_performance_metrics
    add column exact_value numeric(38,18) not null,
    alter column service_name set not null,
    alter column metric_type set not null,
    alter column metric_value set not null,
    alter column metric_unit set not null,
    alter column sample_size set not null,
    alter column time_period set not null,
    alter column period_start set not null,
    alter column period_end set not null,
    alter column created_at set not null;
