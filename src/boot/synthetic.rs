//! Tiny images of every format, made on the spot for tests: those of this folder and those in
//! `tests/`, which include this file. It knows the formats from their specifications and nothing of
//! the loaders, so that the two cannot agree on something wrong.

#![allow(dead_code, reason = "each user of this file uses a part of it")]

/// An ELF executable.
#[derive(Clone, Debug)]
pub struct ElfImage {
    pub bits: u32,
    pub kind: u16,
    pub entry: u64,
    pub segments: Vec<ElfSegment>,
    pub notes: Vec<(&'static [u8], u32, Vec<u8>)>,
}

/// A segment to be loaded, or of another kind.
#[derive(Clone, Debug)]
pub struct ElfSegment {
    pub kind: u32,
    pub flags: u32,
    pub virtual_addr: u64,
    pub physical_addr: u64,
    pub bytes: Vec<u8>,
    pub memory_len: u64,
}

pub const LOAD: u32 = 1;
pub const DYNAMIC: u32 = 2;
pub const INTERP: u32 = 3;
pub const NOTE: u32 = 4;
/// Readable, writable, executable.
pub const RWX: u32 = 7;

impl ElfSegment {
    /// A segment to be loaded at `addr`, virtual and physical.
    pub fn load(addr: u64, bytes: &[u8]) -> Self {
        Self {
            kind: LOAD,
            flags: RWX,
            virtual_addr: addr,
            physical_addr: addr,
            bytes: bytes.to_vec(),
            memory_len: bytes.len() as u64,
        }
    }
}

impl ElfImage {
    /// An executable with this code at `addr`, its entry point.
    pub fn of_code(bits: u32, addr: u64, code: &[u8]) -> Self {
        let segments = vec![ElfSegment::load(addr, code)];
        Self { bits, kind: 2, entry: addr, segments, notes: Vec::new() }
    }

    /// The same with a note for the PVH entry point, which is there too.
    pub fn pvh(bits: u32, addr: u64, code: &[u8]) -> Self {
        let entry = u32::try_from(addr).unwrap().to_le_bytes().to_vec();
        Self { notes: vec![(b"Xen\0", 18, entry)], ..Self::of_code(bits, addr, code) }
    }

    /// The bytes of the notes' segment.
    fn note_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, kind, desc) in &self.notes {
            for word in [name.len(), desc.len()] {
                bytes.extend(u32::try_from(word).unwrap().to_le_bytes());
            }
            bytes.extend(kind.to_le_bytes());
            for part in [*name, desc.as_slice()] {
                bytes.extend(part);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        bytes
    }

    /// The file: the header, the program headers, the bytes of the segments.
    pub fn build(&self) -> Vec<u8> {
        let mut segments = self.segments.clone();
        if !self.notes.is_empty() {
            let (flags, addr) = (4, 0);
            let note =
                ElfSegment { kind: NOTE, flags, ..ElfSegment::load(addr, &self.note_bytes()) };
            segments.push(note);
        }
        let wide = self.bits == 64;
        let (header_len, entry_len) = if wide { (64_u16, 56_u16) } else { (52, 32) };
        let word = |value: u64| {
            let bytes = value.to_le_bytes();
            bytes[..if wide { 8 } else { 4 }].to_vec()
        };
        let (class, machine) = if wide { (2, 62_u16) } else { (1, 3) };
        let mut file = vec![0x7f, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend(self.kind.to_le_bytes());
        file.extend(machine.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(word(self.entry));
        file.extend(word(header_len.into()));
        file.extend(word(0));
        file.extend(0_u32.to_le_bytes());
        let count = u16::try_from(segments.len()).unwrap();
        for half in [header_len, entry_len, count, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut offset = u64::from(header_len) + u64::from(entry_len) * u64::from(count);
        for s in &segments {
            let len = s.bytes.len() as u64;
            file.extend(s.kind.to_le_bytes());
            if wide {
                file.extend(s.flags.to_le_bytes());
            }
            for value in [offset, s.virtual_addr, s.physical_addr, len, s.memory_len] {
                file.extend(word(value));
            }
            if !wide {
                file.extend(s.flags.to_le_bytes());
            }
            file.extend(word(4));
            offset += len;
        }
        file.extend(segments.iter().flat_map(|s| s.bytes.iter().copied()));
        file
    }
}

/// A Multiboot header with these words behind its checksum.
pub fn multiboot_header(flags: u32, words: &[u32]) -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    let checksum = 0_u32.wrapping_sub(MAGIC).wrapping_sub(flags);
    let header = [MAGIC, flags, checksum];
    header.iter().chain(words).flat_map(|word| word.to_le_bytes()).collect()
}

/// A Multiboot image that says itself where it goes: its header at `addr`, then this code.
pub fn multiboot_image(addr: u32, code: &[u8]) -> Vec<u8> {
    let header_len = 32;
    let header = multiboot_header(1 << 16, &[addr, addr, 0, 0, addr + header_len]);
    [header, code.to_vec()].concat()
}

/// A bzImage: what its header says, and its code.
#[derive(Clone, Debug)]
pub struct BzImage {
    pub version: u16,
    pub setup_sectors: u8,
    pub load_flags: u8,
    pub code32_start: u32,
    pub initrd_max: u32,
    pub alignment: u32,
    pub relocatable: u8,
    pub xload_flags: u16,
    pub cmdline_size: u32,
    pub preferred: u64,
    pub init_size: u32,
    /// What the real-mode code begins with, at 0x200 of the file, if not with a jump over the
    /// header.
    pub real_mode_code: Vec<u8>,
    /// The protected-mode code.
    pub code: Vec<u8>,
    /// The length in the header: that of `code` if not given.
    pub paragraphs: Option<u32>,
}

impl BzImage {
    /// A kernel that is like those of today: relocatable, with an entry point at its start for 32
    /// bits, and one 0x200 bytes later for 64 bits.
    pub fn new(code32: &[u8], code64: &[u8]) -> Self {
        let mut code = code32.to_vec();
        code.resize(0x200, 0x90);
        code.extend(code64);
        Self {
            version: 0x20f,
            setup_sectors: 1,
            load_flags: 1,
            code32_start: 0x10_0000,
            initrd_max: 0x7fff_ffff,
            alignment: 0x20_0000,
            relocatable: 1,
            xload_flags: 1,
            cmdline_size: 255,
            preferred: 0x100_0000,
            init_size: 0x10_0000,
            real_mode_code: Vec::new(),
            code,
            paragraphs: None,
        }
    }

    /// The file. The header ends at 0x26c, and behind it at most goes the rest of the real-mode
    /// code.
    pub fn build(&self) -> Vec<u8> {
        let mut file = vec![0; 512 * (usize::from(self.setup_sectors) + 1)];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        let paragraphs = u32::try_from(self.code.len().div_ceil(16)).unwrap();
        put(0x1f1, &[self.setup_sectors]);
        put(0x1f4, &self.paragraphs.unwrap_or(paragraphs).to_le_bytes());
        put(0x1fe, &[0x55, 0xaa]);
        // A jump from here to the end of the header.
        put(0x200, &[0xeb, 0x6a]);
        put(0x202, b"HdrS");
        put(0x206, &self.version.to_le_bytes());
        put(0x211, &[self.load_flags]);
        put(0x214, &self.code32_start.to_le_bytes());
        put(0x22c, &self.initrd_max.to_le_bytes());
        put(0x230, &self.alignment.to_le_bytes());
        put(0x234, &[self.relocatable]);
        put(0x236, &self.xload_flags.to_le_bytes());
        put(0x238, &self.cmdline_size.to_le_bytes());
        put(0x258, &self.preferred.to_le_bytes());
        put(0x260, &self.init_size.to_le_bytes());
        put(0x268, &0xc0de_u32.to_le_bytes());
        put(0x26c, &self.real_mode_code);
        file.extend(&self.code);
        file
    }
}
