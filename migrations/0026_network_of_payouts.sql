-- Of which network a payout is. No schema is named: tests and replays run these in schemas of their own.

-- None for what a release before has stored: it is of the network that the deployment has chosen.
alter table payouts add column genesis_id varchar(66);
-- allowed: once, a row per granted reward, and nothing but payments waits for it
update payouts p set genesis_id = (
    select a.genesis_id from payout_attempt_rewards r join payout_attempts a using (tx_id)
    where r.reward_id = p.reward_id order by r.attempt_no desc limit 1);
-- What was paid or watched on one network was granted for it.
-- allowed: once, a row per granted reward, and nothing but payments waits for it
update payouts set genesis_id = (select min(genesis_id) from payout_heads)
where genesis_id is null and (select count(*) from payout_heads) = 1;
insert into deployment_settings (name, value)
select 'chain.genesis_id', min(genesis_id)
from (select genesis_id from payout_heads union select genesis_id from payout_attempts) as known
having count(distinct genesis_id) = 1
on conflict (name) do nothing;
