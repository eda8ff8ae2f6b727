//! Numbers that look random and are the same in every run.

/// A small generator.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below one.
    pub fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let high = u32::try_from(self.0 >> 32).expect("half of the bits");
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }

    /// Returns a whole number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        (self.fraction() * f64::from(limit)) as u32
    }

    /// Returns bytes that no compression makes smaller.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}
