// spin-user: like spin, in ring 3, which runs natively even where ring 0 is emulated.
//
// Mode:   user
// vCPUs:  any
// Output: none
// Exit:   never by itself

#include "guest.h"

    .code64
    .globl  _start
_start:
    spin
