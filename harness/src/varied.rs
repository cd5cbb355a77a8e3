//! Uploads that differ as real ones do: ids, hashes, sizes, times and what is left out. The same ones in every run.

use anyhow::{Context as _, Result};
use schemas::events::{FirstHolder, UploadReceived};
use schemas::ids::{UploadId, UserId};
use schemas::sealed::Sealed;
use uuid::Uuid;

/// Drivers; each has one vehicle.
const USERS: u64 = 10_000;

/// Makes one upload after the other.
pub struct Varied {
    event: UploadReceived,
    trace: String,
    state: u64,
}

impl Varied {
    /// Based on an example of the schema's.
    ///
    /// # Errors
    /// When the example is not of this release.
    pub fn from_example() -> Result<Self> {
        let example = include_str!("../../schemas/examples/uploads.received/normal-claim.json");
        let example: serde_json::Value = serde_json::from_str(example)?;
        let event = serde_json::from_value(example["event"].clone()).context("the example event")?;
        Ok(Self { event, trace: String::new(), state: 1 })
    }

    /// The next upload, with its trace context.
    pub fn next_event(&mut self) -> (&UploadReceived, &str) {
        let user = self.number() % USERS;
        let mut ids = [0u128; 4].map(|_| self.wide());
        let user_id = Uuid::from_u128(u128::from(user) << 64 | 7);
        let header = &mut self.event.header;
        header.event_id.0 = Uuid::from_u128(ids[0]);
        header.upload_id.0 = Uuid::from_u128(ids[1]);
        header.user_id.0 = user_id;
        header.vehicle_id.0 = Uuid::from_u128(u128::from(user) << 64 | 9);
        header.image_hash = format!("{:032x}{:032x}", ids[2], ids[3]);
        header.object_key = format!("photos/{user_id}/{}", header.image_hash);
        header.image_url = format!("https://photos.example/{}", header.object_key);
        let roll = self.number();
        let header = &mut self.event.header;
        header.occurred_at.0 += i64::try_from(roll % 5_000).unwrap_or(0);
        header.accepted_at = header.occurred_at;
        header.file_size = i64::try_from(20_000 + roll % 4_000_000).unwrap_or(0);
        header.mime_type = if roll.is_multiple_of(3) { "image/png" } else { "image/jpeg" }.to_owned();
        let stamp = &mut self.event.stamp;
        stamp.claimed_mileage = (!roll.is_multiple_of(4)).then(|| (roll % 300_000).into());
        stamp.captured_at = (!roll.is_multiple_of(5)).then_some(self.event.header.accepted_at);
        stamp.original_filename =
            roll.is_multiple_of(2).then(|| Sealed(format!("{:032x}{:016x}", ids[1] ^ ids[3], roll)));
        stamp.wallet_id = (!roll.is_multiple_of(3)).then(|| Uuid::from_u128(u128::from(user) << 64 | 11));
        let first = || FirstHolder { upload_id: UploadId(Uuid::from_u128(ids[3])), user_id: UserId(user_id) };
        stamp.first_holder = roll.is_multiple_of(50).then(first);
        ids.rotate_left(1);
        self.trace = format!("00-{:032x}-{:016x}-01", ids[0], roll);
        (&self.event, &self.trace)
    }

    /// SplitMix64: the next of a fixed series that looks random.
    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.number()) << 64 | u128::from(self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_differ_from_each_other_and_are_the_same_in_every_run() {
        let (mut one, mut two) = (Varied::from_example().unwrap(), Varied::from_example().unwrap());
        let first = one.next_event().0.clone();
        assert_eq!(&first, two.next_event().0);
        assert_ne!(&first, one.next_event().0);
    }
}
