// reset-cf9: resets the machine through the chipset's reset register, which ends the VM.
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
    write8  RESET_CF9_PORT, 0x06
    spin

bye: .asciz "bye\n"
