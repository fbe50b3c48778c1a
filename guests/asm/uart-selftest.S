// uart-selftest: the UART's registers as a driver's probe sees them, most of it in loopback,
// where a byte written to THR arrives at once in RBR and never leaves the UART. The source is
// the 16550D datasheet, section 8 and table 4 (interrupt identification).
//
// Mode:   real
// vCPUs:  any; vCPU 0 works, the others halt
// Input:  none; a byte from the host would disturb it
// Output: "uart ok\n"
// Exit:   0 (all halt), or 2 * step + 1 for the step below that failed

#include "guest.h"

#define LCR_8N1      0x03
#define LCR_DLAB     0x80
#define IER_ERBFI    0x01
#define IER_ETBEI    0x02
#define IER_ELSI     0x04
#define IER_EDSSI    0x08
#define IIR_ID       0x0f
#define IIR_FIFOS    0xc0
#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define FCR_CLEAR_TX 0x04
#define FCR_LEVEL_14 0xc0
#define MCR_DTR      0x01
#define MCR_RTS      0x02
#define MCR_OUT1     0x04
#define MCR_OUT2     0x08
#define MCR_LOOP     0x10
#define FIFO_SIZE    16

// The register, masked, has this value.
.macro expect port, mask, value, step
    read8   \port
    and     $(\mask), %al
    cmp     $(\value), %al
    fail_unless e, \step
.endm

// In loopback, the modem control outputs \mcr arrive as the modem status inputs \msr.
.macro expect_modem mcr, msr, step
    write8  UART_MCR, MCR_LOOP | \mcr
    expect  UART_MSR, 0xf0, \msr, \step
.endm

    .code16
    .globl  _start
_start:
    others_halt

    // Scratch register.
    write8  UART_SCR, 0x5a
    expect  UART_SCR, 0xff, 0x5a, 1
    write8  UART_SCR, 0xa5
    expect  UART_SCR, 0xff, 0xa5, 2

    // Divisor latch: there with DLAB, out of the way without.
    write8  UART_LCR, LCR_DLAB | LCR_8N1
    write8  UART_DLL, 0x34
    write8  UART_DLM, 0x12
    expect  UART_DLL, 0xff, 0x34, 3
    expect  UART_DLM, 0xff, 0x12, 4
    write8  UART_DLL, 0x01
    write8  UART_DLM, 0x00
    write8  UART_LCR, LCR_8N1
    expect  UART_LCR, 0xff, LCR_8N1, 5
    write8  UART_IER, 0
    expect  UART_IER, 0xff, 0, 6

    // Bits that the 16550 does not have read as 0.
    write8  UART_IER, 0xff
    expect  UART_IER, 0xff, 0x0f, 7
    write8  UART_IER, 0
    write8  UART_MCR, 0xff
    expect  UART_MCR, 0xff, 0x1f, 8
    write8  UART_MCR, 0

    // The FIFOs show in IIR.
    write8  UART_FCR, FCR_ENABLE | FCR_CLEAR_RX | FCR_CLEAR_TX
    expect  UART_IIR, 0xff, IIR_FIFOS | 1, 9
    write8  UART_FCR, 0
    expect  UART_IIR, 0xff, 1, 10

    // THRE interrupt: pending as soon as it is enabled, and gone once IIR has shown it.
wait_thre:
    read8   UART_LSR
    test    $LSR_THRE, %al
    jnz     1f
    pause
    jmp     wait_thre
1:
    write8  UART_IER, IER_ETBEI
    expect  UART_IIR, IIR_ID, 2, 11
    expect  UART_IIR, IIR_ID, 1, 12
    write8  UART_IER, 0

    // Loopback: modem control to modem status.
    expect_modem 0, 0, 13
    expect_modem MCR_RTS, 0x10, 14
    expect_modem MCR_DTR, 0x20, 15
    expect_modem MCR_OUT1, 0x40, 16
    expect_modem MCR_OUT2, 0x80, 17

    // A change of modem status interrupts until MSR is read.
    write8  UART_IER, IER_EDSSI
    expect  UART_IIR, IIR_ID, 1, 18
    write8  UART_MCR, MCR_LOOP
    expect  UART_IIR, IIR_ID, 0, 19
    expect  UART_MSR, 0xff, 0x08, 20
    expect  UART_IIR, IIR_ID, 1, 21
    expect  UART_MSR, 0xff, 0, 22

    // Loopback: a byte, and the interrupt for it.
    write8  UART_IER, IER_ERBFI
    expect  UART_LSR, LSR_DR, 0, 23
    write8  UART_THR, 'L'
    expect  UART_LSR, LSR_DR, LSR_DR, 24
    expect  UART_IIR, IIR_ID, 4, 25
    expect  UART_RBR, 0xff, 'L', 26
    expect  UART_LSR, LSR_DR, 0, 27
    expect  UART_IIR, IIR_ID, 1, 28

    // The receive FIFO keeps 16 bytes in order; one more is an overrun, which is a line status
    // interrupt, comes before received data, and is cleared by a read of LSR.
    write8  UART_IER, IER_ERBFI | IER_ELSI
    write8  UART_FCR, FCR_ENABLE | FCR_CLEAR_RX | FCR_CLEAR_TX
    xor     %ecx, %ecx
2:
    mov     %cl, %al
    mov     $UART_THR, %dx
    out     %al, %dx
    inc     %cx
    cmp     $FIFO_SIZE, %cx
    jb      2b
    expect  UART_IIR, IIR_ID, 4, 29
    expect  UART_LSR, LSR_OE, 0, 30
    write8  UART_THR, 0x99
    expect  UART_IIR, IIR_ID, 6, 31
    expect  UART_LSR, LSR_OE | LSR_DR, LSR_OE | LSR_DR, 32
    expect  UART_LSR, LSR_OE | LSR_DR, LSR_DR, 33
    expect  UART_IIR, IIR_ID, 4, 34
    xor     %ecx, %ecx
3:
    read8   UART_RBR
    cmp     %cl, %al
    fail_unless e, 35
    inc     %cx
    cmp     $FIFO_SIZE, %cx
    jb      3b
    expect  UART_LSR, LSR_DR, 0, 36
    expect  UART_IIR, IIR_ID, 1, 37

    // Below the trigger level a byte still interrupts, by the character time-out (0xc): after
    // four character times, so look many times.
    write8  UART_FCR, FCR_ENABLE | FCR_LEVEL_14
    write8  UART_THR, 'T'
    mov     $0xffff, %cx
4:
    read8   UART_IIR
    and     $IIR_ID, %al
    cmp     $0x0c, %al
    loopne  4b
    fail_unless e, 38

    // FCR empties the receive FIFO.
    write8  UART_FCR, FCR_ENABLE | FCR_CLEAR_RX
    expect  UART_LSR, LSR_DR, 0, 39
    expect  UART_IIR, IIR_ID, 1, 40

    write8  UART_IER, 0
    write8  UART_FCR, 0
    write8  UART_MCR, 0
    print   ok
    halt

ok: .asciz "uart ok\n"
