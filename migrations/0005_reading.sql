-- Reading services and models.
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

create type ai_service_configs_service_type as enum ('ocr', 'image_recognition', 'object_detection');
create table ai_service_configs (
    id uuid primary key,
    service_name varchar(100) not null,
    service_type ai_service_configs_service_type,
    api_key varchar(500),
    api_secret varchar(500),
    endpoint_url varchar(500),
    is_active boolean default true,
    priority integer,
    rate_limit jsonb,
    cost_per_request numeric(10,4),
    accuracy_threshold numeric(3,2),
    created_at timestamptz,
    updated_at timestamptz,
    unique (service_name),
    check (priority between 1 and 10),
    check (accuracy_threshold between 0 and 1)
);
create index on ai_service_configs (is_active, priority);

create type ai_models_model_type as enum ('ocr', 'image_classification', 'object_detection');
create table ai_models (
    id uuid primary key,
    model_name varchar(100) not null,
    model_version varchar(20) not null,
    model_type ai_models_model_type,
    accuracy_score numeric(3,2),
    processing_speed integer,
    model_size integer,
    is_active boolean,
    deployment_date timestamptz,
    last_updated timestamptz,
    created_at timestamptz,
    unique (model_name, model_version),
    check (accuracy_score between 0 and 1)
);

create type ai_performance_metrics_metric_type as enum ('accuracy', 'speed', 'cost', 'availability');
create type ai_performance_metrics_time_period as enum ('hour', 'day', 'week', 'month');
create table ai_performance_metrics (
    id uuid primary key,
    service_name varchar(100),
    metric_type ai_performance_metrics_metric_type,
    metric_value numeric(10,4),
    metric_unit varchar(20),
    sample_size integer,
    time_period ai_performance_metrics_time_period,
    period_start timestamptz,
    period_end timestamptz,
    created_at timestamptz,
    unique (service_name, metric_type, time_period, period_start),
    check (sample_size > 0),
    check (period_end > period_start)
);
