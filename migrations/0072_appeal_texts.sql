-- What a driver says in an appeal, for the person who decides it; null where they say nothing. No schema is named: tests and replays run
-- these in schemas of their own.
alter table reviews add column appeal_text text;
