// irq-pic: interrupts by the two 8259s: the timer, the UART's transmitter and the RTC, which is at
// the second one, each waited for with HLT.
//
// Mode:   real
// vCPUs:  any; vCPU 0 works, the others halt
// Needs:  interrupt controllers
// Output: "..........UUUUUcccc\n"
// Exit:   0 (power-off)

#include "guest.h"

#define PIC_MASTER      0x20
#define PIC_SLAVE       0xa0
#define PIT_0           0x40
#define PIT_CONTROL     0x43
#define RTC_INDEX       0x70
#define EOI             0x20
#define VECTORS         0x20        // of the master; the slave's follow

    // Puts a handler into the interrupt vector table.
    .macro  handle irq, handler
    movw    $\handler, 4 * (VECTORS + \irq)
    movw    %cs, 4 * (VECTORS + \irq) + 2
    .endm

    // Sends a byte and counts it.
    .macro  send byte
    mov     $\byte, %al
    mov     $UART_THR, %dx
    out     %al, %dx
    inc     %bp
    .endm

    // Waits until so many have been sent.
    .macro  wait_for count
.Lwait\@:
    cli
    cmp     $\count, %bp
    jae     .Lcame\@
    sti
    hlt
    jmp     .Lwait\@
.Lcame\@:
    xor     %bp, %bp
    .endm

    // A register of the RTC.
    .macro  rtc index
    mov     $\index, %al
    out     %al, $RTC_INDEX
    .endm

    .code16
    .globl  _start
_start:
    cli
    test    %edi, %edi
    jz      first
    halt
first:
    handle  0, tick
    handle  4, uart
    handle  8, clock
    // ICW1 to ICW4, then all masked but the cascade.
    write8  PIC_MASTER, 0x11
    write8  PIC_MASTER + 1, VECTORS
    write8  PIC_MASTER + 1, 1 << 2
    write8  PIC_MASTER + 1, 0x01
    write8  PIC_SLAVE, 0x11
    write8  PIC_SLAVE + 1, VECTORS + 8
    write8  PIC_SLAVE + 1, 2
    write8  PIC_SLAVE + 1, 0x01
    write8  PIC_SLAVE + 1, 0xff
    xor     %bp, %bp

    // Ten ticks of a millisecond: counter 0, both bytes, mode 2.
    write8  PIC_MASTER + 1, 0xff & ~(1 << 0 | 1 << 2)
    write8  PIT_CONTROL, 0x34
    write8  PIT_0, 1193 & 0xff
    write8  PIT_0, 1193 >> 8
    wait_for 10

    // OUT2 connects the UART's pin; its transmitter is empty.
    write8  PIC_MASTER + 1, 0xff & ~(1 << 4 | 1 << 2)
    write8  UART_MCR, 0x08
    write8  UART_IER, 0x02
    wait_for 5
    write8  UART_IER, 0x00

    // The RTC at 1024 Hz: register A, then B with its periodic interrupt on; C ends each.
    write8  PIC_MASTER + 1, 0xff & ~(1 << 2)
    write8  PIC_SLAVE + 1, 0xff & ~(1 << 0)
    rtc     0x0a
    mov     $0x26, %al
    out     %al, $RTC_INDEX + 1
    rtc     0x0b
    mov     $0x42, %al
    out     %al, $RTC_INDEX + 1
    wait_for 4
    send    '\n'
    power_off

tick:
    cmp     $10, %bp
    jae     .Lmore
    send    '.'
.Lmore:
    write8  PIC_MASTER, EOI
    iret

uart:
    read8   UART_IIR
    send    'U'
    cmp     $5, %bp
    jb      .Lnot_last
    write8  UART_IER, 0x00
.Lnot_last:
    write8  PIC_MASTER, EOI
    iret

clock:
    rtc     0x0c
    in      $RTC_INDEX + 1, %al
    test    $0x40, %al              // periodic
    jz      .Lnot_due
    cmp     $4, %bp
    jae     .Lnot_due
    send    'c'
.Lnot_due:
    write8  PIC_SLAVE, EOI
    write8  PIC_MASTER, EOI
    iret
