// reset-interrupts: looks for what an iteration has left in the interrupt controllers for the next:
// every vCPU adds up the registers of its local APIC, the first one those of the IOAPIC, the PICs
// and the PIT, too, and then all of them change what they can, and leave interrupts that wait.
//
// Mode:     long
// vCPUs:    any
// Input:    none; without --irqchip kernel or split it does nothing
// Output:   none
// Outcomes: a sum for each vCPU, the vCPU in the high half: the same in each iteration
// Exit:     0

#include "stress.h"

#define LOCAL_APIC 0xfee00000
#define IOAPIC 0xfec00000

enum {
    TASK_PRIORITY = 0x80,
    SPURIOUS = 0xf0,
    ICR_LOW = 0x300,
    LVT_TIMER = 0x320,
    LVT_LINT0 = 0x350,
    TIMER_COUNT = 0x380,
    TIMER_DIVIDE = 0x3e0,
    PERIODIC = 1 << 17,
    ALL_BUT_SELF = 3 << 18,
    PIC1 = 0x20,
    PIC2 = 0xa0,
    EDGE_LEVEL = 0x4d0,
    PIT = 0x40,
    PIT_COMMAND = 0x43,
};

static volatile uint32_t *local(uint32_t offset) {
    return (volatile uint32_t *)(uintptr_t)(LOCAL_APIC + offset);
}

static uint32_t ioapic(uint32_t index) {
    *(volatile uint32_t *)(uintptr_t)IOAPIC = index;
    return *(volatile uint32_t *)(uintptr_t)(IOAPIC + 0x10);
}

static void set_ioapic(uint32_t index, uint32_t value) {
    *(volatile uint32_t *)(uintptr_t)IOAPIC = index;
    *(volatile uint32_t *)(uintptr_t)(IOAPIC + 0x10) = value;
}

// FNV-1a, of words.
static void add(uint32_t *sum, uint32_t value) {
    *sum = (*sum ^ value) * 16777619u;
}

static void add_local(uint32_t *sum) {
    static const uint16_t registers[] = {0x80, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x320, 0x330,
                                         0x340, 0x350, 0x360, 0x370, 0x380, 0x390, 0x3e0};
    for (unsigned i = 0; i < sizeof registers / sizeof registers[0]; i++)
        add(sum, *local(registers[i]));
    // In service, trigger mode and requested, eight registers each.
    for (uint32_t offset = 0x100; offset < 0x280; offset += 0x10)
        add(sum, *local(offset));
}

static void add_shared(uint32_t *sum) {
    for (uint32_t pin = 0; pin < 24; pin++) {
        add(sum, ioapic(0x10 + 2 * pin));
        add(sum, ioapic(0x11 + 2 * pin));
    }
    static const uint16_t pics[] = {PIC1, PIC2};
    for (unsigned i = 0; i < 2; i++) {
        add(sum, in8(pics[i] + 1));
        out8(pics[i], 0x0a);
        // Input 0 is the PIT's, which may come at any time.
        add(sum, in8(pics[i]) & 0xfe);
        out8(pics[i], 0x0b);
        add(sum, in8(pics[i]));
        add(sum, in8(EDGE_LEVEL + i));
    }
    for (unsigned channel = 0; channel < 3; channel++) {
        // Latches the status: mode and access, without the output and the null count.
        out8(PIT_COMMAND, 0xe0 | 2 << channel);
        add(sum, in8(PIT + channel) & 0x3f);
    }
}

static void change_local(uint32_t index) {
    *local(TASK_PRIORITY) = 0x10;
    *local(SPURIOUS) = 0x1e0 | index % 16;
    *local(LVT_LINT0) = 0x10000;
    *local(TIMER_DIVIDE) = 0xb;
    *local(LVT_TIMER) = PERIODIC | 0x40;
    *local(TIMER_COUNT) = 1000 + index;
    *local(ICR_LOW) = ALL_BUT_SELF | (0x50 + index % 64);
}

static void change_shared(void) {
    for (uint32_t pin = 0; pin < 24; pin++)
        set_ioapic(0x10 + 2 * pin, 0x100a0 + pin);
    out8(PIC1, 0x11);
    out8(PIC1 + 1, 0x60);
    out8(PIC1 + 1, 4);
    out8(PIC1 + 1, 1);
    out8(PIC1 + 1, 0x5a);
    out8(PIC2 + 1, 0xa5);
    out8(EDGE_LEVEL, 0x20);
    for (unsigned channel = 0; channel < 3; channel++) {
        out8(PIT_COMMAND, channel << 6 | 0x36);
        out8(PIT + channel, 0x34);
        out8(PIT + channel, 0x12);
    }
}

void stress_main(struct vcpu *me) {
    static struct barrier read, changed;
    uint32_t sum = 2166136261u;

    // Without controllers all is ones.
    if (ring() == 3 || *local(SPURIOUS) == UINT32_MAX)
        return;
    add_local(&sum);
    if (me->index == 0)
        add_shared(&sum);
    report((uint64_t)me->index << 32 | sum);
    barrier_wait(&read, me->count);
    change_local(me->index);
    if (me->index == 0)
        change_shared();
    barrier_wait(&changed, me->count);
    // As late as can be: to others that may have ended already.
    *local(ICR_LOW) = ALL_BUT_SELF | (0x90 + me->index % 64);
}
