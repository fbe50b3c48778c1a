// stress.h: what a stress guest in C needs, in one header: entry, random numbers, outcomes,
// assertions, a barrier, a spin lock, printing. A guest includes it and defines stress_main().
//
// The same image runs in ring 3 (`--mode user`) and in ring 0 (`--mode long`). How to build one,
// and what each function is for: docs/stress-guests.md. Entry state and ports:
// docs/guest-abi.md.

#ifndef STRESS_H
#define STRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The most vCPUs that guests with an array by vCPU have room for; more fail the iteration.
#define MAX_VCPUS 64

// What one vCPU writes often gets a cache line of its own.
#define CACHE_LINE 64
#define cache_aligned _Alignas(CACHE_LINE)

// The ports. Those of the harness are handled by the vCPU that uses them: nothing is shared.
enum {
    PORT_COM1 = 0x3f8,
    PORT_RANDOM = 0x5e4,            // IN, 4 bytes: the next random number of this vCPU
    PORT_OUTCOME_LOW = 0x5e8,       // OUT, 4 bytes: reports an outcome
    PORT_OUTCOME_HIGH = 0x5ec,      // OUT, 4 bytes: its high half
    PORT_LABEL = 0x5f0,             // OUT, 1 byte: text for it
    PORT_TIMES = 0x5f4,             // OUT, 4 bytes: how often it was seen
    PORT_ASSERTION = 0x5f8,         // OUT, 1 byte: text; a newline ends it and the iteration
    PORT_CONTROL = 0x5fc,           // OUT, 1 byte: one of the two below
    CONTROL_YIELD = 0,
    CONTROL_DONE = 1,
};

// The vCPU that runs, as stress_main() gets it; on its own stack.
struct vcpu {
    uint32_t index;                 // from 0
    uint32_t count;                 // of all vCPUs
    uint64_t parameter;             // RBP at entry, `--reg rbp=N`; 0 if it is not given
    uint64_t ram_pages;             // of 4 KiB
    uint32_t random;                // the state of random_fast(); 0: not seeded yet
};

// The guest: runs on every vCPU, all at once. To return is to be done.
void stress_main(struct vcpu *me);

// ---- Ports ---------------------------------------------------------------------------------

static inline void out8(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void out16(uint16_t port, uint16_t value) {
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void out32(uint16_t port, uint32_t value) {
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t in8(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint16_t in16(uint16_t port) {
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint32_t in32(uint16_t port) {
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

// Text to a port that takes it byte by byte.
static inline void out_text(uint16_t port, const char *text) {
    while (*text)
        out8(port, (uint8_t)*text++);
}

static inline void out_decimal(uint16_t port, uint64_t value) {
    char digits[20];
    unsigned length = 0;
    do
        digits[length++] = (char)('0' + value % 10);
    while (value /= 10);
    while (length)
        out8(port, (uint8_t)digits[--length]);
}

static inline void out_hex(uint16_t port, uint64_t value) {
    int shift = 60;
    out_text(port, "0x");
    while (shift && !(value >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        out8(port, (uint8_t)"0123456789abcdef"[value >> shift & 15]);
}

// ---- Where we are --------------------------------------------------------------------------

// 0 or 3.
static inline unsigned ring(void) {
    uint16_t cs;
    __asm__("mov %%cs, %0" : "=r"(cs));
    return cs & 3;
}

// How often to do something: the parameter if one is given, else a default by ring. Some hosts
// emulate ring 0, hundreds of times more slowly than ring 3 runs.
static inline uint32_t iterations(const struct vcpu *me, uint32_t in_ring3, uint32_t in_ring0) {
    if (me->parameter)
        return (uint32_t)me->parameter;
    return ring() == 3 ? in_ring3 : in_ring0;
}

// ---- Random numbers ------------------------------------------------------------------------

// A random number from the host: the same again under the same seed. It costs an exit.
static inline uint32_t random32(void) {
    return in32(PORT_RANDOM);
}

// A random number without an exit, for inner loops: Marsaglia's xorshift, seeded by the host.
static inline uint32_t random_fast(struct vcpu *me) {
    uint32_t x = me->random;
    if (!x)
        x = (random32() ^ (me->index + 1) * 0x9e3779b9u) | 1;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return me->random = x;
}

// ---- Outcomes and assertions ---------------------------------------------------------------

// Counts `value` as an outcome of this iteration, `times` times at once.
static inline void report_n(uint64_t value, uint32_t times) {
    if (times != 1)
        out32(PORT_TIMES, times);
    if (value >> 32)
        out32(PORT_OUTCOME_HIGH, (uint32_t)(value >> 32));
    out32(PORT_OUTCOME_LOW, (uint32_t)value);
}

static inline void report(uint64_t value) {
    report_n(value, 1);
}

// Adds to the text that names the next reported outcome.
static inline void label(const char *text) {
    out_text(PORT_LABEL, text);
}

static inline void label_decimal(uint64_t value) {
    out_decimal(PORT_LABEL, value);
}

// Begins the text of a failure; more may follow, until fail_end().
static inline void fail_begin(const char *file, unsigned line) {
    out_text(PORT_ASSERTION, file);
    out_text(PORT_ASSERTION, ":");
    out_decimal(PORT_ASSERTION, line);
    out_text(PORT_ASSERTION, ": ");
}

// Ends the text, and with it the iteration.
_Noreturn static inline void fail_end(void) {
    out8(PORT_ASSERTION, '\n');
    for (;;)
        __builtin_ia32_pause();
}

_Noreturn static inline void fail_at(const char *file, unsigned line, const char *text) {
    fail_begin(file, line);
    out_text(PORT_ASSERTION, text);
    fail_end();
}

_Noreturn static inline void fail_equal_at(const char *file, unsigned line, const char *text,
                                           uint64_t left, uint64_t right) {
    fail_begin(file, line);
    out_text(PORT_ASSERTION, text);
    out_text(PORT_ASSERTION, ", but ");
    out_hex(PORT_ASSERTION, left);
    out_text(PORT_ASSERTION, " != ");
    out_hex(PORT_ASSERTION, right);
    fail_end();
}

// Fails the iteration with a text.
#define fail(text) fail_at(__FILE__, __LINE__, text)

// Fails the iteration unless the condition holds.
#define check(condition)                                                                      \
    do {                                                                                      \
        if (!(condition))                                                                     \
            fail_at(__FILE__, __LINE__, #condition);                                          \
    } while (0)

// Fails the iteration, and says both values, unless they are equal.
#define check_eq(left, right)                                                                 \
    do {                                                                                      \
        uint64_t left_ = (left), right_ = (right);                                            \
        if (left_ != right_)                                                                  \
            fail_equal_at(__FILE__, __LINE__, #left " == " #right, left_, right_);            \
    } while (0)

// Fails the iteration when there are fewer vCPUs than the guest makes sense with.
static inline void need_vcpus(const struct vcpu *me, uint32_t least) {
    if (me->count >= least)
        return;
    fail_begin(__FILE__, __LINE__);
    out_text(PORT_ASSERTION, "this guest needs --vcpus ");
    out_decimal(PORT_ASSERTION, least);
    fail_end();
}

// ---- Waiting -------------------------------------------------------------------------------

// An exit where another vCPU may have its turn: on the host CPU, or under `--lockstep` at all.
static inline void yield(void) {
    out8(PORT_CONTROL, CONTROL_YIELD);
}

// One turn of a loop that waits for another vCPU; `spins` counts the turns so far. Every 1024th
// is an exit: rare enough to cost little, and nobody waits for ever for a vCPU whose turn it is
// not.
static inline void spin_wait(uint32_t *spins) {
    if (++*spins % 1024 == 0)
        yield();
    else
        __builtin_ia32_pause();
}

#define wait_until(condition)                                                                 \
    do {                                                                                      \
        for (uint32_t spins_ = 0; !(condition);)                                              \
            spin_wait(&spins_);                                                               \
    } while (0)

// A sense-reversing barrier: all zero at the start, and ready for the next round when a round
// ends. The cache line is its own, so that arriving disturbs nothing else.
struct barrier {
    cache_aligned _Atomic uint32_t arrived;
    _Atomic bool sense;
};

// Waits until `count` vCPUs have come. What each wrote before is seen by all after.
static inline void barrier_wait(struct barrier *barrier, uint32_t count) {
    // It cannot turn before this vCPU has arrived, too.
    bool sense = !atomic_load_explicit(&barrier->sense, memory_order_relaxed);
    if (atomic_fetch_add(&barrier->arrived, 1) + 1 == count) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&barrier->sense, sense, memory_order_release);
    } else {
        wait_until(atomic_load_explicit(&barrier->sense, memory_order_acquire) == sense);
    }
}

// A test-and-test-and-set lock, all zero when free: it waits on a read, which leaves the cache
// line shared, and tries only when that sees it free.
struct spinlock {
    _Atomic bool held;
};

static inline void spin_lock(struct spinlock *lock) {
    while (atomic_exchange_explicit(&lock->held, true, memory_order_acquire))
        wait_until(!atomic_load_explicit(&lock->held, memory_order_relaxed));
}

static inline void spin_unlock(struct spinlock *lock) {
    atomic_store_explicit(&lock->held, false, memory_order_release);
}

// ---- Printing ------------------------------------------------------------------------------

// To COM1, a byte an exit. For whole lines from several vCPUs hold a lock.
static inline void print(const char *text) {
    out_text(PORT_COM1, text);
}

static inline void print_decimal(uint64_t value) {
    out_decimal(PORT_COM1, value);
}

static inline void print_hex(uint64_t value) {
    out_hex(PORT_COM1, value);
}

// ---- Entry ---------------------------------------------------------------------------------

// Every vCPU starts here, with RDI, RSI and RCX as the first, second and fourth argument of a C
// function already.
__asm__(".pushsection .text.start, \"ax\"\n"
        ".globl _start\n"
        "_start:\n"
        "    mov %rbp, %rdx\n"
        "    xor %ebp, %ebp\n"
        "    call stress_start\n"
        ".popsection");

// The first address behind the guest, from the linker script.
extern char stress_end[];

_Noreturn __attribute__((used)) static void stress_start(uint32_t index, uint32_t count,
                                                         uint64_t parameter,
                                                         uint64_t ram_pages) {
    struct vcpu me = {index, count, parameter, ram_pages, 0};
    if (count > MAX_VCPUS)
        fail("this guest has room for 64 vCPUs");
    // A small RAM has its stacks right behind the image, where the zeroed data are.
    if ((char *)&me < stress_end + 1024)
        fail("this guest needs more memory");
    stress_main(&me);
    out8(PORT_CONTROL, CONTROL_DONE);
    // Without a harness behind the port: ring 3 has no HLT.
    for (;;) {
        if (ring() == 0)
            __asm__ volatile("hlt");
        __builtin_ia32_pause();
    }
}

// gcc makes calls of these out of loops and assignments, also in a freestanding program.
void *memcpy(void *to, const void *from, size_t length) {
    void *result = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
    return result;
}

void *memset(void *to, int value, size_t length) {
    void *result = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(value) : "memory");
    return result;
}

#endif
