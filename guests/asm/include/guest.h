// What the guests share: the ports, and macros for locks, printing and the ways to end.
//
// One text serves all three code sizes. The macros hold to 32-bit registers and to absolute
// addresses, which `.code16`, `.code32` and `.code64` all have; the image lies below 64 KiB.
// No macro uses the stack but `print_dec`.
//
// Entry state: docs/guest-abi.md. In short: edi = index of this vCPU, esi = number of vCPUs,
// ecx = guest memory in 4 KiB pages, ebp = 0 unless `--reg rbp=N` says otherwise.

// The 16550A at COM1; register names as in the 16550D datasheet, table 2.
#define UART_RBR        0x3f8   // read, DLAB = 0
#define UART_THR        0x3f8   // write, DLAB = 0
#define UART_DLL        0x3f8   // DLAB = 1
#define UART_IER        0x3f9   // DLAB = 0
#define UART_DLM        0x3f9   // DLAB = 1
#define UART_IIR        0x3fa   // read
#define UART_FCR        0x3fa   // write
#define UART_LCR        0x3fb
#define UART_MCR        0x3fc
#define UART_LSR        0x3fd
#define UART_MSR        0x3fe
#define UART_SCR        0x3ff

#define LSR_DR          0x01
#define LSR_OE          0x02
#define LSR_THRE        0x20

// The ports that end the VM.
#define EXIT_PORT       0xf4    // OUT v: exit code ((v << 1) | 1) & 0xff
#define POWER_OFF_PORT  0x604   // 16-bit OUT of POWER_OFF_VALUE: exit code 0
#define POWER_OFF_VALUE 0x2000
#define SHUTDOWN_PORT   0x8900  // "Shutdown", byte by byte: exit code 0
#define RESET_8042_PORT 0x64    // OUT 0xfe: reset, exit code 16
#define RESET_CF9_PORT  0xcf9   // OUT 0x06: reset, exit code 16

// The ports that a trace of the guest listens to.
#define TRACE_CONTROL   0x5e0   // OUT 1, 0: switch recording on, off; IN: 1 while it is on
#define TRACE_MARKER    0x5e1   // OUT: a marker's name, byte by byte, then a NUL or newline

// A port with nothing behind it.
#define UNKNOWN_PORT    0x5a0

// Ends this vCPU (ring 0). The VM ends, with exit code 0, when every vCPU has.
.macro halt
.Lhalt\@:
    hlt
    jmp     .Lhalt\@
.endm

// Ends this vCPU's work but not the vCPU: another one ends the VM, or the host does.
.macro spin
.Lspin\@:
    pause
    jmp     .Lspin\@
.endm

// Only vCPU 0 goes on; the others halt.
.macro others_halt
    test    %edi, %edi
    jz      .Lfirst\@
    halt
.Lfirst\@:
.endm

// Only vCPU 0 goes on; the others spin, so that only vCPU 0 can end the VM.
.macro others_spin
    test    %edi, %edi
    jz      .Lfirst\@
    spin
.Lfirst\@:
.endm

// Powers the VM off. Clobbers eax, edx.
.macro power_off
    mov     $POWER_OFF_VALUE, %eax
    mov     $POWER_OFF_PORT, %edx
    out     %ax, %dx
    spin
.endm

// Ends the VM through the exit port, with exit code 2 * step + 1, unless the flags hold
// `cond` (e, ne, z, nz, ...). Clobbers eax when it does end it.
.macro fail_unless cond, step
    j\cond  .Lgood\@
    mov     $\step, %al
    out     %al, $EXIT_PORT
    spin
.Lgood\@:
.endm

// Takes the lock: a byte that is 0 when free. Clobbers eax.
.macro acquire lock
.Ltry\@:
    mov     $1, %al
    xchg    %al, \lock
    test    %al, %al
    jz      .Lheld\@
    pause
    jmp     .Ltry\@
.Lheld\@:
.endm

// Gives the lock back: on x86 a plain store releases.
.macro release lock
    movb    $0, \lock
.endm

// Counts this vCPU in `counter` (a .long) and leaves ZF set for the last of `count` (a 32-bit
// register). Clobbers eax.
.macro arrive counter, count
    mov     $1, %eax
    lock xadd %eax, \counter
    inc     %eax
    cmp     \count, %eax
.endm

// OUT of one byte. Clobbers al, edx.
.macro write8 port, value
    mov     $\port, %edx
    mov     $\value, %al
    out     %al, %dx
.endm

// IN of one byte, to al. Clobbers edx.
.macro read8 port
    mov     $\port, %edx
    in      %dx, %al
.endm

// Prints a NUL-terminated text. A write to THR is never lost, so none waits for THRE.
// Clobbers al, edx, esi.
.macro print text
    mov     $\text, %esi
    mov     $UART_THR, %edx
.Lnext\@:
    lodsb
    test    %al, %al
    jz      .Lprinted\@
    out     %al, %dx
    jmp     .Lnext\@
.Lprinted\@:
.endm

// Prints eax in decimal. Clobbers eax, ecx, edx and takes up to 22 bytes of stack.
.macro print_dec
    xor     %ecx, %ecx
    push    %cx                     // the mark below the digits: no digit is 0 in ASCII
    mov     $10, %ecx
.Ldivide\@:
    xor     %edx, %edx
    div     %ecx
    add     $'0', %dl
    push    %dx
    test    %eax, %eax
    jnz     .Ldivide\@
    mov     $UART_THR, %edx
.Ldigit\@:
    pop     %ax
    test    %al, %al
    jz      .Ldone\@
    out     %al, %dx
    jmp     .Ldigit\@
.Ldone\@:
.endm

// Sets ecx to the number of iterations: ebp (`--reg rbp=N`), or `default` if that is 0.
.macro iterations default
    mov     %ebp, %ecx
    test    %ecx, %ecx
    jnz     .Lgiven\@
    mov     $\default, %ecx
.Lgiven\@:
.endm
