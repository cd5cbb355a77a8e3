//! Rewards that are worked out anew, on a node: what is paid is what is owed then, and chain and books are equal.

use processors::chain_submission::adjust::{Adjuster, Wanted};
use processors::chain_submission::ledger::publish::Publisher;
use processors::chain_submission::ledger::rows;
use processors::chain_submission::operate::Refused;
use schemas::events::{Adjustment, RewardCalculated};
use schemas::ids::Micros;

use super::*;

impl World {
    fn adjuster(&self) -> Adjuster {
        let publisher = Publisher { schemas: schemas(), gas_ceiling: 0 };
        Adjuster { publisher, calculated: MemorySchemas::id_of::<RewardCalculated>() }
    }

    /// Promotes a replay that has met so much and wants so much.
    async fn adjust(&self, reward: Uuid, (before, granted): (i64, i64)) -> Result<(), Refused> {
        let mut calculation: RewardCalculated = examples(Topic::RewardsCalculated)
            .iter()
            .find(|example| example.name == "normal-basic")
            .unwrap()
            .event();
        calculation.reward_id = RewardId(reward);
        let wanted = Wanted {
            calculation,
            promotion: "march".to_owned(),
            calculated_before: before.into(),
            granted_before: before.into(),
            granted: granted.into(),
            detail: None,
        };
        let mut tx = self.database.pool.begin().await.unwrap();
        self.adjuster().begin(&mut tx, &wanted, SystemClock.now().to_utc()).await?;
        tx.commit().await.unwrap();
        Ok(())
    }

    /// What `limit_check` answers.
    async fn answer(&self, reward: Uuid, (before, wanted, granted): (i64, i64, i64)) {
        let mut event = example_grant();
        event.reward_id = RewardId(reward);
        event.granted = granted.into();
        event.adjustment = Some(Adjustment {
            number: 1,
            promotion: "march".to_owned(),
            calculated_before: before.into(),
            granted_before: before.into(),
            granted: wanted.into(),
            detail: None,
            adjusted_at: Micros(7),
        });
        self.consume(PayoutInput::Granted(Box::new(event))).await;
    }

    async fn ready(&self) -> Vec<Uuid> {
        let genesis = self.contracts.genesis_id.to_string();
        let later = Micros(i64::MAX / 2).to_utc();
        let ready = rows::ready(&self.database.pool, &genesis, later, 10).await.unwrap();
        ready.into_iter().map(|payout| payout.reward_id).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_and_a_raised_reward_are_paid_as_they_are_owed_then_and_the_books_equal_the_chain() {
    let world = World::new().await;
    let [lowered, raised, refused, cancelled] = [
        world.grant(4, wallet(0x70)).await,
        world.grant(5, wallet(0x71)).await,
        world.grant(6, wallet(0x72)).await,
        world.grant(7, wallet(0x73)).await,
    ];
    world.sql(format!("update payouts set state = 'cancelled' where reward_id = '{cancelled}'")).await;
    assert!(matches!(world.adjust(cancelled, (7, 3)).await, Err(Refused::State { .. })));
    world.sql(format!("delete from payouts where reward_id = '{cancelled}'")).await;
    assert!(matches!(world.adjust(lowered, (9, 3)).await, Err(Refused::Amount { .. })));
    world.adjust(lowered, (4, 3)).await.unwrap();
    world.adjust(raised, (5, 8)).await.unwrap();
    world.adjust(refused, (6, 9)).await.unwrap();
    assert!(matches!(world.adjust(raised, (5, 9)).await, Err(Refused::Adjusting)));
    assert_eq!(world.ready().await, [lowered], "what may be raised is not planned");
    world.answer(lowered, (4, 3, 3)).await;
    world.answer(raised, (5, 8, 8)).await;
    world.answer(refused, (6, 9, 6)).await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_paid(&[lowered, raised, refused]).await;
    signing.abort();
    let paid = world.chain_paid().await;
    for (reward, amount) in [(lowered, 3), (raised, 8), (refused, 6)] {
        assert_eq!(paid[&reward], [Decimal::from(amount) * Decimal::from(1_000_000_000_000_000_000_i64)]);
    }
    world.books_equal_the_chain().await;
    let ends: Vec<String> =
        sqlx::query_scalar("select outcome from payout_adjustments order by granted_before")
            .fetch_all(&world.database.pool)
            .await
            .unwrap();
    assert_eq!(ends, ["lowered", "raised", "refused"]);
    assert!(matches!(world.adjust(raised, (8, 1)).await, Err(Refused::Live { .. })), "what is signed stays");
    world.database.drop().await;
}
