// counter: all vCPUs count in shared memory, with locked instructions and under a spin lock;
// the last one to finish checks that no count was lost.
//
// Mode:   real
// vCPUs:  any
// Input:  ebp: counts of each vCPU (0 means 1000)
// Output: "counter ok: <counts of all vCPUs>\n", or "counter BAD\n"
// Exit:   0 (all halt), or 3 when counts were lost

#include "guest.h"
#include "counter.h"

    .code16
    .globl  _start
_start:
    count_up
not_last:
    halt

    counter_data
