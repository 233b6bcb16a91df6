use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

/// A token bucket: its size, and the time until one more is allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) burst: u32,
    pub(super) one_more: Duration,
}

/// The budgets per object, per namespace, and over all namespaces.
///
/// A tenant can exhaust the budget of a namespace. An object without a namespace, such as the Node, has only the first
/// budget, so no namespace can exhaust it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budgets {
    pub(super) object: Budget,
    pub(super) namespace: Budget,
    pub(super) all: Budget,
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The remaining budgets. Stores hashes instead of names.
#[derive(Debug)]
pub(super) struct Limits {
    budgets: Budgets,
    /// When each used budget will be full again.
    whole: HashMap<u64, Duration>,
    hasher: RandomState,
    next_look: Duration,
}

impl Limits {
    pub(super) fn new(budgets: Budgets) -> Self {
        Self { budgets, whole: HashMap::new(), hasher: RandomState::new(), next_look: Duration::ZERO }
    }

    pub(super) fn has_room(&self, object: &impl Hash, namespace: Option<&str>, now: Duration) -> bool {
        self.scopes(object, namespace).all(|(scope, budget)| {
            self.whole.get(&scope).is_none_or(|whole| *whole + budget.one_more <= now + budget.one_more * budget.burst)
        })
    }

    /// Takes one from each budget if all of them have room.
    pub(super) fn allow(&mut self, object: &impl Hash, namespace: Option<&str>, now: Duration) -> bool {
        if now >= self.next_look {
            self.next_look = now + SWEEP_INTERVAL;
            self.whole.retain(|_, whole| *whole > now);
        }
        let allowed = self.has_room(object, namespace, now);
        if allowed {
            let scopes: Vec<_> = self.scopes(object, namespace).collect();
            for (scope, budget) in scopes {
                let whole = self.whole.entry(scope).or_insert(now);
                *whole = now.max(*whole) + budget.one_more;
            }
        }
        allowed
    }

    fn scopes(&self, object: &impl Hash, namespace: Option<&str>) -> impl Iterator<Item = (u64, Budget)> {
        let Budgets { object: of_object, namespace: of_namespace, all } = self.budgets;
        let shared = namespace.map(|name| {
            [(self.hasher.hash_one(("namespace", name)), of_namespace), (self.hasher.hash_one("all"), all)]
        });
        let own = (self.hasher.hash_one(("object", object)), of_object);
        [own].into_iter().chain(shared.into_iter().flatten())
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.whole.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn budget(burst: u32, seconds: u64) -> Budget {
        Budget { burst, one_more: Duration::from_secs(seconds) }
    }

    fn limits() -> Limits {
        Limits::new(Budgets { object: budget(2, 10), namespace: budget(4, 5), all: budget(6, 1) })
    }

    fn of_ten(limits: &mut Limits, object: u32, namespace: Option<&str>, second: u64) -> usize {
        (0..10).filter(|_| limits.allow(&object, namespace, Duration::from_secs(second))).count()
    }

    #[test]
    fn object_and_namespace_budgets_leave_room_for_others() {
        let mut limits = limits();
        assert_eq!(of_ten(&mut limits, 1, Some("a"), 0), 2);
        assert_eq!(of_ten(&mut limits, 2, Some("a"), 0), 2);
        // The namespace is exhausted, and the overall budget is not.
        assert_eq!(of_ten(&mut limits, 3, Some("a"), 0), 0);
        assert_eq!(of_ten(&mut limits, 11, Some("b"), 0), 2);
        assert_eq!(of_ten(&mut limits, 12, Some("b"), 0), 0);
        // An object without a namespace has a separate budget.
        assert_eq!(of_ten(&mut limits, 4, None, 0), 2);
        // A rejected attempt uses up no other budget: after 5 s the namespace has one more.
        assert_eq!(of_ten(&mut limits, 3, Some("a"), 5), 1);
        assert_eq!(of_ten(&mut limits, 4, None, 10), 1);
    }

    #[test]
    fn full_budgets_are_removed_from_memory() {
        let mut limits = limits();
        for object in 0..1000_u64 {
            limits.allow(&object, None, Duration::from_secs(object));
        }
        assert!(limits.kept() < 100, "{}", limits.kept());
    }
}
