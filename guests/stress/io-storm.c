// io-storm: port and memory-mapped I/O of every size, from all vCPUs, at random: where nothing is
// they read all ones and write in vain, and what one has written to a UART register it reads
// back, as long as it holds a lock.
//
// Mode:     user
// vCPUs:    any
// Input:    rbp: accesses of each vCPU (0 means 400)
// Output:   none
// Outcomes: none
// Exit:     0; a read with another result fails the iteration

#include "stress.h"

// Ports, and addresses in the hole of the memory map, with nothing behind them. Few, because
// minivmm warns of each once.
#define NO_PORT 0x5a0
#define HOLE UINT64_C(0xc0000000)

#define UART_LCR 0x3fb
#define UART_MSR 0x3fe
#define UART_SCR 0x3ff
// Word length, stop bits and parity: change nothing else, as the break and latch bits would.
#define LCR_FORMAT 0x3f
#define RESET_COMMAND 0x64

static cache_aligned struct spinlock uart;

static void no_port(uint32_t random) {
    uint16_t port = NO_PORT + random % 4 * 4;
    switch (random >> 8 & 3) {
    case 0:
        check_eq(in8(port), 0xff);
        break;
    case 1:
        check_eq(in16(port), 0xffff);
        break;
    case 2:
        check_eq(in32(port), 0xffffffff);
        break;
    default:
        out8(port, (uint8_t)random);
        out16(port, (uint16_t)random);
        out32(port, random);
    }
}

// Loads and stores of one width: written in assembly, so that none is joined, split or left out.
#define MMIO(bits, suffix)                                                                    \
    static void mmio##bits(uint64_t address, bool store, uint64_t random) {                   \
        uint##bits##_t value = (uint##bits##_t)random;                                        \
        if (store) {                                                                          \
            __asm__ volatile("mov" suffix " %0, (%1)" : : "r"(value), "r"(address) : "memory"); \
        } else {                                                                              \
            __asm__ volatile("mov" suffix " (%1), %0" : "=r"(value) : "r"(address) : "memory"); \
            check_eq(value, (uint##bits##_t)-1);                                              \
        }                                                                                     \
    }

MMIO(8, "b")
MMIO(16, "w")
MMIO(32, "l")
MMIO(64, "q")

static void no_memory(uint32_t random) {
    uint64_t address = HOLE + random % 4 * 4096;
    bool store = random >> 4 & 1;
    switch (random >> 8 & 3) {
    case 0:
        mmio8(address, store, random);
        break;
    case 1:
        mmio16(address, store, random);
        break;
    case 2:
        mmio32(address, store, random);
        break;
    default:
        mmio64(address, store, random);
    }
}

static void scratch(uint32_t random) {
    spin_lock(&uart);
    out8(UART_SCR, (uint8_t)random);
    // As the high byte of two registers, or alone.
    uint8_t read = random >> 8 & 1 ? in16(UART_MSR) >> 8 : in8(UART_SCR);
    spin_unlock(&uart);
    check_eq(read, (uint8_t)random);
}

static void line_control(uint32_t random) {
    uint8_t format = random & LCR_FORMAT;
    spin_lock(&uart);
    out8(UART_LCR, format);
    uint8_t read = in8(UART_LCR);
    spin_unlock(&uart);
    check_eq(read, format);
}

void stress_main(struct vcpu *me) {
    static void (*const accesses[])(uint32_t) = {no_port, no_memory, scratch, line_control};
    uint32_t count = iterations(me, 400, 400);

    for (uint32_t i = 0; i < count; i++) {
        // The host's own random numbers are part of the storm.
        uint32_t random = i % 2 ? random_fast(me) : random32();
        // Ready for a command, and nothing to read.
        check_eq(in8(RESET_COMMAND) & 3, 0);
        accesses[random >> 30](random);
    }
}
