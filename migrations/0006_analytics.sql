-- Rolling aggregates, reports, insights, cached answers.
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

create type analytics_data_metric_type as enum ('user_engagement', 'reward_distribution', 'sustainability_impact', 'system_performance');
create type analytics_data_time_period as enum ('hour', 'day', 'week', 'month', 'year');
create table analytics_data (
    id uuid primary key,
    metric_type analytics_data_metric_type not null,
    metric_name varchar(100) not null,
    metric_value numeric(15,4),
    metric_unit varchar(20),
    dimension jsonb,
    time_period analytics_data_time_period not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    user_id uuid,
    created_at timestamptz,
    dimension_hash bytea,
    exact_value numeric(38,18),
    sample_count bigint,
    unique nulls not distinct (metric_name, dimension_hash, time_period, period_start, user_id),
    check (period_end > period_start)
);
create index on analytics_data (user_id, metric_name, time_period, period_start) where user_id is not null;
create index on analytics_data (metric_type, time_period, period_start);

create type reports_report_type as enum ('user_activity', 'reward_summary', 'sustainability_impact', 'system_health');
create type reports_report_period as enum ('daily', 'weekly', 'monthly', 'quarterly', 'yearly');
create type reports_status as enum ('generating', 'completed', 'failed');
create table reports (
    id uuid primary key,
    report_type reports_report_type,
    report_name varchar(200),
    report_period reports_report_period,
    period_start date,
    period_end date,
    generated_by uuid,
    report_data jsonb,
    file_url varchar(500),
    status reports_status,
    created_at timestamptz,
    completed_at timestamptz,
    scope_hash bytea,
    revision integer not null default 0,
    lease_until timestamptz,
    unique (report_type, report_period, period_start, scope_hash),
    check (status <> 'completed' or (completed_at is not null and report_data is not null))
);
create index on reports (status, lease_until);
create index on reports (generated_by, created_at);

create type insights_insight_type as enum ('user_behavior', 'trend_analysis', 'anomaly_detection', 'recommendation');
create type insights_impact_score as enum ('low', 'medium', 'high', 'critical');
create table insights (
    id uuid primary key,
    insight_type insights_insight_type,
    insight_title varchar(200),
    insight_description text,
    insight_data jsonb,
    confidence_score numeric(3,2),
    impact_score insights_impact_score,
    applicable_users jsonb,
    action_items jsonb,
    is_active boolean,
    created_at timestamptz,
    expires_at timestamptz,
    insight_key text,
    check (confidence_score between 0 and 1)
);
create unique index on insights (insight_key) where is_active;
create index on insights (is_active, insight_type, created_at);
create index on insights (expires_at) where is_active;

create type metrics_cache_cache_type as enum ('user_metrics', 'system_metrics', 'analytics');
create unlogged table metrics_cache (
    id uuid primary key,
    cache_key varchar(200) not null,
    cache_data jsonb,
    cache_type metrics_cache_cache_type,
    ttl integer,
    created_at timestamptz,
    expires_at timestamptz,
    last_accessed timestamptz,
    checksum bytea,
    unique (cache_key),
    check (ttl between 1 and 86400)
);
create index on metrics_cache (expires_at);
create index on metrics_cache (last_accessed);
