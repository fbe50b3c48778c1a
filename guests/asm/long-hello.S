// long-hello: every vCPU prints a line from long mode, under a spin lock.
//
// Mode:   long
// vCPUs:  any
// Output: "Hello from long mode\n" from each vCPU: whole lines
// Exit:   0 (all halt)

#include "guest.h"

    .code64
    .globl  _start
_start:
    acquire lock
    print   hello
    release lock
    halt

lock:   .byte 0
hello:  .asciz "Hello from long mode\n"
