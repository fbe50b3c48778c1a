//! The x87, SSE and further state of a vCPU, in the standard format of XSAVE (Intel SDM vol. 1,
//! section 13.4), and where each component is in it.

use super::cpu::Cpu;
use super::stop::Stop;

/// The length of the legacy region, and of the header behind it.
pub const LEGACY_LEN: usize = 512;
pub const HEADER_LEN: usize = 64;

/// Where the extended region begins.
pub const EXTENDED_START: usize = LEGACY_LEN + HEADER_LEN;

/// Offsets in the legacy region (table 13-1).
pub const FCW: usize = 0;
pub const FSW: usize = 2;
pub const FTW: usize = 4;
pub const FOP: usize = 6;
pub const FIP: usize = 8;
pub const FDP: usize = 16;
pub const MXCSR: usize = 24;
pub const MXCSR_MASK: usize = 28;
pub const ST0: usize = 32;
pub const XMM0: usize = 160;

/// The end of XMM15.
pub const XMM_END: usize = XMM0 + 256;

/// Bits of XSTATE_BV and XCR0.
pub const X87: u64 = 1 << 0;
pub const SSE: u64 = 1 << 1;
pub const AVX: u64 = 1 << 2;
/// PKRU is component 9.
pub const PKRU: u32 = 9;

/// What FNINIT and MXCSR's reset make of the control words.
pub const FCW_INIT: u16 = 0x37f;
pub const MXCSR_INIT: u32 = 0x1f80;

/// The MXCSR bits that there are, on a CPU that gives no mask (section 11.6.6).
const MXCSR_MASK_DEFAULT: u32 = 0xffbf;

/// Where a component of the extended region is (CPUID leaf 0xd).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Component {
    /// In the standard format.
    pub offset: usize,
    /// Its length.
    pub len: usize,
    /// It begins at a multiple of 64 in the compacted format.
    pub aligned: bool,
}

/// See the module's text.
#[derive(Debug)]
pub struct Extended {
    area: Vec<u8>,
    changed: bool,
    pkru: Option<Component>,
}

impl Extended {
    /// The state of `cpu`.
    ///
    /// # Errors
    ///
    /// The host does not give it; or gives less than the legacy region and the header.
    pub fn of(cpu: &mut impl Cpu) -> Result<Self, Stop> {
        let area = cpu.extended()?;
        if area.len() < EXTENDED_START {
            return Err(Stop::Unknown);
        }
        let pkru = component(cpu, PKRU)?;
        Ok(Self { area, changed: false, pkru })
    }

    /// The area, if it has changed.
    pub fn into_changed(self) -> Option<Vec<u8>> {
        self.changed.then_some(self.area)
    }

    /// The bytes from `offset` on; zero where there are none.
    pub fn bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        if let Some(found) = self.area.get(offset..offset + N) {
            bytes.copy_from_slice(found);
        }
        bytes
    }

    /// All bytes.
    pub fn area(&self) -> &[u8] {
        &self.area
    }

    /// Replaces bytes; those beyond the area are dropped.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.changed = true;
        if let Some(place) = self.area.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// A 16-bit field.
    pub fn word(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    /// A 32-bit field.
    pub fn dword(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    /// XSTATE_BV: the components that are not in their initial state.
    pub fn in_use(&self) -> u64 {
        u64::from_le_bytes(self.bytes(LEGACY_LEN))
    }

    /// Sets XSTATE_BV.
    pub fn set_in_use(&mut self, components: u64) {
        self.set(LEGACY_LEN, &components.to_le_bytes());
    }

    /// Marks components as being in use; one that was not is made to be in its initial state.
    pub fn touch(&mut self, components: u64) {
        let new = components & !self.in_use();
        if new & X87 != 0 {
            self.set(0, &[0; MXCSR]);
            self.set(ST0, &[0; XMM0 - ST0]);
            self.set(FCW, &FCW_INIT.to_le_bytes());
        }
        if new & SSE != 0 {
            self.set(XMM0, &[0; XMM_END - XMM0]);
        }
        self.set_in_use(self.in_use() | components);
    }

    /// MXCSR.
    pub fn mxcsr(&self) -> u32 {
        self.dword(MXCSR)
    }

    /// The bits that MXCSR may have.
    pub fn mxcsr_mask(&self) -> u32 {
        match self.dword(MXCSR_MASK) {
            0 => MXCSR_MASK_DEFAULT,
            mask => mask,
        }
    }

    /// PKRU; 0 where there is none.
    pub fn pkru(&self) -> u32 {
        match self.pkru {
            Some(place) if self.in_use() >> PKRU & 1 != 0 => self.dword(place.offset),
            _ => 0,
        }
    }

    /// Sets PKRU.
    pub fn set_pkru(&mut self, value: u32) {
        if let Some(place) = self.pkru {
            self.set(place.offset, &value.to_le_bytes());
            self.set_in_use(self.in_use() | 1 << PKRU);
        }
    }

    /// The low 128 bits of a vector register.
    pub fn xmm(&self, number: usize) -> u128 {
        if self.in_use() & SSE == 0 {
            return 0;
        }
        u128::from_le_bytes(self.bytes(XMM0 + 16 * (number & 15)))
    }

    /// Sets them.
    pub fn set_xmm(&mut self, number: usize, value: u128) {
        self.touch(SSE);
        self.set(XMM0 + 16 * (number & 15), &value.to_le_bytes());
    }
}

/// Where component `number`, 2 or above, is; none if this CPU has none.
///
/// # Errors
///
/// The host does not say.
pub fn component(cpu: &mut impl Cpu, number: u32) -> Result<Option<Component>, Stop> {
    let [len, offset, flags, _] = cpu.cpuid(0xd, number)?;
    if len == 0 {
        return Ok(None);
    }
    let size = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    Ok(Some(Component { offset: size(offset), len: size(len), aligned: flags & 2 != 0 }))
}
