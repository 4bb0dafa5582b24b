//! Chance, with every outcome taken in turn.

/// Random numbers, each value of each of them once. A run draws; [`Choices::advance`] changes the last number that has
/// values left.
#[derive(Debug, Default)]
pub struct Choices {
    /// What was drawn so far, out of how many.
    drawn: Vec<(u32, u32)>,
    next: usize,
}

impl Choices {
    /// A number less than the modulus.
    pub fn draw(&mut self, modulus: u32) -> u32 {
        if self.next == self.drawn.len() {
            self.drawn.push((0, modulus));
        }
        self.next += 1;
        self.drawn[self.next - 1].0
    }

    /// Whether this run has drawn something that could have come out otherwise.
    pub fn has_drawn(&self) -> bool {
        self.drawn[..self.next].iter().any(|(_, modulus)| *modulus > 1)
    }

    /// One run in so many goes as this one did.
    pub fn one_in(&self) -> u64 {
        self.drawn.iter().fold(1, |product: u64, (_, modulus)| product.saturating_mul(u64::from(*modulus)))
    }

    /// Makes the next run another one; `false` after the last.
    pub fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some((value, modulus)) = self.drawn.pop() {
            if value + 1 < modulus {
                self.drawn.push((value + 1, modulus));
                return true;
            }
        }
        false
    }
}
