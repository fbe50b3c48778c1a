// lock-ticket: mutual exclusion by tickets: each vCPU draws a number and waits until it is called.
// First come, first served: with a host CPU for each vCPU they share it evenly.
//
// Mode:     user
// vCPUs:    any
// Input:    rbp: acquisitions of all vCPUs (0 means 30000, or 400 in ring 0)
// Output:   none
// Outcomes: min/max=N%: the fewest acquisitions of a vCPU in percent of the most, in tens
// Exit:     0; two vCPUs inside at once fail the iteration

#include "locks.h"

static cache_aligned _Atomic uint32_t next_ticket;
static cache_aligned _Atomic uint32_t now_serving;

static void acquire(struct vcpu *me) {
    (void)me;
    uint32_t ticket = atomic_fetch_add_explicit(&next_ticket, 1, memory_order_relaxed);
    wait_until(atomic_load_explicit(&now_serving, memory_order_acquire) == ticket);
}

static void release(struct vcpu *me) {
    (void)me;
    // Only the holder writes it.
    uint32_t ticket = atomic_load_explicit(&now_serving, memory_order_relaxed);
    atomic_store_explicit(&now_serving, ticket + 1, memory_order_release);
}

void stress_main(struct vcpu *me) {
    compete(me, iterations(me, IN_RING3, IN_RING0), acquire, release);
}
