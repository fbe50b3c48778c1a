// vectors.S: 256 interrupt entry points, 16 bytes each, and what they lead to: the registers that
// C may change are saved around interrupt().

    .text
    .code64
    .balign 16
    .globl  vectors
vectors:
    .set    vector, 0
    .rept   256
    .balign 16
    // Those that push an error code themselves (SDM volume 3, table 7-1).
    .if     (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21)
    .else
    push    $0
    .endif
    pushq   $vector
    jmp     common
    .set    vector, vector + 1
    .endr

common:
    push    %rax
    push    %rcx
    push    %rdx
    push    %rsi
    push    %rdi
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    cld
    mov     %rsp, %rdi
    call    interrupt
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdi
    pop     %rsi
    pop     %rdx
    pop     %rcx
    pop     %rax
    add     $16, %rsp               // vector and error code
    iretq
