// smc: cross-modifying code: one vCPU rewrites an operand of an instruction that all execute, by
// the protocol of Intel's manual (volume 3, "Handling Self- and Cross-Modifying Code"): while it
// is written nobody executes it, and before it is executed each vCPU executes a serialising
// instruction, CPUID. Each must see the new operand.
//
// Mode:     user
// vCPUs:    any; with one the code is only self-modifying
// Input:    rbp: rounds (0 means 300, or 100 in ring 0)
// Output:   none
// Outcomes: none
// Exit:     0; a vCPU that executes the old instruction fails the iteration

#include "stress.h"

// The operand is aligned, so that one store changes all of it.
extern uint32_t rewritten(void);
extern volatile uint32_t rewritten_operand;
__asm__(".pushsection .text\n"
        "    .balign 64, 0x90\n"
        "    nop\n"
        "    nop\n"
        "    nop\n"
        "rewritten:\n"
        "    .byte 0xb8\n"                  // mov eax, imm32
        "rewritten_operand:\n"
        "    .long 0\n"
        "    ret\n"
        "    .balign 64, 0x90\n"
        ".popsection");

static void serialise(void) {
    uint32_t eax = 0, ecx = 0;
    __asm__ volatile("mfence\n\tcpuid" : "+a"(eax), "+c"(ecx) : : "rbx", "rdx", "memory");
}

void stress_main(struct vcpu *me) {
    static struct barrier executed;
    static cache_aligned _Atomic uint32_t version;
    uint32_t rounds = iterations(me, 300, 100);

    for (uint32_t round = 1; round <= rounds; round++) {
        if (me->index == 0) {
            rewritten_operand = round;
            atomic_store(&version, round);
        }
        wait_until(atomic_load(&version) == round);
        serialise();
        check_eq(rewritten(), round);
        barrier_wait(&executed, me->count);
    }
}
