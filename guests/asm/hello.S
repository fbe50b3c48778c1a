// hello: the guest of the first KVM tutorials. Prints rax + rbx as a digit, then "Hello".
//
// Mode:   real
// vCPUs:  any; each prints, without a lock
// Output: "4\nHello\n" from each vCPU, mixed byte by byte when there are several
// Exit:   0 (all halt)
//
// It is kept byte for byte as it is known, so it shares nothing with the other guests.

    .code16
    .globl  _start
_start:
    mov     $0x3f8, %dx
    add     %bl, %al
    add     $'0', %al
    out     %al, %dx
    mov     $'\n', %al
    out     %al, %dx
    mov     $'H', %al
    out     %al, %dx
    mov     $'e', %al
    out     %al, %dx
    mov     $'l', %al
    out     %al, %dx
    mov     $'l', %al
    out     %al, %dx
    mov     $'o', %al
    out     %al, %dx
    mov     $'\n', %al
    out     %al, %dx
    hlt
