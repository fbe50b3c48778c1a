//! QEMU's firmware configuration device: a guest selects an item by its key and reads it byte by
//! byte. There are the size of the machine and the files of `--fw-cfg`, in the order of their
//! names. A pure register machine; its contents are read from the host before it is made
//! (`setup.rs`). The source is QEMU's docs/specs/fw_cfg.rst, and for the keys its
//! include/standard-headers/linux/qemu_fw_cfg.h and hw/nvram/fw_cfg.h.
//!
//! There is no DMA interface, and bit 1 of the id says so: devices here have no way to the guest's
//! memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::VcpuCount;
use crate::devices::all_ones;

/// The selector, of two bytes; the data register is the second of them.
pub const FW_CFG: u64 = 0x510;
/// How many ports there are.
pub const FW_CFG_LEN: u64 = 2;

const DATA: u64 = 1;

/// Keys of items.
mod key {
    pub const SIGNATURE: u16 = 0x00;
    pub const ID: u16 = 0x01;
    pub const RAM_SIZE: u16 = 0x03;
    pub const CPUS: u16 = 0x05;
    pub const MAX_CPUS: u16 = 0x0f;
    pub const DIRECTORY: u16 = 0x19;
    pub const FIRST_FILE: u16 = 0x20;
    /// A bit that asks to write, which no item allows; the key is without it.
    pub const WRITE: u16 = 1 << 14;
}

/// The traditional interface, and no other.
const ID: u32 = 1 << 0;
/// A name's place in the directory.
const NAME_LEN: usize = 56;

/// A file for the guest: `name` has been checked to fit ([`crate::config::FwCfgName`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfgFile {
    /// Its name in the directory.
    pub name: String,
    /// What is in it.
    pub contents: Arc<[u8]>,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct FwCfg {
    items: BTreeMap<u16, Arc<[u8]>>,
    selected: u16,
    offset: usize,
}

impl FwCfg {
    /// The device of a machine with so many CPUs, so much memory in bytes and these files.
    pub fn new(cpus: VcpuCount, ram: u64, mut files: Vec<FwCfgFile>) -> Self {
        let cpus = u16::try_from(cpus.get()).unwrap_or(u16::MAX).to_le_bytes();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let mut items: BTreeMap<u16, Arc<[u8]>> = BTreeMap::from([
            (key::SIGNATURE, b"QEMU".as_slice().into()),
            (key::ID, ID.to_le_bytes().as_slice().into()),
            (key::RAM_SIZE, ram.to_le_bytes().as_slice().into()),
            (key::CPUS, cpus.as_slice().into()),
            (key::MAX_CPUS, cpus.as_slice().into()),
            (key::DIRECTORY, directory(&files).into()),
        ]);
        items.extend((key::FIRST_FILE..).zip(files.into_iter().map(|file| file.contents)));
        Self { items, selected: key::SIGNATURE, offset: 0 }
    }

    /// Nothing is selected but the signature, as after a reset.
    pub fn reset(&mut self) {
        (self.selected, self.offset) = (key::SIGNATURE, 0);
    }

    /// The guest reads at `offset` from the selector, which itself cannot be read.
    pub fn read(&mut self, offset: u64, size: u8) -> u64 {
        match (offset, size) {
            (DATA, _) => self.next_byte().into(),
            (_, 1) => all_ones(1),
            _ => u64::from(self.next_byte()) << 8 | all_ones(1),
        }
    }

    /// The guest writes there: two bytes at once select an item, and nothing else has an effect.
    pub fn write(&mut self, offset: u64, size: u8, value: u64) {
        if (offset, size) == (0, 2) {
            let [low, high, ..] = value.to_le_bytes();
            (self.selected, self.offset) = (u16::from_le_bytes([low, high]) & !key::WRITE, 0);
        }
    }

    /// Behind the end of an item, and where there is none, are zeros.
    fn next_byte(&mut self) -> u8 {
        let item = self.items.get(&self.selected).map_or(&[][..], |item| item);
        let byte = item.get(self.offset).copied();
        self.offset += usize::from(byte.is_some());
        byte.unwrap_or(0)
    }
}

/// The item that lists the files: numbers are big-endian here, and only here.
fn directory(files: &[FwCfgFile]) -> Vec<u8> {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = number(files.len()).to_vec();
    for (key, file) in (key::FIRST_FILE..).zip(files) {
        bytes.extend(number(file.contents.len()));
        bytes.extend(key.to_be_bytes());
        bytes.extend([0; 2]);
        let mut name = [0; NAME_LEN];
        let len = file.name.len().min(NAME_LEN - 1);
        name[..len].copy_from_slice(&file.name.as_bytes()[..len]);
        bytes.extend(name);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(files: &[(&str, &[u8])]) -> FwCfg {
        let file = |(name, bytes): &(&str, &[u8])| FwCfgFile {
            name: (*name).into(),
            contents: (*bytes).into(),
        };
        FwCfg::new(VcpuCount::new(3).unwrap(), 0x1_2345_6000, files.iter().map(file).collect())
    }

    fn item(device: &mut FwCfg, key: u16, len: usize) -> Vec<u8> {
        device.write(0, 2, key.into());
        (0..len).map(|_| u8::try_from(device.read(1, 1)).unwrap()).collect()
    }

    #[test]
    fn the_machine() {
        let mut device = device(&[]);
        assert_eq!(item(&mut device, 0, 6), b"QEMU\0\0");
        assert_eq!(item(&mut device, 1, 5), [1, 0, 0, 0, 0]);
        assert_eq!(item(&mut device, 3, 9), [0, 0x60, 0x45, 0x23, 1, 0, 0, 0, 0]);
        assert_eq!(item(&mut device, 5, 3), [3, 0, 0]);
        assert_eq!(item(&mut device, 0xf, 3), [3, 0, 0]);
        assert_eq!(item(&mut device, 0x19, 5), [0; 5]);
        // No such item, of either kind; and one with the bit for writing.
        assert_eq!(item(&mut device, 0x20, 2), [0, 0]);
        assert_eq!(item(&mut device, 0x8000, 2), [0, 0]);
        assert_eq!(item(&mut device, 0x4000, 4), b"QEMU");
    }

    #[test]
    fn files_are_listed_by_name() {
        let mut device = device(&[("opt/b", b"second"), ("opt/a", b"first!!")]);
        let list = item(&mut device, 0x19, 4 + 2 * 64 + 1);
        assert_eq!(list[..4], [0, 0, 0, 2]);
        assert_eq!(list[4..12], [0, 0, 0, 7, 0, 0x20, 0, 0]);
        assert_eq!(list[12..18], *b"opt/a\0");
        assert_eq!(list[68..76], [0, 0, 0, 6, 0, 0x21, 0, 0]);
        assert_eq!(list[76..82], *b"opt/b\0");
        assert_eq!(list[82..], [0; 51]);
        assert_eq!(item(&mut device, 0x20, 8), b"first!!\0");
        assert_eq!(item(&mut device, 0x21, 3), b"sec");
        // Selecting begins anew; what is written is ignored.
        device.write(1, 1, 0xff);
        device.write(0, 1, 0x20);
        assert_eq!(device.read(1, 1), u64::from(b'o'));
        assert_eq!(item(&mut device, 0x21, 6), b"second");
        device.reset();
        assert_eq!(device.read(1, 1), u64::from(b'Q'));
        // A word is the selector, which is not to be read, and data.
        assert_eq!(device.read(0, 2), u64::from(b'E') << 8 | 0xff);
        assert_eq!(device.read(0, 1), 0xff);
    }
}
