// spin: every vCPU spins for ever, without an exit: for time limits, and for stopping a VM.
//
// Mode:   real
// vCPUs:  any
// Output: none
// Exit:   never by itself

#include "guest.h"

    .code16
    .globl  _start
_start:
    spin
