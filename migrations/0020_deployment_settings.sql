-- What a deployment has chosen once and for all: records were written under it, so another value is refused.
create table deployment_settings (
    name text primary key,
    value text not null,
    chosen_at timestamptz not null default now()
);
