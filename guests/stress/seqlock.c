// seqlock: a sequence lock: readers take no lock, but read again when a writer came between. A
// reader never gets a torn pair, and never an older one than before.
//
// Mode:     user
// vCPUs:    any
// Input:    rbp: reads and writes of all vCPUs (0 means 30000, or 400 in ring 0)
// Output:   none
// Outcomes: min/max=N%: the fewest reads and writes of a vCPU in percent of the most, in tens
// Exit:     0; a torn or an older pair fails the iteration

#include "locks.h"

// Odd while a write is under way.
static cache_aligned _Atomic uint32_t sequence;
// Atomic, because readers look while a writer writes; the second is the complement of the first.
static _Atomic uint64_t value;
static _Atomic uint64_t complement = ~UINT64_C(0);

static cache_aligned struct spinlock writers;
static cache_aligned _Atomic uint32_t taken;

static void write_pair(void) {
    spin_lock(&writers);
    uint32_t before = atomic_load_explicit(&sequence, memory_order_relaxed);
    uint64_t next = atomic_load_explicit(&value, memory_order_relaxed) + 1;
    atomic_store_explicit(&sequence, before + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&value, next, memory_order_relaxed);
    atomic_store_explicit(&complement, ~next, memory_order_relaxed);
    atomic_store_explicit(&sequence, before + 2, memory_order_release);
    spin_unlock(&writers);
}

static bool read_pair(uint64_t pair[2]) {
    uint32_t before = atomic_load_explicit(&sequence, memory_order_acquire);
    pair[0] = atomic_load_explicit(&value, memory_order_relaxed);
    pair[1] = atomic_load_explicit(&complement, memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    uint32_t after = atomic_load_explicit(&sequence, memory_order_relaxed);
    return before == after && before % 2 == 0;
}

void stress_main(struct vcpu *me) {
    static struct barrier start, finish;
    uint32_t total = iterations(me, IN_RING3, IN_RING0), own = 0;
    uint64_t last = 0;

    barrier_wait(&start, me->count);
    for (; atomic_fetch_add(&taken, 1) < total; own++) {
        if (random_fast(me) % 4 == 0) {
            write_pair();
            continue;
        }
        uint64_t pair[2];
        wait_until(read_pair(pair));
        check_eq(pair[0], ~pair[1]);
        check(pair[0] >= last);
        last = pair[0];
    }
    acquisitions[me->index] = own;
    barrier_wait(&finish, me->count);

    if (me->index == 0) {
        check_eq(sequence, 2 * value);
        report_fairness(me->count);
    }
}
