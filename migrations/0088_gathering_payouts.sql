-- Rewards that are claimed by themselves once they come to enough together: each grant looks for those of its driver that wait.
-- allowed: a row per reward, of which a million are looked through within a second; chain_submission alone writes here, and waits for it
create index on payouts (user_id) where state = 'waiting';
