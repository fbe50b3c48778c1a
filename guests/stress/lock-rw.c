// lock-rw: a readers-writer lock: one writer alone, or any number of readers. A writer changes a
// pair in two steps; a reader never sees it half changed.
//
// Mode:     user
// vCPUs:    any
// Input:    rbp: acquisitions of all vCPUs (0 means 30000, or 400 in ring 0)
// Output:   none
// Outcomes: min/max=N%: the fewest acquisitions of a vCPU in percent of the most, in tens
// Exit:     0; a torn pair, or a reader or writer next to a writer, fails the iteration

#include "locks.h"

// The number of readers, and this bit while a writer is inside.
#define WRITER 0x80000000u

static cache_aligned _Atomic uint32_t state;

static void read_lock(void) {
    while (atomic_fetch_add_explicit(&state, 1, memory_order_acquire) & WRITER) {
        atomic_fetch_sub_explicit(&state, 1, memory_order_relaxed);
        wait_until(!(atomic_load_explicit(&state, memory_order_relaxed) & WRITER));
    }
}

static void read_unlock(void) {
    atomic_fetch_sub_explicit(&state, 1, memory_order_release);
}

static void write_lock(void) {
    uint32_t expected = 0;
    wait_until((expected = 0, atomic_compare_exchange_strong_explicit(
                                  &state, &expected, WRITER, memory_order_acquire,
                                  memory_order_relaxed)));
}

static void write_unlock(void) {
    // Readers that look at this moment are counted, too.
    atomic_fetch_sub_explicit(&state, WRITER, memory_order_release);
}

static cache_aligned _Atomic uint32_t taken;
static cache_aligned volatile uint64_t first;
static cache_aligned volatile uint64_t second;
static volatile uint32_t writes;
static uint32_t writes_of[MAX_VCPUS];

void stress_main(struct vcpu *me) {
    static struct barrier start, finish;
    uint32_t total = iterations(me, IN_RING3, IN_RING0), own = 0, own_writes = 0;

    barrier_wait(&start, me->count);
    for (; atomic_fetch_add(&taken, 1) < total; own++) {
        if (random_fast(me) % 4) {
            read_lock();
            check_eq(first, second);
            read_unlock();
        } else {
            write_lock();
            check_eq(first, second);
            first = first + 1;
            second = second + 1;
            writes = writes + 1;
            own_writes++;
            write_unlock();
        }
    }
    acquisitions[me->index] = own;
    writes_of[me->index] = own_writes;
    barrier_wait(&finish, me->count);

    if (me->index == 0) {
        uint32_t sum = 0;
        for (uint32_t i = 0; i < me->count; i++)
            sum += writes_of[i];
        check_eq(sum, writes);
        check_eq(sum, first);
        report_fairness(me->count);
    }
}
