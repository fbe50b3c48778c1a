// The work of `counter` and `counter-user`: ebp times (1000 if that is 0), every vCPU adds one
// to a shared counter with a locked instruction, and one to another with plain instructions
// under a spin lock. The last vCPU to finish checks both, prints the total and falls through;
// the others go to `not_last`, which the guest defines.

.macro count_up
    mov     %esi, %ebx              // the number of vCPUs
    iterations 1000
    mov     %ecx, %ebp
.Lcount:
    lock incl atomic
    acquire lock
    mov     plain, %eax             // in two steps, so that a lock that leaks loses counts
    inc     %eax
    mov     %eax, plain
    release lock
    dec     %ecx
    jnz     .Lcount

    arrive  finished, %ebx
    jne     not_last

    mov     %ebp, %edi              // the total that both must have reached
    imul    %ebx, %edi
    cmp     %edi, atomic
    jne     .Lbad
    cmp     %edi, plain
    jne     .Lbad
    print   ok
    mov     %edi, %eax
    print_dec
    print   newline
    jmp     .Lcounted
.Lbad:
    print   bad
    mov     $1, %al
    out     %al, $EXIT_PORT
    spin
.Lcounted:
.endm

// Each on its own cache line, as a program that counts in earnest would have them.
.macro counter_data
    .balign 64
atomic:     .long 0
    .balign 64
plain:      .long 0
lock:       .byte 0
    .balign 64
finished:   .long 0
ok:         .asciz "counter ok: "
bad:        .asciz "counter BAD\n"
newline:    .asciz "\n"
.endm
