//! Rewards that are claimed by themselves once they come to enough together, on the tables and what is published of them.

use schemas::codec;
use schemas::events::{Event as _, PayoutState, RewardClaimed};
use schemas::ids::{EventId, Micros};

use super::ends::Scripted;
use super::*;

/// Grants of one driver, each with what was stamped as the least that is claimed by itself.
async fn granted(world: &World, least: &[Option<i64>]) -> Vec<Uuid> {
    let mut of: Option<(UserId, Option<Uuid>)> = None;
    let mut rewards = Vec::new();
    for least in least {
        let mut address = [0; 20];
        address[..16].copy_from_slice(Uuid::now_v7().as_bytes());
        let reward = world.grant_with(3, Address(address), |event| {
            let (user, wallet) = *of.get_or_insert((event.header.user_id, event.stamp.wallet_id));
            (event.header.user_id, event.stamp.wallet_id) = (user, wallet);
            event.stamp.auto_claim = true;
            event.stamp.min_claim = least.map(Decimal::from);
        });
        rewards.push(reward.await);
    }
    rewards
}

/// What was published of a reward: its states, in their order, by revision.
async fn published(world: &World, reward: Uuid) -> Vec<(i64, PayoutState)> {
    let payloads: Vec<Vec<u8>> =
        sqlx::query_scalar("select payload from outbox where topic = 'payouts.updated' order by id")
            .fetch_all(&world.database.pool)
            .await
            .unwrap();
    let events = payloads.into_iter().map(|payload| {
        let (id, datum) = codec::unframe(&payload).unwrap();
        codec::decode::<PayoutUpdated>(PayoutUpdated::schema(), id, datum).unwrap()
    });
    let ours = events.filter(|event| event.reward_id.0 == reward);
    ours.map(|event| (event.revision, event.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_rewards_are_paid_together_once_and_another_drivers_stay() {
    let scripted = Scripted::new(1).await;
    let world = &scripted.world;
    let stranger = granted(world, &[Some(9), Some(9)]).await;
    let rewards = granted(world, &[Some(9), Some(9), Some(9)]).await;
    // Each record came twice.
    for (reward, steps) in rewards.iter().zip([2, 2, 1]) {
        assert_eq!(world.state(*reward).await, ("ready".to_owned(), None));
        let told = published(world, *reward).await;
        assert_eq!((told.len(), told.last().unwrap().1), (steps, PayoutState::Ready), "{told:?}");
    }
    for reward in stranger {
        let (state, reason) = world.state(reward).await;
        assert_eq!(state, "waiting");
        assert!(reason.unwrap().starts_with("below_min_claim: "));
        assert_eq!(published(world, reward).await, [(0, PayoutState::Waiting)]);
    }
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_who_lowers_it_is_paid_by_the_next_photo_and_one_who_claims_at_once() {
    let scripted = Scripted::new(1).await;
    let world = &scripted.world;
    let rewards = granted(world, &[Some(1_000_000), Some(1_000_000), None]).await;
    for reward in rewards {
        assert_eq!(world.state(reward).await.0, "ready");
    }
    let by_hand = granted(world, &[Some(1_000_000), Some(1_000_000)]).await;
    let (user, wallet): (Uuid, Uuid) =
        sqlx::query_as("select user_id, wallet_id from payouts where reward_id = $1")
            .bind(by_hand[0])
            .fetch_one(&world.database.pool)
            .await
            .unwrap();
    world
        .consume(PayoutInput::Claimed(RewardClaimed {
            event_id: EventId(Uuid::now_v7()),
            occurred_at: Micros(1_772_438_400_000_000),
            reward_id: RewardId(by_hand[0]),
            user_id: UserId(user),
            wallet_id: wallet,
        }))
        .await;
    assert_eq!(world.state(by_hand[0]).await.0, "ready");
    assert_eq!(world.state(by_hand[1]).await.0, "waiting", "what is not claimed waits on");
    scripted.world.database.drop().await;
}
