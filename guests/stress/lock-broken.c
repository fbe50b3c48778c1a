// lock-broken: a lock that does not lock: it tests and sets in two steps, so two vCPUs may both
// find it free. It is here to be caught.
//
// Mode:     user
// vCPUs:    2 or more; with one nothing can go wrong
// Input:    rbp: acquisitions of all vCPUs (0 means 1000000, or 2000 in ring 0)
// Output:   none
// Outcomes: as lock-tas, if it is not caught
// Exit:     the iteration fails: two vCPUs were inside at once

#include "locks.h"

static cache_aligned _Atomic bool held;

static void acquire(struct vcpu *me) {
    (void)me;
    wait_until(!atomic_load_explicit(&held, memory_order_acquire));
    atomic_store_explicit(&held, true, memory_order_relaxed);
}

static void release(struct vcpu *me) {
    (void)me;
    atomic_store_explicit(&held, false, memory_order_release);
}

void stress_main(struct vcpu *me) {
    // Many, so that it is caught even where the vCPUs rarely run at the same time.
    compete(me, iterations(me, 1000000, 2000), acquire, release);
}
