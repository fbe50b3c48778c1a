//! The command line that runs one iteration of a campaign again, alone.

use std::ffi::{OsStr, OsString};

use crate::stress::seed::Seed;

/// The options of a campaign that do not concern a single iteration, and whether a value follows.
const LEFT_OUT: [(&str, bool); 15] = [
    ("--repeat", true),
    ("--until-fail", false),
    ("--seed", true),
    ("--jobs", true),
    ("--keep-going", false),
    ("--fail-fast", false),
    ("--shard", true),
    ("--result", true),
    ("--timeout", true),
    // One iteration need not show what a campaign must.
    ("--expect", true),
    // The campaign's own files must stay as they are.
    ("--trace", true),
    ("--trace-format", true),
    ("--trace-full", true),
    ("--trace-filter", true),
    ("--stats-file", true),
];

/// See the module's text.
#[derive(Clone, Debug)]
pub struct ReplayCommand(String);

impl ReplayCommand {
    /// From the command line of the campaign, the name of the program first.
    pub fn of(args: impl IntoIterator<Item = OsString>) -> Self {
        let mut words = Vec::new();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match LEFT_OUT.iter().find(|(name, takes_value)| is_option(&arg, name, *takes_value)) {
                Some((name, true)) if arg == *name => drop(args.next()),
                Some(_) => {}
                None if arg == "--" => {
                    words.push(quoted(&arg));
                    words.extend(args.by_ref().map(|arg| quoted(&arg)));
                }
                None => words.push(quoted(&arg)),
            }
        }
        // First, since after `--` there are no options.
        let at = words.len().min(1);
        words.insert(at, "--repeat 1 --seed SEED".into());
        Self(words.join(" "))
    }

    /// For the iteration that has this seed.
    pub fn for_seed(&self, seed: Seed) -> String {
        self.0.replacen("--seed SEED", &format!("--seed {seed}"), 1)
    }
}

fn is_option(arg: &OsStr, name: &str, takes_value: bool) -> bool {
    let with_value = || arg.to_str()?.strip_prefix(name)?.strip_prefix('=');
    arg == name || (takes_value && with_value().is_some())
}

/// A word as a shell reads it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(line: &[&str]) -> String {
        ReplayCommand::of(line.iter().map(OsString::from)).for_seed(Seed(0x1f))
    }

    #[test]
    fn what_concerns_the_campaign_is_left_out() {
        assert_eq!(
            replay(&[
                "minivmm",
                "--vcpus",
                "4",
                "--repeat",
                "100",
                "--seed=7",
                "--keep-going",
                "--jobs=2",
                "--chaos=0.5",
                "--result",
                "a b.json",
                "it's",
                "--lockstep",
            ]),
            r"minivmm --repeat 1 --seed 0x1f --vcpus 4 --chaos=0.5 'it'\''s' --lockstep"
        );
    }

    #[test]
    fn a_guest_after_the_dashes_stays_one() {
        assert_eq!(
            replay(&["minivmm", "--until-fail", "--", "--repeat"]),
            "minivmm --repeat 1 --seed 0x1f -- --repeat"
        );
    }
}
