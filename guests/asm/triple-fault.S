// triple-fault: an invalid opcode without an interrupt table to handle it. Neither the fault
// nor the double fault that follows has a handler, so the processor shuts down.
//
// Mode:   protected
// vCPUs:  any; vCPU 0 works, the others spin
// Output: none
// Exit:   that of a triple fault, which is a failure

#include "guest.h"

    .code32
    .globl  _start
_start:
    others_spin
    lidt    no_idt
    ud2
    spin

no_idt: .word 0                     // limit
        .long 0                     // base
