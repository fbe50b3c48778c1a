// lock-mcs: mutual exclusion by the queue lock of Mellor-Crummey and Scott: the vCPUs that wait
// form a list, and each spins on a cache line of its own until the one before it hands over.
//
// Mode:     user
// vCPUs:    any
// Input:    rbp: acquisitions of all vCPUs (0 means 30000, or 400 in ring 0)
// Output:   none
// Outcomes: min/max=N%: the fewest acquisitions of a vCPU in percent of the most, in tens
// Exit:     0; two vCPUs inside at once fail the iteration

#include "locks.h"

struct node {
    cache_aligned struct node *_Atomic next;
    _Atomic bool waiting;
};

static struct node nodes[MAX_VCPUS];
static cache_aligned struct node *_Atomic tail;

static void acquire(struct vcpu *me) {
    struct node *node = &nodes[me->index];
    atomic_store_explicit(&node->next, NULL, memory_order_relaxed);
    atomic_store_explicit(&node->waiting, true, memory_order_relaxed);
    struct node *before = atomic_exchange(&tail, node);
    if (before) {
        atomic_store_explicit(&before->next, node, memory_order_release);
        wait_until(!atomic_load_explicit(&node->waiting, memory_order_acquire));
    }
}

static void release(struct vcpu *me) {
    struct node *node = &nodes[me->index];
    struct node *last = node;
    struct node *next = atomic_load_explicit(&node->next, memory_order_acquire);
    if (!next && atomic_compare_exchange_strong(&tail, &last, NULL))
        return;
    // Someone is behind us, perhaps between its two steps of joining.
    wait_until(next = atomic_load_explicit(&node->next, memory_order_acquire));
    atomic_store_explicit(&next->waiting, false, memory_order_release);
}

void stress_main(struct vcpu *me) {
    compete(me, iterations(me, IN_RING3, IN_RING0), acquire, release);
}
