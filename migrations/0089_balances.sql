-- What a wallet holds is what its newest transfer that counts says: looked up for each receiver of a block.
-- allowed: only the postgres sink writes here, a few rows a second, and it catches up.
create index blockchain_events_receivers on blockchain_events
    (genesis_id, (event_data #>> '{decoded,receiver}'), block_number desc, log_index desc)
    where event_type = 'Transfer' and canonical;
