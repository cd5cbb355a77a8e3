-- Rows that are written again and again find room on their own page, where a new version needs no new entry in any index. Pages that
-- are there already stay as full as they are. Every instant is UTC. No schema is named: tests and replays run these in schemas of
-- their own.

-- A few dozen versions before vacuum: a vehicle and a budget change with every upload of their user.
alter table vehicle_readings set (fillfactor = 50);
alter table reward_limits set (fillfactor = 50);
-- Totals and score.
alter table users set (fillfactor = 70);
-- Three to five events bring each row to its end.
alter table odometer_uploads set (fillfactor = 70);
alter table mileage_data set (fillfactor = 70);
alter table upload_verifications set (fillfactor = 70);
alter table rewards set (fillfactor = 70);
alter table analytics_data set (fillfactor = 50);
