use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::stress::seed::Seed;

fn iteration(seed: u64) -> Iteration {
    Iteration { number: 0, seed: Seed(seed) }
}

fn draws(id: u32, rate: &str, seed: u64, count: usize) -> Vec<Option<Perturbation>> {
    let rate = rate.parse().unwrap();
    let mut chaos = Chaos::new(VcpuId(id), 4, rate, iteration(seed));
    let draws: Vec<_> = std::iter::repeat_with(|| chaos.draw()).take(count).collect();
    let disturbed = draws.iter().flatten().count();
    assert_eq!(chaos.drawn(), u64::try_from(disturbed).unwrap());
    draws
}

#[test]
fn the_same_seed_draws_the_same() {
    assert_eq!(draws(1, "0.3", 7, 500), draws(1, "0.3", 7, 500));
    assert_ne!(draws(1, "0.3", 7, 500), draws(1, "0.3", 8, 500));
    assert_ne!(draws(1, "0.3", 7, 500), draws(2, "0.3", 7, 500));
    let rate = "0.3".parse().unwrap();
    let mut chaos = Chaos::new(VcpuId(1), 4, rate, iteration(99));
    chaos.draw();
    chaos.begin(iteration(7));
    assert_eq!(chaos.draw(), draws(1, "0.3", 7, 1)[0], "a new iteration begins anew");
}

#[test]
fn the_rate_is_that_part_of_the_entries_and_every_kind_comes() {
    assert!(draws(0, "0", 1, 1000).iter().all(Option::is_none));
    let all: Vec<_> = draws(0, "1", 1, 1000).into_iter().map(Option::unwrap).collect();
    let kinds: BTreeSet<_> = all
        .iter()
        .map(|perturbation| match perturbation {
            Perturbation::Delay(time) => {
                assert!(*time <= DELAY_MAX);
                "delay"
            }
            Perturbation::Pause(time) => {
                assert!(*time <= PAUSE_MAX);
                "pause"
            }
            Perturbation::Kick(id) => {
                assert!(id.0 < 4);
                "kick"
            }
            Perturbation::Help => "help",
        })
        .collect();
    assert_eq!(kinds, ["delay", "help", "kick", "pause"].into());
    // Binomial with n = 10,000 and p = 0.05: six standard deviations are 131.
    let disturbed = draws(0, "0.05", 1, 10_000).iter().flatten().count();
    assert!((369..=631).contains(&disturbed), "{disturbed}");
}

#[test]
fn rates_are_parts_of_one() {
    for text in ["0", "1", "0.05", "0.000001", "0.5"] {
        assert_eq!(text.parse::<ChaosRate>().unwrap().to_string(), text);
    }
    for text in ["", "-0.1", "1.1", "NaN", "inf", "5%"] {
        let error = text.parse::<ChaosRate>().unwrap_err().to_string();
        assert!(error.contains(&format!("'{text}' is not a rate")), "{error}");
    }
    assert_eq!(ChaosRate::default().to_string(), "0.05");
    assert_eq!("0".parse::<ChaosRate>().unwrap().kick_period(), None);
}

#[test]
fn kicks_from_outside_and_capacities_follow_the_seed() {
    let kicks = |seed| {
        let drawn = draw_kicks(iteration(seed), 3, Duration::from_millis(1));
        drawn.take(100).collect::<Vec<_>>()
    };
    assert_eq!(kicks(1), kicks(1));
    assert_ne!(kicks(1), kicks(2));
    assert!(kicks(1).iter().all(|(wait, id)| *wait <= Duration::from_millis(2) && id.0 < 3));
    let capacities: BTreeSet<_> = (0..100).map(|seed| draw_capacity(iteration(seed))).collect();
    assert_eq!(capacities, CAPACITIES.into());
}

proptest! {
    #[test]
    fn numbers_are_below_their_end(seed: u64, end in 1_u32..) {
        let mut random = Purpose::Start.stream(iteration(seed));
        prop_assert!((0..20).all(|_| below(&mut random, end) < end));
    }
}
