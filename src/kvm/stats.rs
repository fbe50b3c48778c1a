//! KVM's own counters of a VM and of a vCPU: the binary statistics (KVM API document, section
//! 4.133, KVM_GET_STATS_FD). They count what never leaves the kernel as well.
//!
//! A descriptor of its own gives them, by read(2): a header, which says where the rest is, a
//! description of each counter with its name, and the values. Any thread may read it, also when
//! the vCPU has ended. The kernel is not taken at its word: all lengths are checked.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use kvm_bindings::{KVM_STATS_TYPE_CUMULATIVE, KVM_STATS_TYPE_MASK};
use kvm_ioctls::{VcpuFd, VmFd};

/// `_IO(KVMIO, 0xce)`; kvm-ioctls does not have it.
const KVM_GET_STATS_FD: libc::Ioctl = 0xaece;

/// `struct kvm_stats_header`: flags, length of a name, number of counters, and the offsets of the
/// VM's name, the descriptions and the values.
const HEADER_LEN: usize = 24;

/// `struct kvm_stats_desc` without the name: flags, exponent (2 bytes), number of values (2
/// bytes), offset of the values, size of a bucket.
const DESCRIPTION_LEN: usize = 16;

/// More counters, and longer names, than any kernel has.
const MAX_COUNTERS: u32 = 4096;
const MAX_NAME_LEN: u32 = 256;

/// The counters of a VM or of a vCPU.
#[derive(Debug)]
pub struct KvmStats {
    file: File,
}

impl KvmStats {
    /// Those of a VM.
    ///
    /// # Errors
    ///
    /// The kernel does not have them: they came with Linux 5.14.
    pub fn of_vm(vm: &VmFd) -> io::Result<Self> {
        Self::of(vm.as_raw_fd())
    }

    /// Those of a vCPU. Only the thread that runs it can call this without waiting for it to
    /// leave the guest.
    ///
    /// # Errors
    ///
    /// As [`of_vm`](Self::of_vm).
    pub fn of_vcpu(vcpu: &VcpuFd) -> io::Result<Self> {
        Self::of(vcpu.as_raw_fd())
    }

    /// `fd` is that of a VM or a vCPU.
    fn of(fd: RawFd) -> io::Result<Self> {
        // SAFETY: the descriptor is open, being borrowed by the callers, and KVM's; this ioctl
        // takes no argument and touches no memory of ours.
        let stats = unsafe { libc::ioctl(fd, KVM_GET_STATS_FD, 0) };
        if stats < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the ioctl has made this descriptor for us, and nobody else knows of it.
        let stats = unsafe { OwnedFd::from_raw_fd(stats) };
        Ok(Self { file: File::from(stats) })
    }

    /// The counters that have counted anything, by the kernel's names for them, such as `exits`
    /// or `halt_successful_poll`. A time has its unit in its name.
    ///
    /// # Errors
    ///
    /// The kernel does not give them, or what it gives makes no sense.
    pub fn read(&self) -> io::Result<Vec<(String, u64)>> {
        counters(&|bytes, offset| self.file.read_exact_at(bytes, offset))
    }
}

/// What `stats` count; nothing on a kernel that does not have them, which is said once.
pub fn counted(stats: io::Result<KvmStats>) -> Vec<(String, u64)> {
    stats.and_then(|stats| stats.read()).unwrap_or_else(|error| {
        log::info!(target: "minivmm::kvm", "no counters of KVM's own: {error}");
        Vec::new()
    })
}

/// Fills in some bytes from an offset, or fails.
type ReadAt<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// Counters that only grow, hold one value and are not 0; the rest are levels and histograms.
fn counters(read_at: ReadAt<'_>) -> io::Result<Vec<(String, u64)>> {
    let header = Header::read(read_at)?;
    let mut descriptions = vec![0; header.descriptions_len()];
    read_at(&mut descriptions, header.descriptions)?;
    let mut counters = Vec::new();
    for description in descriptions.chunks_exact(header.description_len()) {
        let Some((fixed, name)) = description.split_first_chunk() else { continue };
        let Some(place) = place_of(fixed) else { continue };
        let mut value = [0; 8];
        read_at(&mut value, header.values.saturating_add(place))?;
        let value = u64::from_ne_bytes(value);
        if value != 0 {
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            counters.push((String::from_utf8_lossy(name).into_owned(), value));
        }
    }
    Ok(counters)
}

/// What the header says, checked.
struct Header {
    name_len: usize,
    counters: usize,
    descriptions: u64,
    values: u64,
}

impl Header {
    fn read(read_at: ReadAt<'_>) -> io::Result<Self> {
        let mut bytes = [0; HEADER_LEN];
        read_at(&mut bytes, 0)?;
        let mut words = [0; HEADER_LEN / 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        let [_flags, name_len, counters, _id, descriptions, values] = words;
        if name_len > MAX_NAME_LEN || counters > MAX_COUNTERS {
            let what = format!("KVM's statistics have {counters} names of {name_len} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Self {
            name_len: usize::try_from(name_len).unwrap_or(0),
            counters: usize::try_from(counters).unwrap_or(0),
            descriptions: u64::from(descriptions),
            values: u64::from(values),
        })
    }

    fn description_len(&self) -> usize {
        DESCRIPTION_LEN + self.name_len
    }

    fn descriptions_len(&self) -> usize {
        self.description_len() * self.counters
    }
}

/// Where the value of a counter is, from the beginning of the values; none for what is not to be
/// shown.
fn place_of(description: &[u8; DESCRIPTION_LEN]) -> Option<u64> {
    let [f0, f1, f2, f3, _, _, s0, s1, o0, o1, o2, o3, ..] = *description;
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    let values = u16::from_ne_bytes([s0, s1]);
    let is_counter = flags & KVM_STATS_TYPE_MASK == KVM_STATS_TYPE_CUMULATIVE && values == 1;
    is_counter.then(|| u64::from(u32::from_ne_bytes([o0, o1, o2, o3])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads from `file` as pread(2) does from a file.
    fn read(file: &[u8]) -> io::Result<Vec<(String, u64)>> {
        counters(&|bytes, offset| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(bytes.len());
            let part = file.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(part);
            Ok(())
        })
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn description(flags: u32, values: u16, offset: u32, name: &str) -> Vec<u8> {
        let sizes = [0i16.to_ne_bytes(), values.to_ne_bytes()].concat();
        let mut bytes = [words(&[flags]), sizes, words(&[offset, 0]), name.into()].concat();
        bytes.resize(DESCRIPTION_LEN + 8, 0);
        bytes
    }

    /// A file with counters of names of 8 bytes.
    fn file() -> Vec<u8> {
        let header = words(&[0, 8, 5, 24, 32, 32 + 5 * 24]);
        let mut bytes = [header, b"kvm-1234".to_vec()].concat();
        bytes.extend(description(0, 1, 8, "exits"));
        bytes.extend(description(1, 1, 0, "instant"));
        bytes.extend(description(4, 3, 0, "hist"));
        bytes.extend(description(0, 1, 16, "none"));
        bytes.extend(description(0x20, 1, 0, "wait_ns!"));
        bytes.extend([7u64, 123, 0].map(u64::to_ne_bytes).concat());
        bytes
    }

    #[test]
    fn counters_that_count_are_read() {
        let counters = read(&file()).unwrap();
        assert_eq!(counters, [("exits".to_owned(), 123), ("wait_ns!".to_owned(), 7)]);
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error() {
        let file = file();
        for len in 0..file.len() {
            // The last value of all is read for its counter.
            assert!(read(&file[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn absurd_lengths_are_an_error() {
        for (place, absurd) in [(4, u32::MAX), (4, 257), (8, u32::MAX), (8, 4097)] {
            let mut file = file();
            file[place..place + 4].copy_from_slice(&absurd.to_ne_bytes());
            let error = read(&file).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        for place in [16, 20, 32 + 8] {
            let mut file = file();
            file[place..place + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
            assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..400),
            header in prop::array::uniform6(0..64u32),
        ) {
            let _ = read(&bytes);
            let header = words(&header);
            let len = header.len().min(bytes.len());
            bytes[..len].copy_from_slice(&header[..len]);
            let _ = read(&bytes);
        }
    }
}
