//! Who looks into which home, of all threads of a process. A home that does not answer (its server is away, or it is a file system
//! of its owner's) keeps whoever looks into it for as long as that lasts. In the agent, that must not be everybody.

use crate::system::socket::Budget;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

/// At once: with the connections that others than root may have to the agent, less than it has threads.
const MOST: usize = 16;
/// Of those, into the home of one uid.
const MOST_OF_ONE: usize = 4;
/// How long to wait for one that ends: a home that answers does so in less.
const PATIENCE: Duration = Duration::from_millis(500);
/// Those who wait so at once. With those who look that is less than the agent has threads (64), too.
const MOST_WAITING: usize = 32;

/// Of this process.
static LOOKS: Looks = Looks::new();

/// Without a lock, which a process could be forked with.
struct Looks {
    /// The uids, and one more each; 0 is nobody's.
    uids: [AtomicU64; MOST],
    /// How many wait.
    waiting: AtomicUsize,
}

/// A look; over when dropped.
pub(super) struct Look<'a>(&'a AtomicU64);

impl Look<'static> {
    /// Begins a look into a home. `None`: too many do not come to an end.
    pub(super) fn begin(uid: u32) -> Option<Self> {
        LOOKS.begin(uid).or_else(|| LOOKS.wait(uid))
    }
}

impl Looks {
    const fn new() -> Self {
        Self { uids: [const { AtomicU64::new(0) }; MOST], waiting: AtomicUsize::new(0) }
    }

    fn wait(&self, uid: u32) -> Option<Look<'_>> {
        let (mut budget, mut look) = (Budget::new(PATIENCE), None);
        let may_wait = self.waiting.fetch_add(1, SeqCst) < MOST_WAITING;
        while may_wait && look.is_none() && budget.pause().is_ok() {
            look = self.begin(uid);
        }
        self.waiting.fetch_sub(1, SeqCst);
        look
    }

    fn begin(&self, uid: u32) -> Option<Look<'_>> {
        let mark = u64::from(uid).saturating_add(1);
        let free = |place: &&AtomicU64| place.compare_exchange(0, mark, SeqCst, SeqCst).is_ok();
        // Taken first, and then counted, so that of those who come at the same time no two see room for one.
        let look = self.uids.iter().find(free).map(Look)?;
        let own = self.uids.iter().filter(|place| place.load(SeqCst) == mark).count();
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
    use crate::system::clock;

    #[test]
    fn one_home_keeps_a_few_of_all_looks() {
        let looks = Looks::new();
        let mut of_root: Vec<_> = (0..MOST_OF_ONE).map(|_| looks.begin(0).unwrap()).collect();
        assert!(looks.begin(0).is_none());
        drop(of_root.pop());
        of_root.push(looks.begin(0).unwrap());
        let others: Vec<_> = (1..).map_while(|uid| looks.begin(uid)).collect();
        assert_eq!(others.len(), MOST - MOST_OF_ONE);
        drop(others);
        assert!(looks.begin(u32::MAX).is_some() && looks.begin(0).is_none());
    }

    #[test]
    fn few_wait_for_a_look_and_others_do_without_at_once() {
        let looks = Looks::new();
        let hung: Vec<_> = (0..MOST_OF_ONE).map(|_| looks.begin(7).unwrap()).collect();
        let start = clock::instant();
        assert!(looks.wait(7).is_none());
        assert!(start.elapsed() >= PATIENCE, "{:?}", start.elapsed());
        looks.waiting.fetch_add(MOST_WAITING, SeqCst);
        let start = clock::instant();
        assert!(looks.wait(7).is_none());
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        looks.waiting.fetch_sub(MOST_WAITING, SeqCst);
        drop(hung);
        assert!(looks.wait(7).is_some() && looks.waiting.load(SeqCst) == 0);
    }
}
