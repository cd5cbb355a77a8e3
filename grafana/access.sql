-- What Grafana may read: the tables of the dashboard, none with keys or tokens. Run after the migrations; again changes nothing.
-- The password comes as the psql variable `password`.
do $$
begin
    if not exists (select from pg_roles where rolname = 'grafana') then
        create role grafana with login;
    end if;
end $$;
alter role grafana with login password :'password';
alter role grafana set statement_timeout = '15s';
grant select on odometer_uploads, mileage_data, upload_verifications, rewards, blockchain_transactions,
    ai_performance_metrics to grafana;
