//! The entry state of a vCPU in the form that KVM_SET_REGS and KVM_SET_SREGS take.
//!
//! Conversion only: what the state is, is decided in `boot/`; the ioctls are in `vcpu.rs`.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

use crate::boot::state::{EntryState, Registers, Segment, TableRegister};

/// The general-purpose registers, for KVM_SET_REGS (KVM API 4.12).
pub fn to_kvm_regs(regs: &Registers) -> kvm_regs {
    kvm_regs {
        rax: regs.rax,
        rbx: regs.rbx,
        rcx: regs.rcx,
        rdx: regs.rdx,
        rsi: regs.rsi,
        rdi: regs.rdi,
        rsp: regs.rsp,
        rbp: regs.rbp,
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        rip: regs.rip,
        rflags: regs.rflags,
    }
}

/// Puts the segments, tables and control registers into `sregs`, for KVM_SET_SREGS (KVM API
/// 4.14). The rest, such as the APIC base, stays as KVM_GET_SREGS gave it.
pub fn apply_sregs(state: &EntryState, sregs: &mut kvm_sregs) {
    sregs.cs = to_kvm_segment(state.cs);
    sregs.ds = to_kvm_segment(state.ds);
    sregs.es = to_kvm_segment(state.es);
    sregs.fs = to_kvm_segment(state.fs);
    sregs.gs = to_kvm_segment(state.gs);
    sregs.ss = to_kvm_segment(state.ss);
    sregs.tr = to_kvm_segment(state.tr);
    sregs.ldt = to_kvm_segment(state.ldtr);
    sregs.gdt = to_kvm_dtable(state.gdtr);
    sregs.idt = to_kvm_dtable(state.idtr);
    sregs.cr0 = state.cr0;
    sregs.cr3 = state.cr3;
    sregs.cr4 = state.cr4;
    sregs.efer = state.efer;
}

/// A segment register, for KVM_SET_SREGS.
pub fn to_kvm_segment(segment: Segment) -> kvm_segment {
    let [access, flags] = segment.attributes.to_le_bytes();
    let present = access >> 7;
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: access & 0xf,
        s: access >> 4 & 1,
        dpl: access >> 5 & 3,
        present,
        avl: flags >> 4 & 1,
        l: flags >> 5 & 1,
        db: flags >> 6 & 1,
        g: flags >> 7,
        unusable: 1 - present,
        padding: 0,
    }
}

/// A segment register, as KVM_GET_SREGS gives it: one that is unusable is not present.
pub fn from_kvm_segment(segment: kvm_segment) -> Segment {
    let present = segment.present & !segment.unusable & 1;
    let access = segment.type_ & 0xf | (segment.s & 1) << 4 | (segment.dpl & 3) << 5 | present << 7;
    let flags =
        (segment.avl & 1) << 4 | (segment.l & 1) << 5 | (segment.db & 1) << 6 | segment.g << 7;
    Segment {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        attributes: u16::from_le_bytes([access, flags]),
    }
}

fn to_kvm_dtable(table: TableRegister) -> kvm_dtable {
    kvm_dtable { base: table.base, limit: table.limit, padding: [0; 3] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Register;

    #[test]
    fn every_attribute_goes_to_its_field() {
        let code64 =
            Segment { selector: 0x23, base: 0x1234, limit: 0xffff_ffff, attributes: 0xa0fb };
        let expected = kvm_segment {
            base: 0x1234,
            limit: 0xffff_ffff,
            selector: 0x23,
            type_: 0xb,
            present: 1,
            dpl: 3,
            db: 0,
            s: 1,
            l: 1,
            g: 1,
            avl: 0,
            unusable: 0,
            padding: 0,
        };
        assert_eq!(to_kvm_segment(code64), expected);
        assert_eq!(from_kvm_segment(expected), code64);
        let data32 = to_kvm_segment(Segment { attributes: 0x5093, ..code64 });
        assert_eq!((data32.l, data32.db, data32.g, data32.avl, data32.dpl), (0, 1, 0, 1, 0));
        let none = to_kvm_segment(Segment::default());
        assert_eq!((none.present, none.unusable), (0, 1));
        assert_eq!(from_kvm_segment(none), Segment::default());
    }

    #[test]
    fn every_register_goes_to_its_own_place() {
        use Register::*;
        let all = [
            Rax, Rbx, Rcx, Rdx, Rsi, Rdi, Rsp, Rbp, R8, R9, R10, R11, R12, R13, R14, R15, Rip,
            Rflags,
        ];
        let mut regs = Registers::default();
        for (register, value) in all.into_iter().zip(1..) {
            regs.set(register, value);
        }
        let expected = kvm_regs {
            rax: 1,
            rbx: 2,
            rcx: 3,
            rdx: 4,
            rsi: 5,
            rdi: 6,
            rsp: 7,
            rbp: 8,
            r8: 9,
            r9: 10,
            r10: 11,
            r11: 12,
            r12: 13,
            r13: 14,
            r14: 15,
            r15: 16,
            rip: 17,
            rflags: 18,
        };
        assert_eq!(to_kvm_regs(&regs), expected);
    }

    #[test]
    fn what_is_no_entry_state_stays() {
        let segment = |selector| Segment { selector, ..Segment::default() };
        let state = EntryState {
            cs: segment(1),
            ds: segment(2),
            es: segment(3),
            fs: segment(4),
            gs: segment(5),
            ss: segment(6),
            tr: segment(7),
            ldtr: segment(8),
            gdtr: TableRegister { base: 9, limit: 10 },
            idtr: TableRegister { base: 11, limit: 12 },
            cr0: 13,
            cr3: 14,
            cr4: 15,
            efer: 16,
            regs: Registers::default(),
        };
        let mut sregs = kvm_sregs { apic_base: 0xfee0_0900, cr8: 3, ..kvm_sregs::default() };
        apply_sregs(&state, &mut sregs);
        assert_eq!((sregs.apic_base, sregs.cr8), (0xfee0_0900, 3));
        let segments =
            [sregs.cs, sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss, sregs.tr, sregs.ldt];
        assert_eq!(segments.map(|segment| segment.selector), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!((sregs.gdt.base, sregs.gdt.limit), (9, 10));
        assert_eq!((sregs.idt.base, sregs.idt.limit), (11, 12));
        assert_eq!((sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer), (13, 14, 15, 16));
    }
}
