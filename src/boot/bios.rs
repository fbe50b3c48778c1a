//! The BIOS for images that are entered in real mode and call one: its code, the interrupt table,
//! the BIOS data area, and what it is told of the machine. The services themselves are
//! `guests/firmware/bios.S`.

use super::memory_map::{MapEntry, Usage};
use crate::exit::Gpa;
use crate::memory;

/// Where the BIOS is, and the segment in which it runs there.
pub(super) const BASE: Gpa = Gpa(memory::BIOS.start);
pub(super) const SEGMENT: u16 = 0xf000;
/// The offset of [`BASE`] in its segment.
const ORIGIN: u16 = 0xe000;

/// The interrupt table and the BIOS data area, from address 0.
pub(super) const LOW_LEN: usize = 0x500;

/// Where in the image what we fill in is, from `entry_point` on.
const FILLED_IN: usize = 0x800;
/// The entries that the map has room for.
const MAP_MAX: usize = 32;

/// The vector behind the last one in the image's list of vectors.
const LIST_END: u16 = 0xffff;

/// In the BIOS data area (Ralf Brown's memory list): the first serial port, the number of serial
/// ports in the equipment word, and the size of conventional memory in KiB.
const BDA_COM1: usize = 0x400;
const BDA_EQUIPMENT: usize = 0x410;
const BDA_MEMORY_KIB: usize = 0x413;
const ONE_SERIAL_PORT: u16 = 1 << 9;
const COM1: u16 = 0x3f8;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The BIOS, ready to be copied.
#[derive(Debug)]
pub(super) struct Bios {
    /// What goes to [`BASE`].
    pub(super) image: Vec<u8>,
    /// What goes to address 0.
    pub(super) low: Vec<u8>,
    /// Where the vCPU starts, as an offset in [`SEGMENT`].
    pub(super) start: u16,
}

impl Bios {
    /// The BIOS of a machine with this memory map, which then jumps to `segment:offset`.
    pub(super) fn new(map: &[MapEntry], segment: u16, offset: u16) -> Self {
        let mut image = minivmm_guests::BIOS.to_vec();
        let (low, start) = low_memory(&image, map);
        let mut told = Vec::new();
        told.extend([offset, segment].map(u16::to_le_bytes).as_flattened());
        told.extend(sizes(map).map(u16::to_le_bytes).as_flattened());
        let map = &map[..map.len().min(MAP_MAX)];
        told.extend(u16::try_from(map.len()).unwrap_or(0).to_le_bytes());
        for MapEntry { range, usage } in map {
            told.extend(range.start.to_le_bytes());
            told.extend((range.end - range.start).to_le_bytes());
            told.extend((*usage as u32).to_le_bytes());
        }
        image[FILLED_IN..][..told.len()].copy_from_slice(&told);
        Self { image, low, start }
    }
}

/// The interrupt table and the BIOS data area, and where the image has the vCPU start.
fn low_memory(image: &[u8], map: &[MapEntry]) -> (Vec<u8>, u16) {
    let word = |index: usize| u16::from_le_bytes([image[2 * index], image[2 * index + 1]]);
    let vectors = (0..).step_by(2).take_while(|index| word(*index) != LIST_END);
    let handlers: Vec<(u16, u16)> = vectors.map(|index| (word(index), word(index + 1))).collect();
    let behind = 2 * handlers.len();
    let nothing = word(behind + 1);

    let mut low = vec![0; LOW_LEN];
    for vector in 0..=0xff_u16 {
        let known = handlers.iter().find(|(known, _)| *known == vector);
        let offset = known.map_or(nothing, |(_, handler)| *handler);
        put(&mut low, 4 * usize::from(vector), offset);
        put(&mut low, 4 * usize::from(vector) + 2, SEGMENT);
    }
    put(&mut low, BDA_COM1, COM1);
    put(&mut low, BDA_EQUIPMENT, ONE_SERIAL_PORT);
    put(&mut low, BDA_MEMORY_KIB, clamp(ram_from(map, 0) / KIB));
    (low, word(behind + 2))
}

fn put(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
}

/// What INT 15h, 88h and E801h tell: KiB above 1 MiB, of which no more than 63 MiB; KiB between 1
/// and 16 MiB; and 64 KiB blocks above 16 MiB.
fn sizes(map: &[MapEntry]) -> [u16; 3] {
    let above = ram_from(map, MIB);
    let to_16_mib = above.min(15 * MIB);
    [
        clamp(above.min(63 * MIB) / KIB),
        clamp(to_16_mib / KIB),
        clamp((above - to_16_mib) / (64 * KIB)),
    ]
}

/// How much RAM there is without a gap from `start` on.
fn ram_from(map: &[MapEntry], start: u64) -> u64 {
    let entry = map.iter().find(|entry| entry.usage == Usage::Ram && entry.range.contains(&start));
    entry.map_or(0, |entry| entry.range.end - start)
}

fn clamp(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

const _: () = assert!(ORIGIN as u64 + (SEGMENT as u64) * 16 == BASE.0);
const _: () = assert!(BASE.0 + minivmm_guests::BIOS.len() as u64 == memory::BIOS.end);
