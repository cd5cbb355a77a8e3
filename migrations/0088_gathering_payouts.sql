-- Rewards that are claimed by themselves once they come to enough together: each grant looks for those of its driver that wait.
create index on payouts (user_id) where state = 'waiting';
