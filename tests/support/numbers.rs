//! Random numbers from a seed that can be told.

/// splitmix64.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// From 0 to `below` - 1.
    pub(crate) fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    #[allow(dead_code)]
    pub(crate) fn one_in(&mut self, chance: u64) -> bool {
        self.next(chance) == 0
    }
}
