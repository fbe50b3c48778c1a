// protected-hello: every vCPU prints a line from protected mode, under a spin lock.
//
// Mode:   protected
// vCPUs:  any
// Output: "Hello from protected mode\n" from each vCPU: whole lines
// Exit:   0 (all halt)

#include "guest.h"

    .code32
    .globl  _start
_start:
    acquire lock
    print   hello
    release lock
    halt

lock:   .byte 0
hello:  .asciz "Hello from protected mode\n"
