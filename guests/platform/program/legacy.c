// legacy.c: the IOAPIC (82093AA datasheet), the two PICs (8259A datasheet) and the PIT (8254
// datasheet).

#include "pc.h"

// ---- The IOAPIC ----------------------------------------------------------------------------

#define IOAPIC_SELECT 0x00
#define IOAPIC_WINDOW 0x10
#define IOAPIC_VERSION 1
#define IOAPIC_REDIRECTION 0x10

#define ROUTE_ACTIVE_LOW 0x2000

// MPS INTI flags (ACPI 6.5, section 5.2.12.5): anything else is the ISA bus's, active high
// and edge.
#define POLARITY 0x3
#define POLARITY_LOW 0x3
#define TRIGGER 0xc
#define TRIGGER_LEVEL 0xc

static uint32_t io_apic_read(uint32_t which) {
    mmio_write32(platform.io_apic + IOAPIC_SELECT, which);
    return mmio_read32(platform.io_apic + IOAPIC_WINDOW);
}

static void io_apic_write(uint32_t which, uint32_t value) {
    mmio_write32(platform.io_apic + IOAPIC_SELECT, which);
    mmio_write32(platform.io_apic + IOAPIC_WINDOW, value);
}

uint32_t io_apic_pins(void) {
    return (io_apic_read(IOAPIC_VERSION) >> 16 & 0xff) + 1;
}

void io_apic_route(uint32_t gsi, uint16_t flags, uint32_t destination, uint32_t command) {
    uint32_t entry = IOAPIC_REDIRECTION + 2 * (gsi - platform.io_apic_gsi_base);
    if ((flags & POLARITY) == POLARITY_LOW)
        command |= ROUTE_ACTIVE_LOW;
    if ((flags & TRIGGER) == TRIGGER_LEVEL)
        command |= LEVEL_TRIGGERED;
    // Masked until both halves are there.
    io_apic_write(entry, LVT_MASKED);
    io_apic_write(entry + 1, destination << 24);
    io_apic_write(entry, command);
}

void io_apic_mask(uint32_t gsi) {
    io_apic_write(IOAPIC_REDIRECTION + 2 * (gsi - platform.io_apic_gsi_base), LVT_MASKED);
}

// ---- The PICs ------------------------------------------------------------------------------

#define PIC_MASTER 0x20
#define PIC_SLAVE 0xa0

enum {
    ICW1_INIT = 0x11,               // edge, cascaded, ICW4 follows
    ICW4_8086 = 0x01,
    CASCADE_LINE = 2,
    OCW2_SPECIFIC_EOI = 0x60
};

void pic_set_up(void) {
    out8(PIC_MASTER, ICW1_INIT);
    out8(PIC_MASTER + 1, VECTOR_PIC);
    out8(PIC_MASTER + 1, 1 << CASCADE_LINE);
    out8(PIC_MASTER + 1, ICW4_8086);
    out8(PIC_SLAVE, ICW1_INIT);
    out8(PIC_SLAVE + 1, VECTOR_PIC_SLAVE);
    out8(PIC_SLAVE + 1, CASCADE_LINE);
    out8(PIC_SLAVE + 1, ICW4_8086);
    pic_mask(0xffff);
}

void pic_mask(uint16_t mask) {
    out8(PIC_MASTER + 1, (uint8_t)mask);
    out8(PIC_SLAVE + 1, (uint8_t)(mask >> 8));
}

void pic_end_of_interrupt(uint32_t line) {
    if (line >= 8)
        out8(PIC_SLAVE, (uint8_t)(OCW2_SPECIFIC_EOI | (line - 8)));
    out8(PIC_MASTER, (uint8_t)(OCW2_SPECIFIC_EOI | (line < 8 ? line : CASCADE_LINE)));
}

// ---- The PIT -------------------------------------------------------------------------------

#define PIT_CHANNEL0 0x40
#define PIT_COMMAND 0x43
#define PIT_RATE 0x34               // channel 0, low byte then high byte, mode 2
#define PIT_ONCE 0x30               // the same in mode 0: an interrupt on terminal count
#define PIT_NEVER 0x3a              // in mode 5: once its gate rises, and channel 0's never does

static void pit_program(uint8_t command, uint16_t count) {
    out8(PIT_COMMAND, command);
    out8(PIT_CHANNEL0, (uint8_t)count);
    out8(PIT_CHANNEL0, (uint8_t)(count >> 8));
}

void pit_start(uint16_t count) {
    pit_program(PIT_RATE, count);
}

void pit_once(uint16_t count) {
    pit_program(PIT_ONCE, count);
}

void pit_stop(void) {
    pit_program(PIT_NEVER, 0);
}
