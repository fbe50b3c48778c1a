// locks.h: what the guests that test a lock share: vCPUs that compete for it, proof that only one
// is inside, and how evenly it was shared.

#ifndef LOCKS_H
#define LOCKS_H

#include "stress.h"

// Acquisitions in all, by ring, when no parameter says how many.
#define IN_RING3 30000
#define IN_RING0 400

// All start together this often: a vCPU that had no host CPU at one start may have one at the next.
#define EPISODES 16

// How many each vCPU got; written at its end.
static uint32_t acquisitions[MAX_VCPUS];

// Reports how evenly `count` vCPUs shared the lock while all competed: the fewest acquisitions of
// one in percent of the most of one, rounded down to tens.
static inline void report_fairness(uint32_t count) {
    uint32_t least = acquisitions[0], most = acquisitions[0];
    for (uint32_t i = 1; i < count; i++) {
        if (acquisitions[i] < least)
            least = acquisitions[i];
        if (acquisitions[i] > most)
            most = acquisitions[i];
    }
    uint32_t percent = most ? least * 10 / most * 10 : 0;
    label("min/max=");
    label_decimal(percent);
    label("%");
    report(percent);
}

// Lets all vCPUs compete for a lock until together they had it `total` times, and fails unless
// they had it one at a time.
static inline void compete(struct vcpu *me, uint32_t total, void (*acquire)(struct vcpu *),
                           void (*release)(struct vcpu *)) {
    static struct barrier start, finish;
    // Inside: index + 1 of the vCPU; and a plain count, which two inside at once lose from.
    static cache_aligned volatile uint32_t owner, taken;
    uint32_t own = 0;

    for (uint64_t episode = 1; episode <= EPISODES; episode++) {
        uint32_t goal = (uint32_t)(total * episode / EPISODES);
        barrier_wait(&start, me->count);
        for (bool more = true; more;) {
            acquire(me);
            check_eq(owner, 0);
            owner = me->index + 1;
            uint32_t before = taken;
            more = before < goal;
            if (more) {
                taken = before + 1;
                own++;
            }
            check_eq(owner, me->index + 1);
            owner = 0;
            release(me);
        }
    }
    acquisitions[me->index] = own;
    barrier_wait(&finish, me->count);

    if (me->index == 0) {
        uint32_t sum = 0;
        for (uint32_t i = 0; i < me->count; i++)
            sum += acquisitions[i];
        check_eq(sum, total);
        report_fairness(me->count);
    }
}

#endif
