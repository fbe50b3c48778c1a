// power-off: powers the VM off through the port of QEMU's ACPI PM1a control register. What
// was printed before must still appear.
//
// Mode:   real
// vCPUs:  any; vCPU 0 works, the others spin
// Output: "bye\n"
// Exit:   0 (power-off)

#include "guest.h"

    .code16
    .globl  _start
_start:
    others_spin
    print   bye
    power_off

bye: .asciz "bye\n"
