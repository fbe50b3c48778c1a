use std::collections::BTreeSet;

use super::*;
use crate::stress::seed::Seed;

fn iteration(seed: u64) -> Iteration {
    Iteration { number: 0, seed: Seed(seed) }
}

#[test]
fn text_and_back() {
    for (text, mode) in [
        ("together", StartMode::Together),
        ("random", StartMode::Random),
        ("one-by-one", StartMode::OneByOne),
        ("stagger=1ms", StartMode::Stagger(Duration::from_millis(1))),
        ("stagger=0s", StartMode::Stagger(Duration::ZERO)),
    ] {
        assert_eq!(text.parse(), Ok(mode));
        assert_eq!(mode.to_string(), text);
    }
    for text in ["", "stagger", "stagger=", "stagger=5", "Together", "randomly"] {
        let error = text.parse::<StartMode>().unwrap_err().to_string();
        assert!(error.contains(&format!("'{text}' is not a way to start")), "{error}");
    }
}

#[test]
fn random_orders_are_permutations_that_the_seed_draws() {
    let all: Vec<_> = (0..5).map(VcpuId).collect();
    let order = |seed| StartMode::Random.order(iteration(seed), 5);
    let orders: BTreeSet<_> = (0..100).map(order).collect();
    assert!(orders.len() > 50, "{}", orders.len());
    for mut sorted in orders {
        sorted.sort_unstable();
        assert_eq!(sorted, all);
    }
    assert_eq!(order(3), order(3));
    assert_eq!(StartMode::Together.order(iteration(3), 5), all);
    assert_eq!(StartMode::OneByOne.order(iteration(3), 5), [VcpuId(0)]);
}

#[test]
fn who_comes_late_and_how_late() {
    let stagger = StartMode::Stagger(Duration::from_millis(3));
    assert_eq!(stagger.delay(iteration(0), VcpuId(0)), Duration::ZERO);
    assert_eq!(stagger.delay(iteration(0), VcpuId(4)), Duration::from_millis(12));
    assert_eq!(StartMode::Stagger(Duration::MAX).delay(iteration(0), VcpuId(9)), Duration::MAX);
    let late = |seed, id| StartMode::Random.delay(iteration(seed), VcpuId(id));
    assert!((0..100).all(|seed| late(seed, 0) <= LATE_MAX));
    assert_eq!(late(1, 2), late(1, 2));
    assert_ne!(late(1, 2), late(1, 3));
}
