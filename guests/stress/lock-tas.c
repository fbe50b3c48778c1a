// lock-tas: mutual exclusion by test-and-set: an atomic exchange until it finds the lock free.
// Nothing says whose turn it is, so the vCPU that has the cache line tends to keep the lock.
//
// Mode:     user
// vCPUs:    any
// Input:    rbp: acquisitions of all vCPUs (0 means 30000, or 400 in ring 0)
// Output:   none
// Outcomes: min/max=N%: the fewest acquisitions of a vCPU in percent of the most, in tens
// Exit:     0; two vCPUs inside at once fail the iteration

#include "locks.h"

static cache_aligned _Atomic bool held;

static void acquire(struct vcpu *me) {
    (void)me;
    wait_until(!atomic_exchange_explicit(&held, true, memory_order_acquire));
}

static void release(struct vcpu *me) {
    (void)me;
    atomic_store_explicit(&held, false, memory_order_release);
}

void stress_main(struct vcpu *me) {
    compete(me, iterations(me, IN_RING3, IN_RING0), acquire, release);
}
