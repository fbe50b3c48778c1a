// irq-ioapic: interrupts by the IOAPIC: the UART's pin as a level, as an edge, as a level that was
// masked, by a logical destination and as an NMI, and the timer's, each waited for with HLT.
//
// Mode:   long
// vCPUs:  any; vCPU 0 works, the others halt
// Needs:  interrupt controllers
// Output: "LLLLLEEEEEMGGGN..........\n"
// Exit:   0 (power-off), or 2 * step + 1 for the step below that failed

#include "guest.h"

#define PIC_MASTER      0x20
#define PIC_SLAVE       0xa0
#define PIT_0           0x40
#define PIT_CONTROL     0x43
#define IOAPIC          0xfec00000
#define LAPIC           0xfee00000
#define LAPIC_EOI       0xb0
#define LAPIC_LDR       0xd0
#define UART_PIN        4
#define TIMER_PIN       2
#define UART_VECTOR     0x41
#define TIMER_VECTOR    0x42
#define NMI_VECTOR      2
#define RTE_LEVEL       (1 << 15)
#define RTE_REMOTE_IRR  (1 << 14)
#define RTE_MASKED      (1 << 16)
#define RTE_LOGICAL     (1 << 11)
#define RTE_LOWEST      (1 << 8)
#define RTE_NMI         (4 << 8)

    // Writes both halves of a redirection table entry, the upper one first.
    .macro  route pin, destination, lower
    movl    $0x11 + 2 * \pin, (%rbx)
    movl    $(\destination) << 24, 0x10(%rbx)
    movl    $0x10 + 2 * \pin, (%rbx)
    movl    $\lower, 0x10(%rbx)
    .endm

    // Makes a gate of the interrupt table.
    .macro  handle vector, handler
    mov     $\handler, %eax
    mov     %ax, idt + 16 * \vector
    movw    %cs, idt + 16 * \vector + 2
    movw    $0x8e00, idt + 16 * \vector + 4
    .endm

    // Has every interrupt that waits be taken: one that waits is at an exit at the latest.
    .macro  let_in
    sti
    nop
    read8   UART_LSR
    read8   UART_LSR
    cli
    .endm

    // The UART is to interrupt `count` times, and its handler to send `byte` each time.
    .macro  transmit byte, count
    mov     $\byte, %r12
    mov     $\count, %r13
    write8  UART_IER, 0x02
    call    wait_for_all
    .endm

    .code64
    .globl  _start
_start:
    cli
    others_halt
    mov     $IOAPIC, %ebx
    mov     $LAPIC, %r14d
    lea     stack_end(%rip), %rsp
    handle  UART_VECTOR, uart
    handle  TIMER_VECTOR, tick
    handle  NMI_VECTOR, uart_nmi
    lidt    idtr
    // The 8259s are not used.
    write8  PIC_MASTER + 1, 0xff
    write8  PIC_SLAVE + 1, 0xff
    // 24 pins, of which the last is masked.
    movl    $1, (%rbx)
    mov     0x10(%rbx), %eax
    shr     $16, %eax
    cmp     $23, %eax
    fail_unless e, 1
    movl    $0x10 + 2 * 23, (%rbx)
    cmpl    $RTE_MASKED, 0x10(%rbx)
    fail_unless e, 2
    write8  UART_MCR, 0x08          // OUT2 connects the UART's pin

    route   UART_PIN, 0, RTE_LEVEL | UART_VECTOR
    transmit 'L', 5
    movl    $0x10 + 2 * UART_PIN, (%rbx)
    mov     0x10(%rbx), %eax
    and     $~RTE_REMOTE_IRR, %eax
    cmp     $RTE_LEVEL | UART_VECTOR, %eax
    fail_unless e, 3
    route   UART_PIN, 0, UART_VECTOR
    transmit 'E', 5

    // A level that comes while its pin is masked is not lost.
    route   UART_PIN, 0, RTE_MASKED | RTE_LEVEL | UART_VECTOR
    mov     $'M', %r12
    mov     $1, %r13
    write8  UART_IER, 0x02
    let_in
    cmp     $1, %r13
    fail_unless e, 4
    movl    $RTE_LEVEL | UART_VECTOR, 0x10(%rbx)
    call    wait_for_all

    // To the lowest priority of those with bit 0 of their logical ids.
    movl    $1 << 24, LAPIC_LDR(%r14)
    route   UART_PIN, 1, RTE_LOGICAL | RTE_LOWEST | RTE_LEVEL | UART_VECTOR
    transmit 'G', 3

    route   UART_PIN, 0, RTE_NMI
    transmit 'N', 1
    route   UART_PIN, 0, RTE_MASKED

    // Ten ticks of a millisecond: counter 0, both bytes, mode 2.
    route   TIMER_PIN, 0, TIMER_VECTOR
    mov     $10, %r13
    write8  PIT_CONTROL, 0x34
    write8  PIT_0, 1193 & 0xff
    write8  PIT_0, 1193 >> 8
    call    wait_for_all
    write8  UART_THR, '\n'
    power_off

wait_for_all:
    cli
    test    %r13, %r13
    jz      .Lall
    sti
    hlt
    jmp     wait_for_all
.Lall:
    let_in
    ret

uart:
    call    serve_uart
    jmp     end

uart_nmi:
    call    serve_uart
    iretq

    // There may be no interrupt any more: one that was sent before the UART's pin went low.
serve_uart:
    read8   UART_IIR
    test    $1, %al
    jnz     .Lserved
    mov     %r12d, %eax
    mov     $UART_THR, %edx
    out     %al, %dx
    dec     %r13
    jnz     .Lserved
    write8  UART_IER, 0x00
.Lserved:
    ret

tick:
    test    %r13, %r13
    jz      end
    write8  UART_THR, '.'
    dec     %r13
end:
    movl    $0, LAPIC_EOI(%r14)
    iretq

    .balign 16
idt:
    .skip   16 * (TIMER_VECTOR + 1)
idtr:
    .word   . - idt - 1
    .quad   idt
    .balign 16
    .skip   512
stack_end:
