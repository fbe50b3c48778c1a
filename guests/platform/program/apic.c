// apic.c: the local APIC, in xAPIC mode through memory and in x2APIC mode through MSRs (SDM volume
// 3, chapter 12).

#include "pc.h"

#define MSR_APIC_BASE 0x1b
#define BASE_X2APIC 0x400
#define BASE_ENABLED 0x800
#define BASE_ADDRESS 0xffffff000u

// The MSR of the register at an offset is this and a sixteenth of that (section 12.12.1.2).
#define MSR_X2APIC 0x800
#define MSR_X2APIC_ICR 0x830

#define SVR_ENABLED 0x100
#define ICR_PENDING 0x1000

// CPUID leaf 1, ECX.
#define CPUID_X2APIC (1u << 21)
#define CPUID_DEADLINE (1u << 24)

static uint64_t apic_base;

bool has_x2apic(void) {
    return cpuid(1, 0).ecx & CPUID_X2APIC;
}

bool has_deadline_timer(void) {
    return cpuid(1, 0).ecx & CPUID_DEADLINE;
}

uint32_t own_apic_id(void) {
    if (cpuid(0, 0).eax >= 0xb && cpuid(0xb, 0).ebx)
        return cpuid(0xb, 0).edx;
    return cpuid(1, 0).ebx >> 24;
}

uint32_t apic_read(enum apic_register which) {
    if (this_cpu()->x2apic)
        return (uint32_t)rdmsr(MSR_X2APIC + which / 16);
    return mmio_read32(apic_base + which);
}

void apic_write(enum apic_register which, uint32_t value) {
    if (this_cpu()->x2apic)
        wrmsr(MSR_X2APIC + which / 16, value);
    else
        mmio_write32(apic_base + which, value);
}

void enable_apic(struct cpu *cpu, bool x2apic) {
    uint64_t base = rdmsr(MSR_APIC_BASE);
    check(base & BASE_ENABLED);
    check_equal(base & BASE_ADDRESS, platform.local_apic);
    apic_base = platform.local_apic;
    if (x2apic && !(base & BASE_X2APIC))
        wrmsr(MSR_APIC_BASE, base | BASE_X2APIC);
    // INIT leaves the mode as it is.
    cpu->x2apic = rdmsr(MSR_APIC_BASE) & BASE_X2APIC;
    check_equal(cpu->x2apic ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24,
                cpu->x2apic ? cpu->apic_id : cpu->apic_id & 0xff);
    apic_write(APIC_SVR, SVR_ENABLED | VECTOR_SPURIOUS);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
    apic_write(APIC_LVT_LINT1, DELIVER_NMI);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

void send_ipi(uint32_t destination, uint32_t command) {
    if (this_cpu()->x2apic) {
        wrmsr(MSR_X2APIC_ICR, (uint64_t)destination << 32 | command | ICR_ASSERT);
        return;
    }
    mmio_write32(apic_base + APIC_ICR_HIGH, destination << 24);
    mmio_write32(apic_base + APIC_ICR, command | ICR_ASSERT);
    while (mmio_read32(apic_base + APIC_ICR) & ICR_PENDING)
        ;
}

void end_of_interrupt(void) {
    apic_write(APIC_EOI, 0);
}
