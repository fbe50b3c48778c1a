// reset-8042: resets the machine through the keyboard controller's reset line, which ends the VM.
//
// Mode:   real
// vCPUs:  any; vCPU 0 works, the others spin
// Output: "bye\n"
// Exit:   16 (reset)

#include "guest.h"

    .code16
    .globl  _start
_start:
    others_spin
    print   bye
    write8  RESET_8042_PORT, 0xfe
    spin

bye: .asciz "bye\n"
