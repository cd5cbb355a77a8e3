-- What fraud_check keeps of drivers is rewritten by nearly every batch: with room on its page a new version of a row needs no new entry in
-- an index. Pages that are full already get it as their rows move away. No schema is named: tests and replays run these in schemas of their
-- own.
alter table driver_weeks set (fillfactor = 50);
alter table driver_conduct set (fillfactor = 50);
