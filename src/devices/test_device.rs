//! The device that kvm-unit-tests have on QEMU (`pc-testdev`), under `--device testdev`: a scratch
//! register at two places in the port space, ports that drive interrupt lines, and a page of
//! memory that is a device. Pure registers; the pins are the owner's. The sources are QEMU's
//! hw/misc/pc-testdev.c and the tests that use it.
//!
//! The port at 0xe4 has the host drop its mapping of a guest page, so that KVM has to make it anew
//! at the next access. A host may do that at any time and no guest can tell, so what is written
//! there is ignored here.

/// The scratch register, of four bytes, with accesses of every size.
pub const SCRATCH: u64 = 0xe0;
/// The page to flush.
pub const FLUSH: u64 = 0xe4;
/// The scratch register again, byte by byte.
pub const SCRATCH_BYTES: u64 = 0xe8;
/// The length of each of these.
pub const SCRATCH_LEN: u64 = 4;
/// One port for each interrupt line.
pub const IRQ_PORTS: u64 = 0x2000;
/// How many lines there are: as many as an IOAPIC has pins.
pub const IRQ_LINES: u32 = 24;
/// The memory.
pub const MEMORY: u64 = 0xff00_0000;
/// Its length.
pub const MEMORY_LEN: u64 = 0x1_0000;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct TestDevice {
    scratch: [u8; 4],
    memory: Box<[u8]>,
}

impl Default for TestDevice {
    fn default() -> Self {
        let len = usize::try_from(MEMORY_LEN).unwrap_or_default();
        Self { scratch: [0; 4], memory: vec![0; len].into() }
    }
}

impl TestDevice {
    /// The guest reads the scratch register.
    pub fn read_scratch(&self, offset: u64, size: u8) -> u64 {
        load(&self.scratch, offset, size)
    }

    /// The guest writes the scratch register.
    pub fn write_scratch(&mut self, offset: u64, size: u8, value: u64) {
        store(&mut self.scratch, offset, size, value);
    }

    /// The guest reads the memory.
    pub fn read_memory(&self, offset: u64, size: u8) -> u64 {
        load(&self.memory, offset, size)
    }

    /// The guest writes the memory.
    pub fn write_memory(&mut self, offset: u64, size: u8, value: u64) {
        store(&mut self.memory, offset, size, value);
    }
}

/// `size` bytes at `offset`, little-endian; those beyond the end are 0.
fn load(bytes: &[u8], offset: u64, size: u8) -> u64 {
    let first = usize::try_from(offset).unwrap_or(usize::MAX);
    let mut value = [0; 8];
    for (to, from) in value.iter_mut().zip(bytes.iter().skip(first)).take(size.into()) {
        *to = *from;
    }
    u64::from_le_bytes(value)
}

fn store(bytes: &mut [u8], offset: u64, size: u8, value: u64) {
    let first = usize::try_from(offset).unwrap_or(usize::MAX);
    for (to, from) in bytes.iter_mut().skip(first).zip(value.to_le_bytes()).take(size.into()) {
        *to = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scratch_register_takes_every_size() {
        let mut device = TestDevice::default();
        device.write_scratch(0, 4, 0x1234_5678);
        assert_eq!(device.read_scratch(0, 4), 0x1234_5678);
        device.write_scratch(1, 1, 0xab);
        device.write_scratch(2, 2, 0xcdef);
        assert_eq!(device.read_scratch(0, 4), 0xcdef_ab78);
        assert_eq!(device.read_scratch(3, 1), 0xcd);
        assert_eq!(device.read_scratch(1, 2), 0xefab);
    }

    #[test]
    fn the_memory_reads_back() {
        let mut device = TestDevice::default();
        device.write_memory(0xfff8, 8, 0x8877_6655_4433_2211);
        assert_eq!(device.read_memory(0xfff8, 8), 0x8877_6655_4433_2211);
        assert_eq!(device.read_memory(0xfffd, 3), 0x0088_7766);
        device.write_memory(0, 2, 0xbeef);
        assert_eq!(device.read_memory(0, 8), 0xbeef);
    }
}
