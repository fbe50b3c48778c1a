// counter-racy: every vCPU increments a counter without a lock, a few times; how much of it
// arrives is the outcome. The smallest stress guest: begin your own with it.
//
// Mode:     user
// vCPUs:    any; with one nothing is lost
// Input:    rbp: increments of each vCPU (0 means 10)
// Output:   none
// Outcomes: the counter at the end: 10 times the vCPUs if no increment was lost, at least 2
// Exit:     0

#include "stress.h"

static struct barrier start, end;
static volatile uint32_t counter;

void stress_main(struct vcpu *me) {
    uint32_t increments = iterations(me, 10, 10);

    barrier_wait(&start, me->count);
    for (uint32_t i = 0; i < increments; i++)
        counter++;
    barrier_wait(&end, me->count);

    if (me->index == 0) {
        check(counter <= increments * me->count);
        report(counter);
    }
}
