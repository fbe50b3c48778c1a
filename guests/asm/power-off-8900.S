// power-off-8900: powers the VM off with the text "Shutdown" to port 0x8900, as Bochs has it.
// A text that is broken off does nothing.
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
    mov     $SHUTDOWN_PORT, %dx
    mov     $broken, %si
    mov     $(bye - broken), %cx
    rep outsb
    print   bye
    mov     $SHUTDOWN_PORT, %dx
    mov     $shutdown, %si
    mov     $(end - shutdown), %cx
    rep outsb
    spin

broken:   .ascii "ShutShutdow?"
bye:      .asciz "bye\n"
shutdown: .ascii "Shutdown"
end:
