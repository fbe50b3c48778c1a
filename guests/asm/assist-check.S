// assist-check: runs instructions on random inputs in ring 0, where the host's KVM may need help
// with them, and in ring 3, where the processor itself runs them, and compares what they do:
// registers, flags, memory, vector and x87 state. rbp is the number of inputs for each.
//
// Mode:   long
// vCPUs:  any; all but the first halt at once
// Output: "assist ok\n"; or the instruction that differs, and the two results
// Exit:   0 (all halt); 3 if an instruction differs, 5 for an exception

#include "guest.h"

#define ITERATIONS      4

#define CR4_OSXSAVE     (1 << 18)

#define KERNEL_CODE     0x08
#define KERNEL_DATA     0x10
#define USER_DATA       (0x18 | 3)
#define USER_CODE       (0x20 | 3)
#define TSS             0x28

// The way back to ring 0 is #UD: of all ways it is the one that no host gets wrong.
#define BACK_VECTOR     6
#define VECTORS         32

// All arithmetic flags, and single ones.
#define ALL             0x8d5
#define CF              0x001
#define PF              0x004
#define AF              0x010
#define ZF              0x040
#define SF              0x080
#define OF              0x800

// Bits of `features`.
#define F_ALWAYS        0
#define F_SSE3          1
#define F_SSSE3         2
#define F_SSE41         3
#define F_SSE42         4
#define F_POPCNT        5
#define F_MOVBE         6
#define F_CX16          7
#define F_PCLMUL        8
#define F_AVX           9
#define F_BMI1          10
#define F_BMI2          11
#define F_ADX           12
#define F_AVX2          13
#define F_XSAVE         14
#define F_XSAVEC        15
#define F_XSAVEOPT      16
#define F_CLWB          17
#define F_CLFLUSHOPT    18
#define F_MOVDIRI       19
#define F_MOVDIR64B     20

// Bytes of memory that are given to an instruction and compared: at rsi, and around the end of its
// page.
#define PART            1024
#define EDGE            0xfe0
#define EDGE_PART       64

// The offsets in a result.
#define OUT_FLAGS       80
#define OUT_MEMORY      88
#define OUT_EDGE        (OUT_MEMORY + PART)
#define OUT_FX          (OUT_EDGE + EDGE_PART + 8)
#define OUT_LEN         (OUT_FX + 512)

// An instruction, or a few, to be compared; `defined` are the flags that it defines. It may use
// rax, rbx, rcx, rdx, rbp, r8 to r11, the memory at rsi, and vector registers.
.macro check defined:req, insn:req
    .text   1
.Lcode\@:
    \insn
    ret
    .data   1
.Lname\@:
    .asciz  "\insn"
    .data   2
    .quad   .Lcode\@, .Lname\@, \defined, need
    .text   0
.endm

    .data   2
    .balign 8
cases:
    .text   0

    .code64
    .globl  _start
_start:
    others_halt
    mov     $kernel_stack, %esp
    iterations ITERATIONS
    mov     %rcx, rounds
    lgdt    gdtr
    mov     $KERNEL_DATA, %eax
    mov     %eax, %ss
    mov     %eax, %ds
    mov     %eax, %es
    pushq   $KERNEL_CODE
    pushq   $1f
    lretq
1:
    call    fill_idt
    lidt    idtr
    call    find_features
    movq    $kernel_stack, tss + 4
    movw    $0x68, tss + 0x66           // no I/O permission map
    mov     $TSS, %eax
    ltr     %ax
    call    try_movbe
    pushq   $USER_DATA
    pushq   $user_stack
    pushq   $2
    pushq   $USER_CODE
    pushq   $in_ring3
    iretq

in_ring3:
    mov     $cases, %r12d
next_case:
    cmpq    $0, (%r12)
    je      all_done
    mov     24(%r12), %rcx
    bt      %rcx, features
    jnc     2f
    mov     rounds, %r13
1:
    call    new_input
    mov     (%r12), %rax
    mov     %rax, case_code
    ud2                                 // runs the case in ring 0
    mov     $result, %esi
    mov     $result0, %edi
    mov     $OUT_LEN / 8, %ecx
    rep movsq
    call    run_case
    call    compare
    dec     %r13
    jnz     1b
2:
    add     $32, %r12
    jmp     next_case
all_done:
    movq    $succeeded, ring0_task
    ud2

// #UD: from ring 3 it asks for something to be done in ring 0: to run the case, or to end.
undefined:
    testb   $3, 8(%rsp)
    jz      1f
    call    *ring0_task
    addq    $2, (%rsp)
    iretq
1:
    // In ring 0, only MOVBE may do that.
    btrl    $F_MOVBE, features
    jnc     exception
    movq    $movbe_tried, (%rsp)
    iretq

// There are hosts whose KVM says in CPUID that there is MOVBE and then raises #UD for it in ring 0.
try_movbe:
    btl     $F_MOVBE, features
    jnc     movbe_tried
    movbe   register_input, %rax
movbe_tried:
    ret

// Runs the case on the input, and leaves its result. Clobbers everything.
run_case:
    push    %r12
    push    %r13
    mov     %rsp, case_rsp
    cld
    mov     $memory_input, %esi
    mov     $memory, %edi
    mov     $PART / 8, %ecx
    rep movsq
    mov     $memory + EDGE, %edi
    mov     $EDGE_PART / 8, %ecx
    rep movsq
    fxrstor64 fx_input
    mov     register_input, %rax
    mov     register_input + 8, %rbx
    mov     register_input + 16, %rcx
    mov     register_input + 24, %rdx
    mov     register_input + 32, %rbp
    mov     register_input + 40, %r8
    mov     register_input + 48, %r9
    mov     register_input + 56, %r10
    mov     register_input + 64, %r11
    mov     $memory, %esi
    mov     $memory + 512, %edi
    pushq   flags_input
    popfq
    call    *case_code
    mov     %rax, result
    mov     %rbx, result + 8
    mov     %rcx, result + 16
    mov     %rdx, result + 24
    mov     %rbp, result + 32
    mov     %r8, result + 40
    mov     %r9, result + 48
    mov     %r10, result + 56
    mov     %r11, result + 64
    pushfq
    popq    result + OUT_FLAGS
    mov     case_rsp, %rsp
    fxsave64 fx_result
    mov     $memory, %esi
    mov     $result + OUT_MEMORY, %edi
    mov     $PART / 8, %ecx
    rep movsq
    mov     $memory + EDGE, %esi
    mov     $EDGE_PART / 8, %ecx
    rep movsq
    mov     $fx_result, %esi
    mov     $result + OUT_FX, %edi
    mov     $512 / 8, %ecx
    rep movsq
    // Where the last x87 instruction and its operand were differs from ring to ring, if it is kept.
    movw    $0, result + OUT_FX + 6
    movq    $0, result + OUT_FX + 8
    movq    $0, result + OUT_FX + 16 - 8
    movq    $0, result + OUT_FX + 16
    mov     fx_result + 24, %eax
    mov     %eax, result + OUT_FX + 24
    pop     %r13
    pop     %r12
    ret

// Compares the results of the two rings.
compare:
    mov     16(%r12), %rax
    and     %rax, result + OUT_FLAGS
    and     %rax, result0 + OUT_FLAGS
    mov     $result0, %esi
    mov     $result, %edi
    mov     $OUT_LEN / 8, %ecx
    cld
    repe cmpsq
    jne     differs
    ret
differs:
    movq    $failed, ring0_task
    ud2
succeeded:
    print   ok
    halt
failed:
    lea     -8(%rsi), %r14
    lea     -8(%rdi), %r15
    mov     8(%r12), %rsi
    call    print_text
    print   at
    mov     %r14, %rbx
    sub     $result0, %rbx
    call    print_hex
    print   ring0
    mov     (%r14), %rbx
    call    print_hex
    print   ring3
    mov     (%r15), %rbx
    call    print_hex
    print   newline
    mov     $1, %al
    out     %al, $EXIT_PORT
    halt

// Prints the text at rsi.
print_text:
    mov     $UART_THR, %edx
1:
    lodsb
    test    %al, %al
    jz      2f
    out     %al, %dx
    jmp     1b
2:
    ret

// Prints rbx in 16 digits.
print_hex:
    mov     $UART_THR, %edx
    mov     $16, %ecx
1:
    rol     $4, %rbx
    mov     %ebx, %eax
    and     $15, %eax
    mov     hex_digits(%rax), %al
    out     %al, %dx
    loop    1b
    ret

// A new input: random, but every other register one of the values that matter most.
new_input:
    mov     $register_input, %edi
    mov     $9, %ecx
1:
    call    random
    test    $3, %al
    jnz     2f
    shr     $3, %rax
    and     $7, %eax
    mov     special(, %rax, 8), %rax
2:
    stosq
    loop    1b
    mov     $memory_input, %edi
    mov     $(PART + EDGE_PART) / 8, %ecx
1:
    call    random
    stosq
    loop    1b
    mov     $fx_input + 160, %edi
    mov     $256 / 8, %ecx
1:
    call    random
    stosq
    loop    1b
    call    random
    and     $ALL, %eax
    or      $2, %eax
    mov     %rax, flags_input
    ret

// The next number of xorshift64 to rax; clobbers rbx.
random:
    mov     seed, %rax
    mov     %rax, %rbx
    shl     $13, %rbx
    xor     %rbx, %rax
    mov     %rax, %rbx
    shr     $7, %rbx
    xor     %rbx, %rax
    mov     %rax, %rbx
    shl     $17, %rbx
    xor     %rbx, %rax
    mov     %rax, seed
    ret

.macro feature from, bit, to
    bt      $\bit, \from
    jnc     .Lno\@
    bts     $\to, %r8d
.Lno\@:
.endm

// Sets `features`, and switches on XSAVE and AVX if they are there.
find_features:
    mov     $1 << F_ALWAYS, %r8d
    mov     $1, %eax
    cpuid
    mov     %ecx, %r9d
    feature %ecx, 0, F_SSE3
    feature %ecx, 1, F_PCLMUL
    feature %ecx, 9, F_SSSE3
    feature %ecx, 13, F_CX16
    feature %ecx, 19, F_SSE41
    feature %ecx, 20, F_SSE42
    feature %ecx, 22, F_MOVBE
    feature %ecx, 23, F_POPCNT
    feature %ecx, 26, F_XSAVE
    feature %ecx, 28, F_AVX
    mov     $7, %eax
    xor     %ecx, %ecx
    cpuid
    feature %ebx, 3, F_BMI1
    feature %ebx, 5, F_AVX2
    feature %ebx, 8, F_BMI2
    feature %ebx, 19, F_ADX
    feature %ebx, 23, F_CLFLUSHOPT
    feature %ebx, 24, F_CLWB
    feature %ecx, 27, F_MOVDIRI
    feature %ecx, 28, F_MOVDIR64B
    bt      $F_XSAVE, %r8d
    jnc     3f
    mov     $0xd, %eax
    mov     $1, %ecx
    cpuid
    feature %eax, 0, F_XSAVEOPT
    feature %eax, 1, F_XSAVEC
    mov     %cr4, %rax
    or      $CR4_OSXSAVE, %rax
    mov     %rax, %cr4
    xor     %edx, %edx
    xor     %ecx, %ecx
    mov     $3, %eax
    bt      $F_AVX, %r8d
    jnc     1f
    mov     $7, %eax
1:
    xsetbv
    mov     %r8, features
    ret
3:
    btr     $F_AVX, %r8d
    btr     $F_AVX2, %r8d
    mov     %r8, features
    ret

// Every exception ends the guest.
fill_idt:
    mov     $idt, %edi
    mov     $VECTORS, %ecx
1:
    movl    $KERNEL_CODE << 16, (%rdi)
    mov     $exception, %eax
    mov     %ax, (%rdi)
    movl    $0x8e00, 4(%rdi)
    movq    $0, 8(%rdi)
    add     $16, %rdi
    loop    1b
    mov     $undefined, %eax
    mov     %ax, idt + 16 * BACK_VECTOR
    ret
exception:
    mov     8(%r12), %rsi
    call    print_text
    print   raised
    mov     (%rsp), %rbx
    call    print_hex
    print   at
    mov     8(%rsp), %rbx
    call    print_hex
    print   newline
    mov     $2, %al
    out     %al, $EXIT_PORT
    halt

    .set    need, F_POPCNT
    check   ALL, "popcnt %rax, %rcx"
    check   ALL, "popcnt %ax, %cx"
    check   ALL, "popcnt %ebp, %r9d"
    check   ALL, "popcnt (%rsi), %rcx"
    check   ALL, "popcnt 0xffd(%rsi), %ecx"
    .set    need, F_MOVBE
    check   ALL, "movbe (%rsi), %rcx"
    check   ALL, "movbe 0xfff(%rsi), %cx"
    check   ALL, "movbe %eax, 0xffd(%rsi)"
    .set    need, F_SSE42
    check   ALL, "crc32b %al, %ecx"
    check   ALL, "crc32b %ah, %ecx"
    check   ALL, "crc32w (%rsi), %ecx"
    check   ALL, "crc32l %eax, %ecx"
    check   ALL, "crc32q %rax, %rcx"
    check   ALL, "crc32b 3(%rsi), %rcx"
    .set    need, F_CX16
    check   ALL, "lock cmpxchg16b (%rsi)"
    check   ALL, "cmpxchg16b 16(%rsi)"
    check   ALL, "mov (%rsi), %rax; mov 8(%rsi), %rdx; lock cmpxchg16b (%rsi)"
    .set    need, F_ADX
    check   ALL, "adcx %rax, %rcx"
    check   ALL, "adcx (%rsi), %ecx"
    check   ALL, "adox %rax, %rcx"
    check   ALL, "adox %ebx, %edx"
    .set    need, F_BMI1
    check   CF+OF+ZF+SF, "andn %rax, %rbx, %rcx"
    check   CF+OF+ZF+SF, "andn (%rsi), %ebx, %ecx"
    check   CF+OF+ZF, "bextr %rax, %rbx, %rcx"
    check   CF+OF+ZF, "bextr %eax, (%rsi), %ecx"
    check   CF+OF+ZF+SF, "blsi %rax, %rcx"
    check   CF+OF+ZF+SF, "blsi %eax, %ecx"
    check   CF+OF+ZF+SF, "blsr %rax, %rcx"
    check   CF+OF+ZF+SF, "blsr (%rsi), %ecx"
    check   CF+OF+ZF+SF, "blsmsk %rax, %rcx"
    check   CF+OF+ZF+SF, "blsmsk %eax, %ecx"
    .set    need, F_BMI2
    check   CF+OF+ZF+SF, "bzhi %rax, %rbx, %rcx"
    check   CF+OF+ZF+SF, "bzhi %eax, (%rsi), %ecx"
    check   ALL, "mulx %rax, %rbx, %rcx"
    check   ALL, "mulx %rax, %rbx, %rbx"
    check   ALL, "mulx (%rsi), %ebx, %ecx"
    check   ALL, "pdep %rax, %rbx, %rcx"
    check   ALL, "pdep (%rsi), %ebx, %ecx"
    check   ALL, "pext %rax, %rbx, %rcx"
    check   ALL, "pext %eax, %ebx, %ecx"
    check   ALL, "rorx $3, %rax, %rcx"
    check   ALL, "rorx $37, %eax, %ecx"
    check   ALL, "sarx %rax, %rbx, %rcx"
    check   ALL, "sarx %eax, (%rsi), %ecx"
    check   ALL, "shlx %rax, %rbx, %rcx"
    check   ALL, "shlx %eax, %ebx, %ecx"
    check   ALL, "shrx %rax, %rbx, %rcx"
    check   ALL, "shrx %eax, 0xffe(%rsi), %ecx"
    .set    need, F_CLWB
    check   ALL, "clwb (%rsi)"
    .set    need, F_CLFLUSHOPT
    check   ALL, "clflushopt (%rsi)"
    .set    need, F_MOVDIRI
    check   ALL, "movdiri %rax, (%rsi)"
    .set    need, F_MOVDIR64B
    check   ALL, "movdir64b (%rsi), %rdi"
    .set    need, F_ALWAYS
    check   ALL, "movnti %rax, (%rsi)"
    check   ALL, "endbr64"
    check   ALL, "mov %rsp, %rbp; enter $16, $1; mov %rbp, %rax; sub %rsp, %rax; mov (%rbp), %rcx; sub %rbp, %rcx; leave; sub %rsp, %rbp"
    check   ALL, "fwait"
    check   ALL, "fnclex; fnstsw %ax"
    check   ALL, "fnop"
    check   ALL, "andw $0xf7f, (%rsi); orw $0x3f, (%rsi); fldcw (%rsi); fnstcw 8(%rsi)"
    check   ALL, "fninit; fnstenv (%rsi); movl $0, 12(%rsi); movl $0, 16(%rsi); movl $0, 20(%rsi); movl $0, 24(%rsi)"
    check   ALL, "fninit; fnsave (%rsi); movl $0, 12(%rsi); movl $0, 16(%rsi); movl $0, 20(%rsi); movl $0, 24(%rsi)"
    check   ALL, "fninit; fnsave 256(%rsi); movw $0x1234, 260(%rsi); movw $0x0f00, 264(%rsi); frstor 256(%rsi)"
    check   ALL, "fninit; fnstenv 256(%rsi); movw $0x3fff, 264(%rsi); fldenv 256(%rsi)"
    check   ALL, "emms"
    check   ALL, "andl $0xffbf, (%rsi); ldmxcsr (%rsi); stmxcsr 4(%rsi)"
    .set    need, F_XSAVE
    check   ALL, "mov $7, %eax; xor %edx, %edx; movq $0, 512(%rsi); xsave64 (%rsi); movq $0, 8(%rsi); movq $0, 16(%rsi)"
    check   ALL, "mov $2, %eax; xor %edx, %edx; xsave (%rsi)"
    check   ALL, "mov $7, %eax; xor %edx, %edx; movq $0, 512(%rsi); movq $0, 520(%rsi); movq $0, 528(%rsi); movl $0x1f80, 24(%rsi); xrstor64 (%rsi)"
    check   ALL, "mov $2, %eax; xor %edx, %edx; movq $2, 512(%rsi); movq $0, 520(%rsi); movq $0, 528(%rsi); movl $0x1f80, 24(%rsi); xrstor (%rsi)"
    .set    need, F_XSAVEOPT
    check   ALL, "mov $2, %eax; xor %edx, %edx; movq $0, 512(%rsi); xsaveopt (%rsi)"
    .set    need, F_XSAVEC
    check   ALL, "mov $2, %eax; xor %edx, %edx; xsavec64 (%rsi)"
    check   ALL, "mov $2, %eax; xor %edx, %edx; xsavec (%rsi); movq $0, 528(%rsi); movq $0, 536(%rsi); movq $0, 544(%rsi); movq $0, 552(%rsi); movq $0, 560(%rsi); movq $0, 568(%rsi); pxor %xmm1, %xmm1; xrstor (%rsi)"
    .set    need, F_ALWAYS
    check   ALL, "movq (%rsi), %xmm0"
    check   ALL, "movq %xmm0, (%rsi)"
    check   ALL, "movq %xmm1, %xmm0"
    check   ALL, "movq %rax, %xmm0"
    check   ALL, "movq %xmm0, %rax"
    check   ALL, "movd (%rsi), %xmm0"
    check   ALL, "movd %xmm0, %eax"
    check   ALL, "movd %xmm0, 0xffe(%rsi)"
    check   ALL, "movss (%rsi), %xmm0"
    check   ALL, "movss %xmm1, %xmm0"
    check   ALL, "movss %xmm0, (%rsi)"
    check   ALL, "movsd (%rsi), %xmm0"
    check   ALL, "movsd %xmm1, %xmm0"
    check   ALL, "movlps (%rsi), %xmm0"
    check   ALL, "movlpd %xmm3, (%rsi)"
    check   ALL, "movhps (%rsi), %xmm0"
    check   ALL, "movhpd %xmm3, (%rsi)"
    check   ALL, "movups 0xff9(%rsi), %xmm9"
    check   ALL, "movups %xmm9, 0xff9(%rsi)"
    check   ALL, "movaps %xmm12, 16(%rsi)"
    check   ALL, "movntdq %xmm12, 16(%rsi)"
    check   ALL, "movhlps %xmm1, %xmm0"
    check   ALL, "movlhps %xmm1, %xmm0"
    check   ALL, "pxor (%rsi), %xmm0"
    check   ALL, "xorps %xmm1, %xmm0"
    check   ALL, "por %xmm1, %xmm0"
    check   ALL, "orpd (%rsi), %xmm0"
    check   ALL, "pand %xmm1, %xmm0"
    check   ALL, "andps %xmm1, %xmm0"
    check   ALL, "pandn %xmm1, %xmm0"
    check   ALL, "andnpd %xmm1, %xmm0"
    check   ALL, "paddb %xmm1, %xmm0"
    check   ALL, "paddw %xmm1, %xmm0"
    check   ALL, "paddd (%rsi), %xmm0"
    check   ALL, "paddq %xmm1, %xmm0"
    check   ALL, "psubb %xmm1, %xmm0"
    check   ALL, "psubw %xmm1, %xmm0"
    check   ALL, "psubd %xmm1, %xmm0"
    check   ALL, "psubq %xmm1, %xmm0"
    check   ALL, "pcmpeqb %xmm0, %xmm0"
    check   ALL, "pcmpeqw %xmm1, %xmm0"
    check   ALL, "pcmpeqd %xmm1, %xmm0"
    check   ALL, "pcmpgtb %xmm1, %xmm0"
    check   ALL, "pcmpgtw %xmm1, %xmm0"
    check   ALL, "pcmpgtd %xmm1, %xmm0"
    check   ALL, "pminub %xmm1, %xmm0"
    check   ALL, "pmaxub %xmm1, %xmm0"
    check   ALL, "pmullw %xmm1, %xmm0"
    check   ALL, "pmuludq %xmm1, %xmm0"
    check   ALL, "psllw $3, %xmm0"
    check   ALL, "pslld $31, %xmm0"
    check   ALL, "psllq $64, %xmm0"
    check   ALL, "psrlw $15, %xmm0"
    check   ALL, "psrld $7, %xmm0"
    check   ALL, "psrlq $33, %xmm0"
    check   ALL, "psraw $9, %xmm0"
    check   ALL, "psrad $200, %xmm0"
    check   ALL, "movd %ecx, %xmm1; psrlq $58, %xmm1; pslld %xmm1, %xmm0; psrad %xmm1, %xmm2; psrlw %xmm1, %xmm3"
    check   ALL, "pslldq $3, %xmm0"
    check   ALL, "psrldq $13, %xmm0"
    check   ALL, "psrldq $16, %xmm0"
    check   ALL, "punpcklbw %xmm1, %xmm0"
    check   ALL, "punpcklwd %xmm1, %xmm0"
    check   ALL, "punpckldq (%rsi), %xmm0"
    check   ALL, "punpcklqdq %xmm1, %xmm0"
    check   ALL, "punpckhbw %xmm1, %xmm0"
    check   ALL, "punpckhwd %xmm1, %xmm0"
    check   ALL, "punpckhdq %xmm1, %xmm0"
    check   ALL, "punpckhqdq %xmm1, %xmm0"
    check   ALL, "pshufd $0x1b, %xmm1, %xmm0"
    check   ALL, "pshufd $0x4e, (%rsi), %xmm0"
    check   ALL, "pshuflw $0x39, %xmm1, %xmm0"
    check   ALL, "pshufhw $0x93, %xmm1, %xmm0"
    check   ALL, "shufps $0x8d, %xmm1, %xmm0"
    check   ALL, "unpcklps %xmm1, %xmm0"
    check   ALL, "unpckhpd %xmm1, %xmm0"
    check   ALL, "pmovmskb %xmm0, %ecx"
    check   ALL, "pinsrw $5, %eax, %xmm0"
    check   ALL, "pinsrw $2, (%rsi), %xmm0"
    check   ALL, "pextrw $6, %xmm0, %eax"
    .set    need, F_SSE3
    check   ALL, "lddqu 1(%rsi), %xmm0"
    .set    need, F_SSSE3
    check   ALL, "pshufb %xmm1, %xmm0"
    check   ALL, "pshufb (%rsi), %xmm0"
    check   ALL, "palignr $4, %xmm1, %xmm0"
    check   ALL, "palignr $21, %xmm1, %xmm0"
    .set    need, F_SSE41
    check   ALL, "movntdqa (%rsi), %xmm0"
    check   ALL, "pinsrb $11, %eax, %xmm0"
    check   ALL, "pinsrd $3, %eax, %xmm0"
    check   ALL, "pinsrq $1, %rax, %xmm0"
    check   ALL, "pextrb $9, %xmm0, %eax"
    check   ALL, "pextrd $2, %xmm0, (%rsi)"
    check   ALL, "pextrq $1, %xmm0, %rax"
    check   ALL, "pmulld %xmm1, %xmm0"
    check   ALL, "pcmpeqq %xmm1, %xmm0"
    check   ALL, "pblendw $0x5a, %xmm1, %xmm0"
    check   ALL, "ptest %xmm1, %xmm0"
    check   ALL, "pxor %xmm1, %xmm1; ptest %xmm1, %xmm0"
    .set    need, F_PCLMUL
    check   ALL, "pclmulqdq $0x00, %xmm1, %xmm0"
    check   ALL, "pclmulqdq $0x11, %xmm1, %xmm0"
    check   ALL, "pclmulqdq $0x10, (%rsi), %xmm0"
    .set    need, F_AVX
    check   ALL, "vmovdqu 1(%rsi), %ymm0; vmovdqu %ymm0, 64(%rsi); vzeroupper"
    check   ALL, "vmovdqu (%rsi), %ymm0; vpxor %xmm1, %xmm0, %xmm0; vmovdqu %ymm0, 64(%rsi); vzeroupper"
    check   ALL, "vmovdqu (%rsi), %ymm1; movdqa %xmm3, %xmm1; vmovdqu %ymm1, 64(%rsi); vzeroupper"
    check   ALL, "vxorps 3(%rsi), %ymm1, %ymm0; vmovups %ymm0, 64(%rsi); vzeroupper"
    check   ALL, "vmovdqu (%rsi), %ymm1; vextractf128 $1, %ymm1, %xmm2; vinsertf128 $0, %xmm2, %ymm1, %ymm3; vmovdqu %ymm3, 64(%rsi); vzeroupper"
    check   ALL, "vmovdqu (%rsi), %ymm1; vzeroupper; vmovdqu %ymm1, 64(%rsi)"
    check   ALL, "vzeroall"
    .set    need, F_AVX2
    check   ALL, "vmovdqu (%rsi), %ymm1; vpaddd 32(%rsi), %ymm1, %ymm2; vmovdqu %ymm2, 64(%rsi); vzeroupper"
    check   ALL, "vmovdqu (%rsi), %ymm1; vpshufb 32(%rsi), %ymm1, %ymm2; vmovdqu %ymm2, 64(%rsi); vzeroupper"
    check   ALL, "vmovdqu (%rsi), %ymm1; vpslld $7, %ymm1, %ymm2; vmovdqu %ymm2, 64(%rsi); vzeroupper"
    check   ALL, "vmovdqu (%rsi), %ymm1; vpsrlq $60, %xmm1, %xmm3; vpsrlq %xmm3, %ymm1, %ymm2; vmovdqu %ymm2, 64(%rsi); vzeroupper"
    check   ALL, "vmovdqu (%rsi), %ymm1; vpalignr $5, 32(%rsi), %ymm1, %ymm2; vmovdqu %ymm2, 64(%rsi); vzeroupper"
    check   ALL, "vmovdqu (%rsi), %ymm1; vpshufd $0x1b, %ymm1, %ymm2; vmovdqu %ymm2, 64(%rsi); vzeroupper"
    check   ALL, "vmovdqu (%rsi), %ymm1; vpmovmskb %ymm1, %ecx; vzeroupper"
    .data   2
    .quad   0

    .data   0
    .balign 16
gdtr:
    .word   7 * 8 - 1
    .quad   gdt
    .balign 16
idtr:
    .word   VECTORS * 16 - 1
    .quad   idt
    .balign 8
gdt:
    .quad   0
    .quad   0x00af9b000000ffff          // 0x08: code of ring 0
    .quad   0x00cf93000000ffff          // 0x10: data of ring 0
    .quad   0x00cff3000000ffff          // 0x18: data of ring 3
    .quad   0x00affb000000ffff          // 0x20: code of ring 3
    .quad   0x0000890108000067, 0   // 0x28: the TSS
special:
    .quad   0, 1, -1, 0x8000000000000000, 0x7fffffffffffffff, 0xffffffff, 0x80000000, 0x0808
seed:           .quad 0x9e3779b97f4a7c15
features:       .quad 0
rounds:         .quad 0
ring0_task:     .quad run_case
case_code:      .quad 0
case_rsp:       .quad 0
flags_input:    .quad 0
register_input: .fill 9, 8, 0
    .balign 64
fx_input:       .word 0x37f
                .fill 11, 2, 0
                .long 0x1f80, 0
                .fill 480, 1, 0
fx_result:      .fill 512, 1, 0
memory_input:   .fill PART + EDGE_PART, 1, 0
result:         .fill OUT_LEN, 1, 0
result0:        .fill OUT_LEN, 1, 0
hex_digits:     .ascii "0123456789abcdef"
ok:             .asciz "assist ok\n"
at:             .asciz ": at "
ring0:          .asciz ", ring 0 "
ring3:          .asciz ", ring 3 "
raised:         .asciz ": an exception, stack "
newline:        .asciz "\n"
    // Beyond the image: RAM is zero.
    .set    tss, 0x10800
    .set    idt, 0x11000
    .set    kernel_stack, 0x13000
    .set    user_stack, 0x14000
    .set    memory, 0x18000
