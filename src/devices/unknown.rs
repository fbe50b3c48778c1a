//! Accesses to addresses where no device is: counted, and noted for the log once for each
//! address, up to a number of addresses that a guest cannot raise.

use std::fmt;

use crate::exit::{Access, AddressSpace, Direction, VcpuId};

/// Addresses that are noted; more are only counted.
const NOTED: usize = 64;

/// See the module's text.
#[derive(Debug, Default)]
pub struct UnknownAccesses {
    count: u64,
    noted: Vec<(AddressSpace, u64)>,
    notices: Vec<UnknownAccess>,
    full: bool,
}

/// The first access to an address without a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAccess {
    vcpu: VcpuId,
    access: Access,
    last: bool,
}

impl UnknownAccesses {
    /// Counts an access and notes its address if that is new.
    pub fn count(&mut self, vcpu: VcpuId, access: &Access) {
        self.count += 1;
        let place = (access.space, access.addr);
        if self.full || self.noted.contains(&place) {
            return;
        }
        self.noted.push(place);
        self.full = self.noted.len() == NOTED;
        self.notices.push(UnknownAccess { vcpu, access: *access, last: self.full });
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.count
    }

    /// Whether something waits to be logged.
    pub fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// What waits to be logged; logging is done without the devices.
    pub fn take_notices(&mut self) -> Vec<UnknownAccess> {
        std::mem::take(&mut self.notices)
    }
}

impl fmt::Display for UnknownAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Access { space, addr, direction, size, .. } = self.access;
        let what = match space {
            AddressSpace::Pio => "port",
            AddressSpace::Mmio => "guest address",
        };
        let did = match direction {
            Direction::Read => "read, all ones",
            Direction::Write => "write, ignored",
        };
        write!(f, "no device at {what} {addr:#x} ({}, {size}-byte {did})", self.vcpu)?;
        if self.last {
            write!(f, "; further addresses are counted, not logged")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(addr: u64) -> Access {
        Access { space: AddressSpace::Pio, addr, direction: Direction::Read, size: 1, data: 0 }
    }

    #[test]
    fn each_address_is_noted_once() {
        let mut unknown = UnknownAccesses::default();
        for _ in 0..1000 {
            unknown.count(VcpuId(3), &read_of(0x80));
        }
        assert_eq!(unknown.total(), 1000);
        let notices = unknown.take_notices();
        assert_eq!(notices.len(), 1);
        assert_eq!(
            notices[0].to_string(),
            "no device at port 0x80 (vCPU 3, 1-byte read, all ones)"
        );
        assert!(!unknown.has_notices());
    }

    #[test]
    fn a_guest_that_scans_all_ports_cannot_flood_the_log() {
        let mut unknown = UnknownAccesses::default();
        for port in 0..=0xffff {
            unknown.count(VcpuId(0), &read_of(port));
        }
        assert_eq!(unknown.total(), 0x1_0000);
        let notices = unknown.take_notices();
        assert_eq!(notices.len(), NOTED);
        assert!(notices[NOTED - 1].to_string().ends_with("counted, not logged"));
    }
}
