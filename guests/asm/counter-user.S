// counter-user: like counter, in ring 3, which runs natively even where ring 0 is emulated.
//
// Mode:   user
// vCPUs:  any
// Input:  ebp: counts of each vCPU (0 means 1000)
// Output: "counter ok: <counts of all vCPUs>\n", or "counter BAD\n"
// Exit:   0 (power-off), or 3 when counts were lost

#include "guest.h"
#include "counter.h"

    .code64
    .globl  _start
_start:
    count_up
    power_off
not_last:
    spin

    counter_data
