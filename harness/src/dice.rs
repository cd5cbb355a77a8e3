//! Chance that its seed determines.

/// A sequence (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, below a bound other than 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// One of several.
    ///
    /// # Panics
    /// Where there is none.
    pub fn one_of<T: Copy>(&mut self, several: &[T]) -> T {
        let place = self.below(several.len() as u64);
        several[usize::try_from(place).unwrap_or_default()]
    }

    /// Puts them in another order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, cards: &mut [T]) {
        for at in (1..cards.len()).rev() {
            let other = usize::try_from(self.below(at as u64 + 1)).unwrap_or_default();
            cards.swap(at, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_order_of_cards() {
        let shuffled = |seed| {
            let mut cards: Vec<u64> = (0..20).collect();
            Dice::new(seed).shuffle(&mut cards);
            cards
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut sorted = shuffled(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }
}
