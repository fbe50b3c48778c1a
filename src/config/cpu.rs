//! [`CpuChanges`]: which features of its CPU a guest is to have or not to have, by name.
//!
//! Only names and places live here (`cpu/names.rs` has the table); what the host's KVM can give,
//! and what is left out unless asked for, is `kvm/features.rs`.

mod names;

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// One of the registers that CPUID writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CpuidRegister {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// Where CPUID says whether a feature is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuidBit {
    /// EAX before.
    pub leaf: u32,
    /// ECX before.
    pub subleaf: u32,
    /// The register.
    pub register: CpuidRegister,
    /// The bit: 0 to 31.
    pub bit: u8,
}

/// A feature with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuFeature(&'static str);

/// A name that is no [`CpuFeature`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{name}' is not a CPU feature{}", Self::hint(similar))]
pub struct UnknownCpuFeature {
    /// The name.
    pub name: String,
    /// Those that are like it, the most similar first.
    pub similar: Vec<&'static str>,
}

impl UnknownCpuFeature {
    fn hint(similar: &[&str]) -> String {
        match similar {
            [] => String::from(": their names are those of Linux's /proc/cpuinfo"),
            similar => format!(": did you mean {}?", similar.join(" or ")),
        }
    }
}

/// From which likeness on a name may have been meant, of 0 to 1.
const SIMILAR: f64 = 0.85;
/// How many of those are shown.
const SHOWN: usize = 3;

impl CpuFeature {
    /// All features, some of them more than once.
    pub fn all() -> impl Iterator<Item = Self> {
        features().map(|(name, _)| Self(name))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// Its places in CPUID, each of which says by itself that it is there.
    pub fn bits(self) -> impl Iterator<Item = CpuidBit> {
        features().filter(move |(name, _)| *name == self.0).map(|(_, bit)| bit)
    }
}

fn features() -> impl Iterator<Item = (&'static str, CpuidBit)> {
    names::REGISTERS.iter().flat_map(names::Register::features)
}

impl fmt::Display for CpuFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl FromStr for CpuFeature {
    type Err = UnknownCpuFeature;

    fn from_str(text: &str) -> Result<Self, UnknownCpuFeature> {
        if let Some(known) = Self::all().find(|known| known.0 == text) {
            return Ok(known);
        }
        let mut like: Vec<_> = Self::all()
            .map(|known| (strsim::jaro_winkler(known.0, &text.to_lowercase()), known.0))
            .filter(|(likeness, _)| *likeness >= SIMILAR)
            .collect();
        like.sort_by(|a, b| b.0.total_cmp(&a.0));
        like.dedup();
        let similar = like.into_iter().map(|(_, name)| name).take(SHOWN).collect();
        Err(UnknownCpuFeature { name: text.to_owned(), similar })
    }
}

/// Features to add to those that a CPU has by default, or to take away, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuChanges(Vec<CpuChange>);

/// A feature that is to be there, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuChange {
    /// `+FEATURE`
    Add(CpuFeature),
    /// `-FEATURE`
    Remove(CpuFeature),
}

/// Why a text is no [`CpuChanges`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CpuChangesError {
    /// Neither added nor removed.
    #[error("'{0}' is neither +FEATURE nor -FEATURE")]
    Sign(String),
    /// Both added and removed.
    #[error("{0} is both added and removed")]
    Both(CpuFeature),
    /// No such feature.
    #[error(transparent)]
    Unknown(#[from] UnknownCpuFeature),
}

impl CpuChanges {
    /// Those to add.
    pub fn added(&self) -> impl Iterator<Item = CpuFeature> {
        self.0.iter().filter_map(|change| match change {
            CpuChange::Add(feature) => Some(*feature),
            CpuChange::Remove(_) => None,
        })
    }

    /// Those to take away.
    pub fn removed(&self) -> impl Iterator<Item = CpuFeature> {
        self.0.iter().filter_map(|change| match change {
            CpuChange::Add(_) => None,
            CpuChange::Remove(feature) => Some(*feature),
        })
    }
}

impl CpuChanges {
    /// Whether this bit is taken away.
    pub fn removes(&self, bit: CpuidBit) -> bool {
        self.removed().flat_map(CpuFeature::bits).any(|removed| removed == bit)
    }
}

impl fmt::Display for CpuChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match change {
                CpuChange::Add(feature) => write!(f, "{comma}+{feature}")?,
                CpuChange::Remove(feature) => write!(f, "{comma}-{feature}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for CpuChanges {
    type Err = CpuChangesError;

    fn from_str(text: &str) -> Result<Self, CpuChangesError> {
        let mut changes = Self::default();
        for word in text.split(',') {
            let change = match word.split_at_checked(1) {
                Some(("+", name)) => CpuChange::Add(name.parse()?),
                Some(("-", name)) => CpuChange::Remove(name.parse()?),
                _ => return Err(CpuChangesError::Sign(word.to_owned())),
            };
            changes.0.push(change);
        }
        let both = changes.added().find(|added| changes.removed().any(|other| other == *added));
        match both {
            Some(both) => Err(CpuChangesError::Both(both)),
            None => Ok(changes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_list_adds_and_removes() {
        let changes: CpuChanges = "-popcnt,+x2apic,-cx16".parse().unwrap();
        let names = |features: Vec<CpuFeature>| -> Vec<_> {
            features.into_iter().map(CpuFeature::name).collect()
        };
        assert_eq!(names(changes.added().collect()), ["x2apic"]);
        assert_eq!(names(changes.removed().collect()), ["popcnt", "cx16"]);
        assert_eq!(changes.to_string(), "-popcnt,+x2apic,-cx16");
        assert_eq!(changes.to_string().parse(), Ok(changes));
        assert_eq!(CpuChanges::default().to_string(), "");
    }

    #[test]
    fn bad_lists_say_why() {
        for (text, why) in [
            ("popcnt", "'popcnt' is neither +FEATURE nor -FEATURE"),
            ("", "'' is neither +FEATURE nor -FEATURE"),
            ("-popcnt,", "'' is neither +FEATURE nor -FEATURE"),
            ("ü", "'ü' is neither +FEATURE nor -FEATURE"),
            ("-popcnt,+popcnt", "popcnt is both added and removed"),
            ("-popcount", "'popcount' is not a CPU feature: did you mean popcnt?"),
            ("+X2APIC", "'X2APIC' is not a CPU feature: did you mean x2apic or apic?"),
            ("-zzz", "'zzz' is not a CPU feature: their names are those of Linux's /proc/cpuinfo"),
        ] {
            assert_eq!(text.parse::<CpuChanges>().unwrap_err().to_string(), why, "{text:?}");
        }
        let Err(CpuChangesError::Unknown(error)) = "-avx512".parse::<CpuChanges>() else {
            panic!("accepted");
        };
        assert!(error.similar.len() == SHOWN && error.similar.contains(&"avx512f"), "{error}");
    }

    #[test]
    fn features_are_where_the_manuals_have_them() {
        let bits = |name: &str| -> Vec<_> {
            let feature: CpuFeature = name.parse().unwrap();
            feature
                .bits()
                .map(|CpuidBit { leaf, subleaf, register, bit }| (leaf, subleaf, register, bit))
                .collect()
        };
        assert_eq!(bits("x2apic"), [(1, 0, CpuidRegister::Ecx, 21)]);
        assert_eq!(bits("avx_vnni"), [(7, 1, CpuidRegister::Eax, 4)]);
        assert_eq!(bits("lm"), [(0x8000_0001, 0, CpuidRegister::Edx, 29)]);
        assert_eq!(bits("kvm-pv-ipi"), [(0x4000_0001, 0, CpuidRegister::Eax, 11)]);
        let two = [(7, 0, CpuidRegister::Edx, 31), (0x8000_0008, 0, CpuidRegister::Ebx, 24)];
        assert_eq!(bits("ssbd"), two);
    }

    #[test]
    fn no_name_is_twice_in_a_leaf_of_one_maker_and_all_bits_are_bits() {
        let mut seen = HashSet::new();
        for (name, bit) in features() {
            assert!(bit.bit < 32 && seen.insert((name, bit.leaf)), "{name}");
            assert_eq!(name, name.to_lowercase());
        }
        assert!(seen.len() > 200);
    }
}
