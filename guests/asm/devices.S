// devices: a PC's small legacy devices, one by one, polled: what each of them shows of itself. If
// the devices that are there only when asked for are there, it tries these, too.
//
// Mode:   long
// vCPUs:  any; vCPU 0 works, the others halt
// Output: "devices ok\n", the first half of it through the debug console; before that the first
//         file of fw_cfg if there is one, and after it the names of further devices, a line each;
//         on COM2, if it is there, "com2\n"
// Exit:   0 (all halt), or 2 * step + 1 for the step below that failed

#include "guest.h"

#define KBD_DATA      0x60
#define KBD_COMMAND   0x64
#define PORT_B        0x61
#define RTC_INDEX     0x70
#define RTC_DATA      0x71
#define POST          0x80
#define PORT_A        0x92
#define DEBUG_CONSOLE 0xe9
#define FW_CFG        0x510
#define FW_CFG_DATA   0x511
#define PM1A_EVENT    0x600
#define PM1A_CONTROL  0x604
#define PM_TIMER      0x608
#define PCI_ADDRESS   0xcf8
#define PCI_DATA      0xcfc
#define COM2          0x2f8
#define TEST_SCRATCH  0xe0
#define TEST_LINES    0x2000
#define TEST_MEMORY   0xff000000

// Reads a byte of CMOS memory into al.
.macro cmos index
    write8  RTC_INDEX, \index
    read8   RTC_DATA
.endm

// Expects the keyboard controller's next byte.
.macro expect_key value, step
    in      $KBD_COMMAND, %al
    test    $1, %al
    fail_unless nz, \step
    in      $KBD_DATA, %al
    cmp     $\value, %al
    fail_unless e, \step
.endm

// Selects an item of fw_cfg.
.macro select key
    mov     $FW_CFG, %edx
    mov     $\key, %eax
    out     %ax, %dx
.endm

// Reads the next four bytes of it, big-endian, into eax.
.macro next_be32
    mov     $FW_CFG_DATA, %edx
    .rept 4
    shl     $8, %eax
    in      %dx, %al
    .endr
.endm

    .code64
    .globl  _start
_start:
    others_halt
    mov     %esi, %ebp              // the number of vCPUs

    // The keyboard controller: self-test, and a reset of the keyboard.
    mov     $0xaa, %al
    out     %al, $KBD_COMMAND
    expect_key 0x55, 1
    mov     $0xff, %al
    out     %al, $KBD_DATA
    expect_key 0xfa, 2
    expect_key 0xaa, 2
    in      $KBD_COMMAND, %al
    test    $1, %al
    fail_unless z, 3

    // The clock: it is good, and a second comes to its end; the century is this one.
    cmos    0x0d
    cmp     $0x80, %al
    fail_unless e, 4
    cmos    0x00
    mov     %al, %bl
1:
    cmos    0x00
    cmp     %al, %bl
    je      1b
    cmos    0x32
    cmp     $0x20, %al
    fail_unless e, 5
    cmos    0x5f
    inc     %al
    cmp     %al, %bpl
    fail_unless e, 6

    // Timer 2, gated and seen by port B: it counts to its end.
    mov     $1, %al
    out     %al, $PORT_B
    mov     $0xb0, %al
    out     %al, $0x43
    mov     $0xff, %al
    out     %al, $0x42
    mov     $0x01, %al
    out     %al, $0x42
1:
    in      $PORT_B, %al
    test    $0x20, %al
    jz      1b

    // The PM timer gets on; ACPI is on; an enable bit is kept.
    mov     $PM_TIMER, %edx
    in      %dx, %eax
    mov     %eax, %ebx
1:
    in      %dx, %eax
    cmp     %eax, %ebx
    je      1b
    mov     $PM1A_CONTROL, %edx
    in      %dx, %ax
    cmp     $1, %ax
    fail_unless e, 7
    mov     $PM1A_EVENT, %edx
    mov     $0x00010000, %eax
    out     %eax, %dx
    in      %dx, %eax
    cmp     $0x00010000, %eax
    fail_unless e, 8

    // PCI: mechanism 1, and no device 0.
    mov     $PCI_ADDRESS, %edx
    mov     $0x80000000, %eax
    out     %eax, %dx
    in      %dx, %eax
    cmp     $0x80000000, %eax
    fail_unless e, 9
    mov     $PCI_DATA, %edx
    in      %dx, %eax
    cmp     $0xffffffff, %eax
    fail_unless e, 10

    // A20 is on; a POST code; a port for delays.
    in      $PORT_A, %al
    cmp     $0x02, %al
    fail_unless e, 11
    mov     $0x42, %al
    out     %al, $POST
    out     %al, $0xed

    // fw_cfg: its signature, the number of vCPUs, and the first file if there is one.
    select  0x00
    next_be32
    cmp     $0x51454d55, %eax       // "QEMU"
    fail_unless e, 12
    select  0x05
    mov     $FW_CFG_DATA, %edx
    in      %dx, %al
    cmp     %al, %bpl
    fail_unless e, 13
    select  0x19
    next_be32
    test    %eax, %eax
    jz      2f
    next_be32
    mov     %eax, %ecx              // its length
    select  0x20
1:
    mov     $FW_CFG_DATA, %edx
    in      %dx, %al
    mov     $UART_THR, %edx
    out     %al, %dx
    dec     %ecx
    jnz     1b
2:

    // The test device takes the debug console's place.
    mov     $TEST_SCRATCH, %edx
    mov     $0x12345678, %eax
    out     %eax, %dx
    in      %dx, %eax
    cmp     $0x12345678, %eax
    je      test_device
    in      $DEBUG_CONSOLE, %al
    cmp     $DEBUG_CONSOLE, %al
    fail_unless e, 14
    mov     $DEBUG_CONSOLE, %edx
    mov     $first, %esi
    mov     $(second - first), %ecx
    rep outsb
    print   second
com2:
    // A serial port has a scratch register.
    write8  COM2 + 7, 0x5a
    read8   COM2 + 7
    cmp     $0x5a, %al
    jne     end
    mov     $COM2, %edx
    mov     $com2_text, %esi
    mov     $(com2_end - com2_text), %ecx
    rep outsb
    print   com2_name
end:
    halt

test_device:
    in      $(TEST_SCRATCH + 9), %al
    cmp     $0x56, %al
    fail_unless e, 15
    mov     $TEST_MEMORY, %ebx
    mov     %ebx, 0x10(%rbx)
    mov     0x11(%rbx), %eax
    cmp     $0x00ff0000, %eax
    fail_unless e, 16
    // A line goes up and down: without an interrupt controller nothing comes of it.
    write8  TEST_LINES + 5, 1
    write8  TEST_LINES + 5, 0
    print   first
    print   test_name
    jmp     com2

first:      .ascii "devices "
second:     .asciz "ok\n"
test_name:  .asciz "testdev\n"
com2_name:
com2_text:  .ascii "com2\n"
com2_end:   .byte 0
