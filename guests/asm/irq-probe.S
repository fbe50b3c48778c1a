// irq-probe: does what a script says that follows the image: accesses to ports and to MMIO, and
// interrupts let in. A test compares what two kinds of interrupt controllers make of one script.
//
// Mode:   protected
// vCPUs:  any; vCPU 0 works, the others halt
// Needs:  interrupt controllers
// Output: what was read, a byte or four each, and the vector of each interrupt that was let in
// Exit:   0 (power-off)
//
// Each step of the script is 12 bytes: what it does, three bytes of nothing, an address, and a
// value to write, or a mask for what is read.

#include "guest.h"

#define END             0
#define OUT             1
#define IN              2
#define STORE           3
#define LOAD            4
#define LET_IN          5

// More than can be in service at once at both 8259s.
#define MOST_NESTED     18

    .code32
    .globl  _start
_start:
    cli
    others_halt
    mov     $stack_end, %esp
    // A gate for every vector.
    mov     $stubs, %eax
    mov     $idt, %edi
    mov     $256, %ecx
gate:
    mov     %ax, (%edi)
    movw    %cs, 2(%edi)
    movl    $0x8e00, 4(%edi)
    add     $8, %eax
    add     $8, %edi
    loop    gate
    lidt    idtr
    mov     $script, %ebx

next:
    mov     (%ebx), %al
    mov     4(%ebx), %edx
    mov     8(%ebx), %ecx
    add     $12, %ebx
    cmp     $OUT, %al
    je      out
    cmp     $IN, %al
    je      in
    cmp     $STORE, %al
    je      store
    cmp     $LOAD, %al
    je      load
    cmp     $LET_IN, %al
    je      let_in
    power_off

out:
    mov     %cl, %al
    out     %al, %dx
    jmp     next
in:
    in      %dx, %al
    and     %cl, %al
    mov     $UART_THR, %edx
    out     %al, %dx
    jmp     next
store:
    mov     %ecx, (%edx)
    jmp     next
load:
    mov     (%edx), %eax
    and     %ecx, %eax
    mov     $UART_THR, %edx
    mov     $4, %ecx
byte:
    out     %al, %dx
    shr     $8, %eax
    loop    byte
    jmp     next

    // An interrupt that waits is taken at an exit at the latest.
let_in:
    mov     $MOST_NESTED, %ecx
    mov     $UART_SCR, %edx
    sti
once:
    in      %dx, %al
    nop
    loop    once
    cli
    jmp     next

    // Without IRET, which not every host's emulator has: the address takes the place of EFLAGS, and
    // EFLAGS that of CS, which stays.
took:
    pop     %eax
    mov     $UART_THR, %edx
    out     %al, %dx
    pop     %edx
    mov     4(%esp), %eax
    mov     %edx, 4(%esp)
    mov     %eax, (%esp)
    mov     $UART_SCR, %edx
    popf
    ret

    .balign 8
stubs:
    .set    vector, 0
    .rept   256
    .balign 8
    .byte   0x6a, vector            // push
    jmp     took
    .set    vector, vector + 1
    .endr

    .balign 8
idt:
    .skip   8 * 256
idtr:
    .word   8 * 256 - 1
    .long   idt
    .balign 16
    .skip   512
stack_end:
    .balign 16
script:
