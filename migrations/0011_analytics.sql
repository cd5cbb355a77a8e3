-- Rolling aggregates: which metrics there are, and what was counted already.
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

create table metric_catalogue (
    metric_name varchar(40) primary key,
    metric_type analytics_data_metric_type not null,
    metric_unit varchar(20) not null,
    -- exact_value / sample_count instead of exact_value.
    is_mean boolean not null,
    unique (metric_name, metric_type, metric_unit)
);
insert into metric_catalogue (metric_name, metric_type, metric_unit, is_mean) values
    ('uploads_accepted', 'user_engagement', 'uploads', false),
    ('uploads_decided', 'user_engagement', 'uploads', false),
    ('uploads_verified', 'user_engagement', 'uploads', false),
    ('rewards_calculated', 'reward_distribution', 'B3TR', false),
    ('rewards_granted', 'reward_distribution', 'B3TR', false),
    ('rewards_cut', 'reward_distribution', 'B3TR', false),
    ('rewards_paid', 'reward_distribution', 'B3TR', false),
    ('payout_fee', 'reward_distribution', 'VTHO', false),
    ('fee_per_reward', 'reward_distribution', 'VTHO', true),
    ('distance', 'sustainability_impact', 'km', false),
    ('co2_emitted', 'sustainability_impact', 'kg_co2e', false),
    ('co2_avoided', 'sustainability_impact', 'kg_co2e', false),
    ('manual_review', 'system_performance', 'ratio', true),
    ('auto_accept', 'system_performance', 'ratio', true);

-- metric_value is null exactly in a mean whose samples were all taken back.
alter table analytics_data
    alter column metric_unit set not null,
    alter column dimension set not null,
    alter column created_at set not null,
    alter column dimension_hash set not null,
    alter column exact_value set not null,
    alter column sample_count set not null,
    add foreign key (metric_name, metric_type, metric_unit)
        references metric_catalogue (metric_name, metric_type, metric_unit);

-- analytics sink: what was counted once and is not counted again; UUIDv5 of e.g. `decided:UPLOAD`.
create table analytics_seen (
    key uuid primary key,
    occurred_on date not null
);

-- analytics sink: what is counted of something that changes, by its highest revision: `paid:REWARD`, `fee:NETWORK/TX`,
-- `verdict:UPLOAD`. All null where it adds nothing in that state.
create table analytics_entities (
    key text primary key,
    revision bigint,
    counted_at timestamptz,
    amount numeric(38,18),
    samples bigint,
    label text,
    check (num_nulls(counted_at, amount, samples, label) in (0, 4))
);
