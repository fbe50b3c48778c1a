// barrier: the sense-reversing barrier, round after round: behind it each vCPU sees what all wrote
// before it, and nobody is a round ahead.
//
// Mode:     user
// vCPUs:    any
// Input:    rbp: rounds (0 means 300, or 100 in ring 0)
// Output:   none
// Outcomes: none
// Exit:     0; a vCPU that is in another round fails the iteration

#include "stress.h"

struct slot {
    cache_aligned uint32_t round;
};

// By turns, so that who is first in the next round writes elsewhere.
static struct slot slots[2][MAX_VCPUS];

void stress_main(struct vcpu *me) {
    static struct barrier barrier;
    uint32_t rounds = iterations(me, 300, 100);

    for (uint32_t round = 1; round <= rounds; round++) {
        slots[round % 2][me->index].round = round;
        barrier_wait(&barrier, me->count);
        for (uint32_t i = 0; i < me->count; i++)
            check_eq(slots[round % 2][i].round, round);
    }
}
