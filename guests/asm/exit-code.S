// exit-code: ends the VM with an exit code. What was printed before must still appear.
//
// Mode:   real
// vCPUs:  any; vCPU 0 works, the others spin
// Output: "bye\n"
// Exit:   43 (0x15 to the exit port)

#include "guest.h"

    .code16
    .globl  _start
_start:
    others_spin
    print   bye
    write8  EXIT_PORT, 0x15
    spin

bye: .asciz "bye\n"
