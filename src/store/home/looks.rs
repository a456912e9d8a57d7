//! Who looks into which home, of all threads of a process. A home that does not answer (its server is away, or it is a file system
//! of its owner's) keeps whoever looks into it for as long as that lasts. In the agent, that must not be everybody.

use crate::system::socket::Budget;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// At once: with the connections that others than root may have to the agent, less than it has threads.
const MOST: usize = 16;
/// Of those, into the home of one uid.
const MOST_OF_ONE: usize = 4;
/// How long to wait for one that ends: a home that answers does so in less.
const PATIENCE: Duration = Duration::from_millis(500);

/// Of this process.
static LOOKS: Looks = Looks([const { AtomicU64::new(0) }; MOST]);

/// The uids, and one more each; 0 is nobody's. Without a lock, which a process could be forked with.
struct Looks([AtomicU64; MOST]);

/// A look; over when dropped.
pub(super) struct Look<'a>(&'a AtomicU64);

impl Look<'static> {
    /// Begins a look into a home. `None`: too many do not come to an end.
    pub(super) fn begin(uid: u32) -> Option<Self> {
        let mut budget = Budget::new(PATIENCE);
        loop {
            if let Some(look) = LOOKS.begin(uid) {
                return Some(look);
            }
            budget.pause().ok()?;
        }
    }
}

impl Looks {
    fn begin(&self, uid: u32) -> Option<Look<'_>> {
        let mark = u64::from(uid).saturating_add(1);
        let free = |place: &&AtomicU64| place.compare_exchange(0, mark, SeqCst, SeqCst).is_ok();
        // Taken first, and then counted, so that of those who come at the same time no two see room for one.
        let look = self.0.iter().find(free).map(Look)?;
        let own = self.0.iter().filter(|place| place.load(SeqCst) == mark).count();
        (own <= MOST_OF_ONE).then_some(look)
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.0.store(0, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_home_keeps_a_few_of_all_looks() {
        let looks = Looks([const { AtomicU64::new(0) }; MOST]);
        let mut of_root: Vec<_> = (0..MOST_OF_ONE).map(|_| looks.begin(0).unwrap()).collect();
        assert!(looks.begin(0).is_none());
        drop(of_root.pop());
        of_root.push(looks.begin(0).unwrap());
        let others: Vec<_> = (1..).map_while(|uid| looks.begin(uid)).collect();
        assert_eq!(others.len(), MOST - MOST_OF_ONE);
        drop(others);
        assert!(looks.begin(u32::MAX).is_some() && looks.begin(0).is_none());
    }
}
