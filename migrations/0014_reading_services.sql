-- Reading services outside: how each is talked to, and the chain in the key of kept answers.
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

alter table ai_service_configs
    add column protocol text check (protocol in ('embedded', 'google_vision', 'aws_rekognition', 'openai')),
    -- The model that is asked for, where the protocol has several.
    add column model varchar(100),
    add column timeout_ms integer not null default 10000 check (timeout_ms between 100 and 60000),
    -- After this wait the next service is asked as well; null: never.
    add column hedge_ms integer check (hedge_ms between 10 and 60000);

-- The services that were asked, by a digest; empty for the embedded reader alone, which is what the rows so far are of and what the
-- release before this one writes.
alter table reading_results
    add column chain varchar(16) not null default '',
    drop constraint reading_results_pkey,
    add primary key (image_hash, reader_version, chain);
